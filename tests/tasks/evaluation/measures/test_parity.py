"""Transformers' reading of a folder beside ours: what is measured, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from data.tokens.shards import SEGMENTS, write_shard
from model.exchange.export import export_folder
from model.exchange.hugging_face import import_hugging_face
from model.network.transformer import Transformer
from model.tokens.packing import PackedTokens
from tasks.errors import NightStopped
from tasks.evaluation.measures.parity import Parity, compare, validation_ids
from tests.model.tiny import tiny_config
from tests.reference.parity import agreement, compared_tokens, routes
from tests.tasks.rows import small_tokenizer, stage_record

LAYERS = 2
GATE = "model.layers.1.mlp.gate.weight"


@pytest.fixture
def model() -> Transformer:
    return Transformer(tiny_config(num_hidden_layers=LAYERS), seed=5)


@pytest.fixture
def folder(model: Transformer, tmp_path: Path) -> Path:
    export_folder(model, small_tokenizer(), tmp_path / "model")
    return tmp_path / "model"


def random_ids(rows: int = 4, tokens: int = 48) -> Tensor:
    return torch.randint(0, 260, (rows, tokens), generator=torch.Generator().manual_seed(0))


def spoil(folder: Path, name: str, noise: float) -> None:
    """Weights as a reader would have them that reads one tensor a little wrongly."""
    tensors = load_file(folder / "model.safetensors")
    tensors[name] += noise * torch.randn(tensors[name].shape, generator=torch.Generator().manual_seed(1))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_an_export_is_read_as_it_was_written(model: Transformer, folder: Path) -> None:
    parity = compare(model, folder, random_ids())
    assert parity.logit_difference < 1e-4
    assert parity.route_agreement_L == (1.0,) * LAYERS
    assert parity.figures == {"export/logit_difference": parity.logit_difference, "export/route_agreement": 1.0}
    parity.check(folder)


def test_a_dense_model_has_no_routes(tmp_path: Path) -> None:
    model = Transformer(tiny_config(dense=True), seed=5)
    export_folder(model, small_tokenizer(), tmp_path)
    parity = compare(model, tmp_path, random_ids())
    parity.check(tmp_path)
    assert parity.figures.keys() == {"export/logit_difference"}


@pytest.mark.parametrize("noise", [0.0, 1e-3, 3e-3, 0.3])
def test_routes_are_compared_token_by_token_and_logits_up_to_the_first_that_turns(
    noise: float, model: Transformer, folder: Path
) -> None:
    spoil(folder, GATE, noise)
    ids = random_ids()
    parity = compare(model, folder, ids)
    with torch.no_grad():
        read = import_hugging_face(folder)
        (ours, our_routing), (theirs, their_routing) = model.hidden(ids), read.hidden(ids)
        apart = (model.logits(ours) - read.logits(theirs)).abs().amax(dim=-1)
    one, other = (routes([r.experts_NK for r in routing], len(ids)) for routing in (our_routing, their_routing))
    assert parity.route_agreement_L == pytest.approx([agreement(one, other, layer) for layer in range(LAYERS)])
    kept = compared_tokens(one, other)
    assert parity.logit_difference == pytest.approx(max(float(apart[at]) for at in kept), abs=1e-4)
    if noise == 1e-3:
        assert len(kept) < ids.numel(), "some route turns, and is told apart from the logits"
        assert parity.logit_difference < float(apart.max()) / 2


def test_a_router_read_wrongly_is_refused_by_its_layer(model: Transformer, folder: Path) -> None:
    spoil(folder, GATE, 0.1)
    with pytest.raises(NightStopped, match=r"0\.\d+ of tokens take the same experts in layer 1, the limit is 0\.99"):
        compare(model, folder, random_ids()).check(folder)


def test_logits_that_differ_are_refused_where_no_route_does(model: Transformer, folder: Path) -> None:
    spoil(folder, "model.norm.weight", 0.01)
    parity = compare(model, folder, random_ids())
    assert parity.route_agreement_L == (1.0,) * LAYERS
    with pytest.raises(
        NightStopped, match=r"logits are \d\.\d+e-\d+ apart, the limit is 1e-03; nothing was registered"
    ):
        parity.check(folder)


@pytest.mark.parametrize("parity", [Parity(float("nan"), (1.0,)), Parity(0.0, (float("nan"),))])
def test_what_is_no_number_is_refused(parity: Parity, tmp_path: Path) -> None:
    with pytest.raises(NightStopped):
        parity.check(tmp_path)


def test_ids_are_the_beginnings_of_validation_rows_of_both_kinds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    written = {"pretrain": rng.integers(0, 300, (6, 300)), "chat": rng.integers(0, 300, (2, 300))}
    for kind, ids in written.items():
        packed = PackedTokens(
            ids.astype(np.uint16), ids.astype(np.int32), np.ones_like(ids, dtype=np.uint16), fingerprint=""
        )
        write_shard(tmp_path / f"{kind}.val.all", packed, pl.DataFrame(schema=SEGMENTS))
    ids = validation_ids(stage_record(tmp_path))
    assert ids.dtype == torch.int64
    assert ids.tolist() == [*written["pretrain"][:4, :256].tolist(), *written["chat"][:, :256].tolist()]
