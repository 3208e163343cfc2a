"""Loss by source and domain against a walk over every slot."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from data.tokens.shards import open_segments
from model.tokens.order import TextReplay
from model.tokens.packing import IGNORED
from tasks.home.contents.packed import open_packed, with_text
from tasks.training.watching.groups import RowGroups, domains_in
from tests.tasks.prepared import Prepared


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_figures_and_shares_are_those_of_a_walk_over_all_segments(prepared: Prepared, share: float) -> None:
    _, tokens = prepared
    packed, replay = open_packed(tokens, "chat", "train"), None
    own, folders = packed.num_rows, [("chat", 0)]
    if share:
        packed = with_text(packed, tokens)
        replay, folders = TextReplay(own, packed.num_rows - own, share), [*folders, ("pretrain", own)]
    groups = RowGroups.open(tokens, "chat", packed, replay)
    rows = np.random.default_rng(0).integers(0, packed.num_rows, 12)
    nats = np.random.default_rng(1).uniform(0, 9, (len(rows), packed.sequence_length_tokens)).astype(np.float32)
    labels = packed.rows(rows).labels
    nats[labels == IGNORED] = 0
    expected: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    slots: dict[str, int] = defaultdict(int)
    read: dict[str, float] = defaultdict(float)
    for kind, base in folders:
        table = open_segments(tokens.path, kind, "train")
        weight = (share if kind == "pretrain" else 1 - share) / table["length"].sum()
        for row, start, length, _, source, domain in table.iter_rows():
            read[f"{kind}/{domain}"] += length * weight
            for place in np.flatnonzero(rows == row + base):
                here = place, slice(start, start + length)
                slots[f"{kind}/{domain}"] += length
                for name in (f"source.{source}", f"domain.{kind}/{domain}"):
                    expected[name][0] += float(nats[here].sum())
                    expected[name][1] += int((labels[here] != IGNORED).sum())
    of_slot = groups.groups_of(rows, packed.sequence_length_tokens)
    figures = groups.figures(of_slot, nats, labels)
    told = {name: pair for name, pair in expected.items() if pair[1]}
    assert {name.removeprefix("loss.") for name in figures if name.startswith("loss.")} == told.keys()
    for name, (cost, targets) in told.items():
        assert figures[f"targets.{name}"] == targets
        assert figures[f"loss.{name}"] == pytest.approx(cost / targets, abs=2e-5)
    assert domains_in(figures).keys() == {name.removeprefix("domain.") for name in told if name.startswith("domain.")}
    shares = groups.shares(of_slot)
    assert shares.keys() == read.keys()
    for name, (here, usual) in shares.items():
        assert here == pytest.approx(slots[name] / sum(slots.values()))
        assert usual == pytest.approx(read[name])
