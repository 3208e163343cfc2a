"""Fates and clusters against all pairs in memory, and what must hold for any nights in any order."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from unittest.mock import patch

import hypothesis
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.duplicates import names, near
from data.duplicates.decide import Settings
from data.duplicates.ledger import EXACT, FATES, KEPT, NEAR, NOBODY, STRADDLING, Ledger
from data.duplicates.near import accepted_from
from data.rows import sketch
from data.rows.keys import parse_name
from data.rows.parts import KINDS
from data.rows.sketch import BANDS, band_keys, similarity, sketches_of
from tests.data.corpus import RULES, Home, Piece, Seen, document, edited, home, plain, repeatable, respaced, window
from tests.reference.duplicates import Row, Sketched, decide, jaccard

EXACT_ONLY = Settings(threshold=None, drop=True)
DROP, KEEP = Settings(threshold=0.8, drop=True), Settings(threshold=0.8, drop=False)
LEAST = accepted_from(0.8)
FATE_NAMES = {"kept": KEPT, "exact": EXACT, "near": NEAR, "straddling": STRADDLING}


def variant(number: int, how: int) -> str:
    """Copies of a document: 0 to 2 exact, 3 to 5 near, 6 and 7 short, and 8 of one word."""
    words = document(number)
    exact = [plain(words), respaced(words, 1), respaced(words, 2)]
    return [*exact, edited(words, 1), edited(words, 2), plain(words[1:]), plain(words[:3]), plain(words[:2]), words[0]][
        how
    ]


def some_night(generator: random.Random, num_documents: int) -> list[Piece]:
    """Parts full of copies: planted ones, overlapping windows, and texts of hardly any word."""
    make: list[Callable[[int], str]] = [
        lambda number: variant(number, generator.randrange(9)),
        lambda number: window(number, 5 * generator.randrange(8)),
        lambda number: ("!", "😀", "你 好", "你好", "a b", "A b", "\u3000x")[number],
    ]
    return [
        Piece(
            [
                generator.choices(make, (3, 4, 1))[0](generator.randrange(num_documents))
                for _ in range(generator.randrange(9))
            ],
            kind,
        )
        for kind in generator.choices(KINDS, k=generator.randrange(4))
    ]


def nights_of(seed: int, count: int) -> list[list[Piece]]:
    generator = random.Random(seed)
    num_documents = generator.randint(1, 4)
    return [some_night(generator, num_documents) for _ in range(count)]


some_nights = st.builds(nights_of, st.integers(0, 2**32), st.integers(1, 3))
two_nights = st.builds(nights_of, st.integers(0, 2**32), st.just(2))
how_alike = st.sampled_from([DROP, KEEP, EXACT_ONLY])


def is_val(cluster: str) -> bool:
    return bool(RULES.is_val(parse_name(cluster))[0])


@cache
def sketched(text: str) -> np.ndarray:
    return sketches_of(pl.Series([text]))


def estimate(one: Row, other: Row) -> float:
    return float(similarity(sketched(one.text), sketched(other.text))[0])


def linked(one: Row, other: Row) -> bool:
    """As sketches see it: a band in common, and an estimate not too low."""
    a, b = sketched(one.text), sketched(other.text)
    return any(band_keys(a, band) == band_keys(b, band) for band in range(BANDS)) and estimate(one, other) >= LEAST


@hypothesis.settings(repeatable, max_examples=60)
@given(some_nights, how_alike)
def test_fates_and_clusters_are_those_of_all_pairs(nights: list[list[Piece]], how: Settings) -> None:
    expected = [[Row(piece.kind, text) for piece in night for text in piece.texts] for night in nights]
    with home(settings=how) as its:
        for night in nights:
            its.add(*night)
        seen = its.seen()
        assert its.ledger == Ledger.read(its.folder, its.folder / "parts")
    if how.threshold is None:
        decide(expected, Sketched(lambda one, other: one.name == other.name, estimate, 0.0), False, is_val)
    else:
        decide(expected, Sketched(linked, estimate, LEAST), how.drop, is_val)
    rows = [row for night in expected for row in night]
    assert [(row.text, row.name) for row in seen] == [(row.text, row.name) for row in rows]
    assert [row.fate for row in seen] == [FATE_NAMES[row.fate] for row in rows]
    assert [row.cluster for row in seen] == [row.cluster or "0" * 32 for row in rows]
    number = {id(row): number for number, row in enumerate(rows)}
    assert [row.kept for row in seen] == [number[id(row.kept)] if row.kept else NOBODY for row in rows]


@repeatable
@given(some_nights, how_alike)
def test_every_row_has_one_fate_and_every_text_that_is_new_is_kept(nights: list[list[Piece]], how: Settings) -> None:
    with home(settings=how) as its:
        for night in nights:
            its.add(*night)
        seen = its.seen()
    counts = Counter(row.fate for row in seen)
    assert len(seen) == sum(len(piece.texts) for night in nights for piece in night) == sum(counts.values())
    assert set(counts) <= set(range(len(FATES)))
    if how is not DROP:
        assert counts[NEAR] == 0
    if how is EXACT_ONLY:
        assert counts[STRADDLING] == 0
    kept = Counter((row.kind, row.name) for row in seen if row.fate == KEPT)
    assert set(kept.values()) <= {1}
    others = {(row.kind, row.name) for row in seen if row.fate in (NEAR, STRADDLING)}
    assert {(row.kind, row.name) for row in seen} == set(kept) | others and not set(kept) & others


def verdicts(rows: Sequence[Seen]) -> set[tuple[str, str, int, str, str]]:
    """What became of the distinct rows, whatever their numbers."""
    return {
        (row.kind, row.name, row.fate, row.cluster, "" if row.kept == NOBODY else rows[row.kept].name)
        for row in rows
        if row.fate != EXACT
    }


@repeatable
@given(two_nights, how_alike, st.randoms(use_true_random=False), st.integers(1, 4))
def test_neither_order_nor_cutting_matters(
    nights: list[list[Piece]], how: Settings, generator: random.Random, rows_per_part: int
) -> None:
    """The parts in another order, their rows too, cut into other parts; and other sizes of what is done at once."""
    found = []
    for shuffle in (False, True):
        with home(settings=how) as its:
            for night in nights:
                its.add(*(shuffled(night, generator, rows_per_part) if shuffle else night))
            found.append(verdicts(its.seen()))
        with home(settings=how) as its, patch.object(names, "ROWS_PER_PASS", rows_per_part):  # noqa: SIM117
            with patch.object(near, "PAIRS_AT_ONCE", rows_per_part), patch.object(sketch, "SLICE_BYTES", 500):
                for night in nights:
                    its.add(*night)
                found.append(verdicts(its.seen()))
    assert all(one == found[0] for one in found)


def shuffled(pieces: Sequence[Piece], generator: random.Random, rows_per_part: int) -> list[Piece]:
    cut = []
    for kind in KINDS:
        rows = [text for piece in pieces if piece.kind == kind for text in piece.texts]
        generator.shuffle(rows)
        cut += [Piece(rows[s : s + rows_per_part], kind) for s in range(0, len(rows), rows_per_part)]
    generator.shuffle(cut)
    return cut


@repeatable
@given(two_nights, how_alike)
def test_a_later_night_changes_no_byte_of_an_earlier_one(nights: list[list[Piece]], how: Settings) -> None:
    with home(settings=how) as its:
        its.add(*nights[0])
        files, seen = its.files(0), its.seen()
        its.add(*nights[1])
        assert its.files(0) == files and len(files) >= 5
        assert its.seen()[: len(seen)] == seen
        assert [g.number for g in its.ledger.generations] == [0, 1]


def graded(seed: int) -> list[str]:
    """Thirty words or more; of every document copies from slightly to wholly different."""
    generator = np.random.default_rng(seed)
    found = []
    for number in range(8):
        words = document(seed * 8 + number, int(generator.integers(30, 120)))
        for share in (0, 0.02, 0.05, 0.08, 0.1, 0.15, 0.3):
            differing = round(share * len(words))
            found.append(plain([f"other{x}" for x in generator.integers(0, 10**6, differing)] + words[differing:]))
    generator.shuffle(found)
    return found


def alike(rows: Sequence[Seen]) -> list[tuple[Seen, Seen]]:
    return [pair for pair in combinations(rows, 2) if jaccard(pair[0].text, pair[1].text) >= 0.8]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("num_nights", [1, 3])
@pytest.mark.parametrize("how", [DROP, KEEP])
def test_what_is_kept_is_not_alike_or_on_one_side(tmp_path: Path, seed: int, num_nights: int, how: Settings) -> None:
    its, texts = Home(tmp_path, how), graded(seed)
    for night in range(num_nights):
        mine = texts[night::num_nights]
        its.add(Piece(mine[::2]), Piece(mine[1::3], "chat"), Piece(mine[1::2]), Piece(mine[::3], "chat"))
    kept = its.kept()
    near_pairs = alike(kept)
    assert near_pairs
    assert all(is_val(one.cluster) == is_val(other.cluster) for one, other in near_pairs)
    assert how is KEEP or all(one.kind != other.kind for one, other in near_pairs)
    assert num_nights > 1 or all(one.cluster == other.cluster for one, other in near_pairs)
    assert all(one.cluster != other.cluster for one, other in combinations(kept, 2) if not related(one, other))


def related(one: Seen, other: Seen) -> bool:
    """Whether two graded copies come of the same document: their last words do."""
    return jaccard(plain(one.text.split()[-15:]), plain(other.text.split()[-15:])) > 0.9


def straddling_triple() -> tuple[str, str, str]:
    """Two texts that are not linked and lie on different sides, and one between them that repeats both."""
    for number in range(400):
        words, other = document(number, 120), document(number + 1_000, 12)
        left, middle, right = (plain(it) for it in (other + words[12:], words, words[:112] + other[:8]))
        rows = [Row("pretrain", text) for text in (left, middle, right)]
        apart = is_val(rows[0].name) != is_val(rows[2].name) and not linked(rows[0], rows[2])
        if apart and all(linked(rows[1], it) and jaccard(middle, it.text) >= 0.8 for it in rows[::2]):
            return left, middle, right
    raise AssertionError("no such texts")


@pytest.mark.parametrize("how", [DROP, KEEP])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_repeats_rows_of_both_sides_is_left_out(tmp_path: Path, how: Settings, kind: str) -> None:
    its = Home(tmp_path, how)
    left, middle, right = straddling_triple()
    its.add(Piece([left, right]))
    assert [row.fate for row in its.seen()] == [KEPT, KEPT]
    its.add(Piece([plain(document(500)), middle], kind))
    expected = NEAR if how is DROP and kind == "pretrain" else STRADDLING
    assert [row.fate for row in its.seen()][2:] == [KEPT, expected]
    assert its.seen()[3].kept in (0, 1)
    its.add(Piece([middle], kind))
    assert its.seen()[-1].fate == EXACT


@pytest.mark.parametrize("how", [DROP, KEEP])
def test_all_three_in_one_night_are_one_cluster(tmp_path: Path, how: Settings) -> None:
    its = Home(tmp_path, how)
    left, middle, right = straddling_triple()
    its.add(Piece([left, middle, right]))
    seen = its.seen()
    least = min(row.name for row in seen)
    assert len({row.cluster for row in seen}) == 1 and seen[0].cluster == least
    others = [KEPT, NEAR, KEPT] if least != seen[1].name else [NEAR, KEPT, NEAR]
    assert [row.fate for row in seen] == (others if how is DROP else [KEPT] * 3)


@pytest.mark.parametrize("how", [DROP, KEEP])
@pytest.mark.parametrize("number", range(6))
def test_a_near_copy_of_an_old_row_joins_its_cluster(tmp_path: Path, how: Settings, number: int) -> None:
    its, words = Home(tmp_path, how), document(number)
    its.add(Piece([plain(words), plain(document(number + 6))]))
    its.add(Piece([edited(words, 1)]))
    its.add(Piece([edited(words, 2), edited(words, 3)], "chat"), Piece([respaced(words)]))
    seen = its.seen()
    assert [row.cluster == seen[0].name for row in seen] == [True, False, True, True, True, False]
    assert [row.fate for row in seen[:3]] == [KEPT, KEPT, NEAR if how is DROP else KEPT]
    assert sorted(row.fate for row in seen[3:5]) == ([KEPT, NEAR] if how is DROP else [KEPT, KEPT])
    assert seen[5].fate == EXACT


@pytest.mark.parametrize("how", [EXACT_ONLY, DROP, KEEP])
@pytest.mark.parametrize("nights", [1, 2])
@pytest.mark.parametrize("text", [variant(number, how) for number in range(3) for how in (0, 6, 8)])
def test_a_text_of_both_kinds_is_kept_twice_in_one_cluster(
    tmp_path: Path, how: Settings, nights: int, text: str
) -> None:
    its, both = Home(tmp_path, how), (Piece([text, "unlike"], "chat"), Piece([text], "pretrain"))
    for night in (both,) if nights == 1 else ((both[0],), (both[1],)):
        its.add(*night)
    same = [row for row in its.kept() if row.text == text]
    assert [row.kind for row in same] == ["chat", "pretrain"]
    assert {row.cluster for row in same} == {same[0].name}


def test_real_texts_are_decided_as_all_pairs_are(tmp_path: Path, docstrings: list[str]) -> None:
    its = Home(tmp_path, DROP)
    its.add(Piece(docstrings[::2]), Piece(docstrings[1::2]))
    kept = its.kept()
    assert not alike(kept)
    seen = its.seen()
    dropped = [row for row in seen if row.fate == NEAR]
    assert dropped and len(dropped) + len(kept) == len(docstrings)
    assert all(seen[row.kept].fate == KEPT and jaccard(row.text, seen[row.kept].text) >= 0.8 for row in dropped)
