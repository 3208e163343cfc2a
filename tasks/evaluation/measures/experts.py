"""Whether a mixture uses its experts, and how its routes moved away from another model's on the same tokens."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from math import comb
from pathlib import Path

import numpy as np
import polars as pl
from scipy.optimize import linear_sum_assignment

from model.tokens.packing import PackedTokens
from tasks.home.contents.scores import ROUTES

log = logging.getLogger("nightschool")

ROUTED_ROWS = 16
"""Packed validation rows of each kind, evenly spread, whose routes are kept."""
DEAD_BELOW = 0.1
"""An expert with less than this share of its layer's mean load is dead, as in `moe/dead_experts`."""


def sampled_rows(num_rows: int) -> np.ndarray:
    """Numbers of the rows whose routes are kept, of so many: a function of their number alone."""
    return np.unique(np.linspace(0, num_rows - 1, min(num_rows, ROUTED_ROWS)).round().astype(np.int64))


def load_by_layer(counts_LE: np.ndarray) -> pl.DataFrame:
    """(layer, dead, entropy, max_ratio) of each layer; a dense model has none.

    dead: experts under a tenth of the mean load. entropy: of the shares of the load over that of an even one, 1 where
    all experts get as much, 0 where one gets everything. max_ratio: the busiest expert over the mean.

    counts_LE: real tokens of each expert, shape (layers, experts).
    """
    total_L1 = np.maximum(counts_LE.sum(axis=1, keepdims=True), 1)
    share_LE = counts_LE / total_L1
    experts = counts_LE.shape[1]
    nats_L = -(share_LE * np.log(np.where(share_LE > 0, share_LE, 1))).sum(axis=1)
    return pl.DataFrame(
        {
            "layer": np.arange(len(counts_LE)),
            "dead": (share_LE * experts < DEAD_BELOW).sum(axis=1),
            "entropy": nats_L / np.log(experts) if experts > 1 else np.ones(len(counts_LE)),
            "max_ratio": share_LE.max(axis=1, initial=0) * experts,
        },
        schema={"layer": pl.Int64, "dead": pl.Int64, "entropy": pl.Float64, "max_ratio": pl.Float64},
    )


def routes_table(sampled: PackedTokens, routes_STLK: np.ndarray) -> pl.DataFrame:
    """A line for each real slot of the sampled rows, in order: `id`, and `experts` (layers, experts a token)."""
    real_ST = sampled.segment_ids != 0
    shape = routes_STLK.shape[2:]
    experts = pl.Series(routes_STLK[real_ST].astype(np.uint16), dtype=pl.Array(pl.UInt16, shape))
    return pl.DataFrame({"id": sampled.input_ids[real_ST].astype(np.uint32), "experts": experts})


@dataclass(frozen=True)
class RouteDrift:
    """How two models' routes differ on the same tokens."""

    tokens: int
    share: float
    """Of the pairs of a token and a layer, those whose set of experts differs."""
    share_by_layer: tuple[float, ...]
    renamed_share: float
    """The same after the renaming of experts in each layer under which they agree most: of a model that was trained
    from scratch, whose numbers of experts mean nothing."""
    chance_share: float
    """What routes drawn at random give."""

    @property
    def worst_layer(self) -> int:
        return int(np.argmax(self.share_by_layer))

    @property
    def sentence(self) -> str:
        return (
            f"{self.share:.1%} of routes differ from the champion's on {self.tokens:,} tokens, most in layer "
            f"{self.worst_layer} ({max(self.share_by_layer):.1%}); {self.renamed_share:.1%} if experts are renamed to "
            f"agree, {self.chance_share:.1%} by chance"
        )


def route_drift(ours: Path, theirs: Path, num_experts: int) -> RouteDrift | str:
    """The drift between two evaluations, or why it cannot be told.

    ours, theirs: folders of the evaluate stage.
    num_experts: of a layer.
    """
    paths = [folder / ROUTES for folder in (ours, theirs)]
    if not all(path.exists() for path in paths):
        return "no routes to compare: one of the models is dense, or was evaluated before routes were kept"
    one, other = (pl.read_parquet(path) for path in paths)
    if one["experts"].dtype != other["experts"].dtype:
        shapes = " and ".join(" x ".join(map(str, table["experts"].to_numpy().shape[1:])) for table in (one, other))
        return f"no routes to compare: the models have {shapes} layers and experts a token"
    if not one["id"].equals(other["id"]):
        return "no routes to compare: the models were asked other tokens, of another tokenizer or version of the slices"
    return drift_of(one["experts"].to_numpy(), other["experts"].to_numpy(), num_experts)


def drift_figures(challenger: Path, champion: Path, num_experts: int) -> dict[str, float]:
    """`eval/route_drift` of two evaluations, which is logged; empty where it cannot be told, and the log says why."""
    drift = route_drift(challenger, champion, num_experts)
    log.info("%s", drift if isinstance(drift, str) else drift.sentence)
    return {} if isinstance(drift, str) else {"eval/route_drift": drift.share}


def drift_of(ours_NLK: np.ndarray, theirs_NLK: np.ndarray, num_experts: int) -> RouteDrift:
    """The drift between routes of the same N tokens, at least one."""
    tokens, layers, top_k = ours_NLK.shape
    size = max(num_experts, int(ours_NLK.max()) + 1, int(theirs_NLK.max()) + 1)
    plain, renamed = [], []
    for layer in range(layers):
        one_NE, other_NE = (chosen(routes[:, layer], size) for routes in (ours_NLK, theirs_NLK))
        plain.append(float((one_NE != other_NE).any(axis=1).mean()))
        together_EE = one_NE.T.astype(np.int64) @ other_NE.astype(np.int64)
        _, name_E = linear_sum_assignment(together_EE, maximize=True)
        renamed.append(float((one_NE != other_NE[:, name_E]).any(axis=1).mean()))
    chance = 1 - 1 / comb(num_experts, top_k)
    return RouteDrift(tokens, float(np.mean(plain)), tuple(plain), float(np.mean(renamed)), chance)


def chosen(routes_NK: np.ndarray, num_experts: int) -> np.ndarray:
    """(N, E): whether each token goes to each expert."""
    there_NE = np.zeros((len(routes_NK), num_experts), dtype=bool)
    np.put_along_axis(there_NE, routes_NK.astype(np.int64), True, axis=1)
    return there_NE
