"""Of which source and domain the slots of packed rows are, and what a step's slots of each cost.

Shapes: B = rows of a step, T = slots of a row, S = segments, R = packed rows of a stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from model.tokens.order import Replay, TextReplay
from model.tokens.packing import IGNORED, ShardedTokens
from tasks.home.contents.packed import REPLAYED_KIND, open_segments
from tasks.home.records import StageRecord

SOURCE, DOMAIN = "source", "domain"
LOSS, TARGETS = "loss", "targets"
"""Of the names of figures in a curve: `loss.domain.chat/en` in nats per target, `targets.domain.chat/en`."""
DIGITS = 5
"""Behind the point, of a loss in the curve: a step's noise is larger by far, and every step has a line."""


@dataclass(frozen=True, eq=False)
class RowGroups:
    """Which slots of a stage's packed rows are of which source and domain; 6 bytes a segment and 8 a row in memory."""

    first_R1: np.ndarray
    """Number of the first segment of each row, and behind the last row that of all segments, int64."""
    start_S: np.ndarray
    length_S: np.ndarray
    group_S: np.ndarray
    """Place of the segment's group in `groups`."""
    groups: tuple[tuple[str, str], ...]
    """Source and domain, the domain with its kind in front: `pretrain/en`."""
    share_G: np.ndarray
    """Of the slots that the stage reads and that hold a token, what is expected to be each group's."""

    @classmethod
    def open(cls, tokens: StageRecord, kind: str, packed: ShardedTokens, replay: Replay | None) -> RowGroups:
        """Of the train side; with a TextReplay, of the text behind the stage's own rows, too.

        packed: the stage's rows, in the numbers that `replay` knows. Reads the tables of all shards.
        """
        kinds = [(kind, 0)]
        if isinstance(replay, TextReplay):
            kinds.append((REPLAYED_KIND, replay.own_rows))
        tables = [
            open_segments(tokens, name, "train").select(
                pl.col("row").cast(pl.Int64) + base, "start", "length", "source",
                pl.concat_str(pl.lit(f"{name}/"), "domain").alias("domain"),
            )
            for name, base in kinds
        ]  # fmt: skip
        table = pl.concat(tables)
        found = table.select("source", "domain").unique().sort("source", "domain").with_row_index("group")
        table = table.join(found, on=["source", "domain"], how="left", maintain_order="left")
        groups, lengths = table["group"].to_numpy().astype(np.uint16), table["length"].to_numpy()
        weights = lengths.astype(np.float64)
        if isinstance(replay, TextReplay):
            is_text = table["row"].to_numpy() >= replay.own_rows
            for its, share in ((is_text, replay.share), (~is_text, 1 - replay.share)):
                weights[its] *= share / max(1.0, weights[its].sum())
        share_G = np.bincount(groups, weights, len(found))
        first_R1 = np.searchsorted(table["row"].to_numpy(), np.arange(packed.num_rows + 1))
        names = tuple(found.select("source", "domain").iter_rows())
        share_G = share_G / max(share_G.sum(), 1e-30)
        return cls(first_R1, table["start"].to_numpy(), lengths, groups, names, share_G)

    def groups_of(self, rows_B: np.ndarray, slots: int) -> np.ndarray:
        """The group of each slot of some rows, (B, T) int64; the number of groups where there is no token."""
        group_BT = np.full((len(rows_B), slots), len(self.groups), dtype=np.int64)
        for place, row in enumerate(rows_B.tolist()):
            for segment in range(self.first_R1[row], self.first_R1[row + 1]):
                start = self.start_S[segment]
                group_BT[place, start : start + self.length_S[segment]] = self.group_S[segment]
        return group_BT

    def figures(self, group_BT: np.ndarray, nats_BT: np.ndarray, labels_BT: np.ndarray) -> dict[str, float]:
        """By source and by domain what a step's targets cost, in nats per target, and how many there are: figures of
        its point in the curve."""
        targets_BT, size = labels_BT != IGNORED, len(self.groups) + 1
        nats_G = np.bincount(group_BT.ravel(), nats_BT.ravel(), size)
        targets_G = np.bincount(group_BT.ravel(), targets_BT.ravel(), size)
        sums: dict[tuple[str, str], list[float]] = {}
        for (source, domain), nats, targets in zip(self.groups, nats_G, targets_G, strict=False):
            for by, name in ((SOURCE, source), (DOMAIN, domain)):
                if targets:
                    pair = sums.setdefault((by, name), [0.0, 0.0])
                    pair[0], pair[1] = pair[0] + float(nats), pair[1] + float(targets)
        of_loss = {f"{LOSS}.{by}.{name}": round(nats / targets, DIGITS) for (by, name), (nats, targets) in sums.items()}
        return of_loss | {f"{TARGETS}.{by}.{name}": targets for (by, name), (_, targets) in sums.items()}

    def shares(self, group_BT: np.ndarray) -> dict[str, tuple[float, float]]:
        """By domain its share of a step's slots that hold a token, and the share that is expected."""
        counts_G = np.bincount(group_BT.ravel(), minlength=len(self.groups) + 1)[:-1]
        counts_G = counts_G / max(1, counts_G.sum())
        found: dict[str, tuple[float, float]] = {}
        for (_, domain), here, expected in zip(self.groups, counts_G, self.share_G, strict=True):
            before = found.get(domain, (0.0, 0.0))
            found[domain] = before[0] + float(here), before[1] + float(expected)
        return found


def domains_in(point: Mapping[str, float]) -> dict[str, tuple[float, int]]:
    """Of each domain in a step's point of the curve: nats per target, and targets."""
    start = f"{LOSS}.{DOMAIN}."
    names = [name.removeprefix(start) for name in point if name.startswith(start)]
    return {name: (point[start + name], int(point[f"{TARGETS}.{DOMAIN}.{name}"])) for name in names}
