"""Whether transformers computes from an exported folder what our model computes: the same logits, by the same experts.

Shapes: B = rows, T = tokens of a row, L = layers, K = experts per token, V = vocabulary, N = B times T.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.rows.parts import KINDS
from tasks.errors import NightStopped
from tasks.home.contents.packed import open_packed
from tasks.home.records import StageRecord

if TYPE_CHECKING:
    from torch import Tensor

    from model.network.transformer import Transformer


MAX_LOGIT_DIFFERENCE = 1e-3
MIN_ROUTE_AGREEMENT = 0.99
"""Rounding turns a route only where two experts tie to about 1e-6, once in some hundred thousand tokens, and may turn
others after it; a router read wrongly moves a tenth of the tokens and more."""
ROWS_OF_A_KIND, TOKENS_OF_A_ROW = 4, 256


@dataclass(frozen=True)
class Parity:
    """How far transformers' reading of a folder is from ours."""

    logit_difference: float
    """Largest difference, in fp32; tokens that a turned route could have reached are left out, see `compare`."""
    route_agreement_L: tuple[float, ...]
    """Share of tokens whose set of experts is the same, by layer; a dense model has none."""

    @property
    def figures(self) -> dict[str, float]:
        figures = {"export/logit_difference": self.logit_difference}
        if self.route_agreement_L:
            figures["export/route_agreement"] = min(self.route_agreement_L)
        return figures

    def check(self, folder: Path) -> None:
        """Raise NightStopped for a folder that transformers computes otherwise."""
        problems = [
            f"{agreement:.4f} of tokens take the same experts in layer {layer}, the limit is {MIN_ROUTE_AGREEMENT}"
            for layer, agreement in enumerate(self.route_agreement_L)
            if not agreement >= MIN_ROUTE_AGREEMENT
        ]
        if not self.logit_difference < MAX_LOGIT_DIFFERENCE:
            problems.append(f"logits are {self.logit_difference:.2e} apart, the limit is {MAX_LOGIT_DIFFERENCE:.0e}")
        if problems:
            raise NightStopped(
                f"transformers computes other results from the export in {folder}: {'; '.join(problems)}; nothing was "
                "registered. Install the version of transformers that constraints.txt pins, and run the night again"
            )


def validation_ids(tokens: StageRecord) -> Tensor:
    """Ids (B, T) from the beginnings of the first packed validation rows of each kind."""
    import torch

    whole = [open_packed(tokens, kind, "val") for kind in KINDS]
    some = [rows.rows(np.arange(min(rows.num_rows, ROWS_OF_A_KIND))).input_ids for rows in whole]
    return torch.from_numpy(np.concatenate(some)[:, :TOKENS_OF_A_ROW].astype(np.int64))


def compare(ours: Transformer, folder: Path, ids_BT: Tensor) -> Parity:
    """Our model and transformers' reading of `folder` on the same ids, each row as one document, in fp32 on the CPU.

    A token whose route turns gets another expert's output, and attention hands that on to the tokens after it in its
    row, so there the logits say nothing about parity: they count up to the first turned route of a row, unless that
    leaves less than half of all tokens.
    """
    import torch

    with torch.no_grad():
        hidden_BTD, routing = ours.hidden(ids_BT)
        our_logits_BTV = ours.logits(hidden_BTD)
        their_logits_BTV, their_experts = transformers_reading(folder, ids_BT)
    same = [
        (our.experts_NK.sort(dim=-1).values == their_NK.sort(dim=-1).values).all(dim=-1).view_as(ids_BT)
        for our, their_NK in zip(routing, their_experts, strict=True)
    ]
    untouched_BT = torch.ones_like(ids_BT, dtype=torch.bool)
    for same_BT in same:
        untouched_BT &= same_BT.cummin(dim=1).values
    if untouched_BT.float().mean() < 0.5:
        untouched_BT[:] = True
    difference = (our_logits_BTV - their_logits_BTV)[untouched_BT].abs().max()
    return Parity(float(difference), tuple(float(same_BT.float().mean()) for same_BT in same))


def transformers_reading(folder: Path, ids_BT: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits (B, T, V) of transformers' model, and each layer's chosen experts (N, K); a dense model has none."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    experts: list[Tensor] = []
    for layer in model.model.layers:
        if hasattr(layer.mlp, "gate"):
            # The router logits that a model can be asked for are from before the choice; this is what it chose.
            layer.mlp.gate.register_forward_hook(lambda _module, _inputs, output: experts.append(output[2]))
    with torch.no_grad():
        return model(ids_BT).logits, experts
