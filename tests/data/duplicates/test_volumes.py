"""Generations in few files: every look-up and every later decision is as if each had files of its own."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.duplicates import volumes
from data.duplicates.decide import NearDuplicateRules
from data.duplicates.ledger import EXACT, ROWS, Ledger
from data.duplicates.likeness import own_rows_by_what_counts, shared_so_far
from data.duplicates.near import ALL_PAIRS_UP_TO, NearIndex
from data.duplicates.volumes import files_of, fold_volumes
from data.lookup.fates import rows_named
from data.lookup.neighbours import neighbours
from data.rows.parts import KINDS
from data.rows.sketch import BANDS
from tests.data.corpus import Home, Piece, document, edited, filled, home, plain, respaced, window

SUFFIXES = 13
"""Files of a volume."""


def asked(prompt: int, number: int) -> str:
    """A conversation: a long prompt with a short question, and a short answer."""
    return f"{plain(document(900 + prompt, 120))} question{number}\nanswer{number} in words{number}"


def texts_of_a_night(generator: random.Random, count: int) -> list[str]:
    """Copies, near ones, windows of one text, rows of a template, and rows that begin alike and go on differently."""
    make: list[Callable[[int], str]] = [
        lambda n: respaced(document(n % 6), n),
        lambda n: edited(document(n % 6), n),
        lambda n: window(7, n % 150),
        lambda n: plain(filled(8, n)),
        lambda n: plain([*document(9, 40), *document(10_000 + n, 30)]),
        lambda n: asked(n % 2, n),
        lambda n: asked(2, n),
    ]
    return [generator.choice(make)(generator.randrange(10**6)) for _ in range(count)]


@st.composite
def nights(draw: st.DrawFn) -> list[list[Piece]]:
    generator = random.Random(draw(st.integers(0, 2**32)))
    sizes = draw(st.lists(st.lists(st.sampled_from([0, 1, 9, 30]), max_size=3), min_size=2, max_size=6))
    return [[Piece(texts_of_a_night(generator, size), generator.choice(KINDS)) for size in night] for night in sizes]


def found_in(ledger: Ledger) -> list[object]:
    """What every look-up in the ledger says."""
    parts, rows = ledger.parts, np.arange(ledger.next_row)
    ids = np.concatenate([part.part.ids for part in parts]) if parts else np.zeros(0)
    named = [[found.tolist() for found in rows_named(ledger, ids[n : n + 1])] for n in range(len(ids))]
    near = [sorted(neighbours(ledger, [int(row)], 0.8)) for row in rows[::3]]
    places = [(ledger.generation(int(row)).number, ledger.kind_of_rows(rows[row : row + 1])[0]) for row in rows]
    fates = [ledger.fates_of(part).tolist() for part in parts]
    clusters = [ledger.clusters_of(part).tolist() for part in parts]
    return [fates, clusters, named, near, places, shared_so_far(ledger).tolist()]


@settings(max_examples=7, deadline=None)
@given(nights(), st.sampled_from([1 << 30, 40_000]))
def test_folding_every_night_changes_no_answer(some: list[list[Piece]], full_bytes: int) -> None:
    with home() as plain_home, home(folds=True) as folded, patch.object(volumes, "FULL_BYTES", full_bytes):
        for night in some:
            for its in (plain_home, folded):
                its.add(*night)
            assert folded.seen() == plain_home.seen()
        assert len(plain_home.ledger.volumes) == len(some)
        read = Ledger.read(folded.folder, folded.folder / "parts")
        assert read == folded.ledger
        assert found_in(read) == found_in(plain_home.ledger)


@settings(max_examples=4, deadline=None)
@given(nights(), st.integers(1, 6))
def test_a_ledger_that_was_never_folded_is_folded_later(some: list[list[Piece]], since: int) -> None:
    with home() as plain_home, home() as late:
        for number, night in enumerate(some):
            late.folds = number >= since
            for its in (plain_home, late):
                its.add(*night)
        assert late.seen() == plain_home.seen()
        assert found_in(late.ledger) == found_in(plain_home.ledger)


def kinds_of_files(folder: Path) -> Counter[str]:
    """How many files there are with each suffix."""
    return Counter(path.name.partition(".")[2] for path in folder.glob("g*.*"))


@pytest.mark.parametrize("threshold", [0.8, None])
def test_forty_nights_leave_few_files(tmp_path: Path, threshold: float | None) -> None:
    its = Home(tmp_path, NearDuplicateRules(threshold=threshold, drop=True), folds=True)
    for night in range(40):
        its.add(Piece([plain(document(1_000 + 3 * night + n, 12)) for n in range(1 + night % 3)]))
        counts = kinds_of_files(tmp_path)
        assert max(counts.values()) <= 3 + (night + 1).bit_length()
        assert len(counts) == (SUFFIXES if threshold else 6)
    assert len(its.ledger.generations) == 40
    assert sum(len(files_of(volume)) for volume in its.ledger.volumes) == sum(counts.values())


def test_a_key_of_all_rows_stays_as_quick_to_look_up(tmp_path: Path) -> None:
    """A folded band holds of a key what the bands of its generations would find, and that in order of generations."""
    its = Home(tmp_path, folds=True)
    for first in (0, 1_000):
        count = ALL_PAIRS_UP_TO * 3 + first // 100
        its.add(Piece([plain([*document(1, 200), f"end{n}"]) for n in range(first, first + count)]))
    [volume] = its.ledger.volumes
    index = NearIndex.open(volume.prefix, len(volume.generations))
    distinct = sum(row.fate != EXACT for row in its.seen())
    assert len(index.rows) == distinct and index.bands.shape == (BANDS, distinct)
    asked = np.array(index.sketches[:1])
    per_band = Counter(len(rows) for _, rows in index.matches(asked, 0.8))
    assert per_band[1] == sum(per_band.values()) <= BANDS * ALL_PAIRS_UP_TO * 2


def test_rows_that_share_a_prompt_are_asked_for_as_they_were_sketched(tmp_path: Path) -> None:
    """A folded index of rows without their prompts knows what counted in each generation."""
    whole, folded = Home(tmp_path / "whole"), Home(tmp_path / "folded", folds=True)
    for night in range(5):
        piece = Piece([asked(night // 2, 100 * night + n) for n in range(14)], "chat")
        for its in (whole, folded):
            its.add(piece)
    assert folded.seen() == whole.seen()
    assert len(folded.ledger.volumes) < 5
    parted = [(rows, shared.tolist()) for _, rows, shared in own_rows_by_what_counts(folded.ledger)]
    assert len({len(shared) for _, shared in parted}) > 1, "more came to be shared"
    for _, rows, shared in own_rows_by_what_counts(whole.ledger):
        assert any(rows.start in its and rows[-1] in its and shared.tolist() == known for its, known in parted)


def test_a_kind_without_new_rows_is_left_alone(tmp_path: Path) -> None:
    its = Home(tmp_path)
    its.add(Piece(["a text of a few words"]))
    before = its.files(0)
    assert fold_volumes(its.ledger) is its.ledger
    assert its.files(0) == before


def test_a_ledger_of_the_time_before_folding_is_read(tmp_path: Path) -> None:
    its = Home(tmp_path)
    for night in range(3):
        its.add(Piece([f"night {night} of some words"]))
    content = json.loads((tmp_path / ROWS).read_text())
    del content["folded"]
    (tmp_path / ROWS).write_text(json.dumps(content))
    assert Ledger.read(tmp_path, tmp_path / "parts") == its.ledger
