"""The index of names against a dictionary, over generations, passes, kinds and forged names."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.duplicates import names
from data.duplicates.names import NameIndex, build_names
from data.rows.keys import ID_DTYPE
from data.rows.parts import KINDS, Part, PartRows
from tests.data.corpus import repeatable

HALVES = (0, 1, 2**32, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1)
"""Few enough that upper halves repeat under different lower halves, and the borders of passes are among them."""
Name = tuple[int, int]
one_name = st.tuples(st.sampled_from(HALVES), st.sampled_from(HALVES))
one_part = st.tuples(st.sampled_from(KINDS), st.lists(one_name, max_size=8))
nights = st.lists(st.lists(one_part, max_size=4), min_size=1, max_size=3)
rows_per_pass = st.sampled_from([1, 2, 3, 7, 1_000])
ALL_NAMES: list[Name] = [(hi, lo) for hi in HALVES for lo in HALVES]


def as_ids(some: Sequence[Name]) -> np.ndarray:
    return np.array(some, dtype=ID_DTYPE)


@dataclass(frozen=True)
class Numbered:
    """A row of the reference."""

    row: int
    kind: str
    name: Name


def written(folder: Path, parts: Sequence[tuple[str, Sequence[Name]]], base: int, number: int) -> list[PartRows]:
    """Parts that hold names alone."""
    found = []
    for kind, some in parts:
        part = Part(folder, number + len(found))
        part.path("ids").write_bytes(as_ids(some).tobytes())
        found.append(PartRows(part, base, len(some), kind, "source"))
        base += len(some)
    return found


def numbered(parts: Sequence[PartRows], some: Sequence[Sequence[Name]]) -> list[Numbered]:
    return [
        Numbered(p.base + n, p.kind, name)
        for p, its in zip(parts, some, strict=True)
        for n, name in enumerate(its)
    ]  # fmt: skip


@repeatable
@given(nights, rows_per_pass)
def test_the_index_says_what_a_dictionary_says(some: list[list[tuple[str, list[Name]]]], per_pass: int) -> None:
    with tempfile.TemporaryDirectory() as name, patch.object(names, "ROWS_PER_PASS", per_pass):
        folder, everything = Path(name), list[PartRows]()
        for generation, parts in enumerate(some):
            base = sum(p.count for p in everything)
            fresh = written(folder, parts, base, len(everything))
            everything += fresh
            rows = numbered(fresh, [its for _, its in parts])
            repeated = build_names(fresh, folder / f"g{generation}")
            check_repeated(repeated, rows, base)
            check_index(NameIndex.open(folder / f"g{generation}"), rows, everything)


def check_repeated(repeated: np.ndarray, rows: Sequence[Numbered], base: int) -> None:
    seen: set[tuple[str, Name]] = set()
    for row in rows:
        assert repeated[row.row - base] == ((row.kind, row.name) in seen)
        seen.add((row.kind, row.name))
    assert len(repeated) == len(rows)


def check_index(index: NameIndex, rows: Sequence[Numbered], everything: Sequence[PartRows]) -> None:
    by_name: dict[Name, list[Numbered]] = defaultdict(list)
    for row in rows:
        by_name[row.name].append(row)
    ordered = sorted(rows, key=lambda row: (row.name, KINDS.index(row.kind), row.row))
    assert list(zip(index.hi.tolist(), index.lo.tolist(), strict=True)) == [row.name for row in ordered]
    assert index.rows.tolist() == [row.row for row in ordered]
    first, last = index.range_of(as_ids(ALL_NAMES))
    for name, start, stop in zip(ALL_NAMES, first.tolist(), last.tolist(), strict=True):
        assert sorted(index.rows[start:stop].tolist()) == [row.row for row in by_name[name]]
    bases = np.array([p.base for p in everything], dtype=np.int64)
    kind_of_row = np.array([KINDS.index(p.kind) for p in everything], dtype=np.int64)
    for code, kind in enumerate(KINDS):
        borne = index.bears(as_ids(ALL_NAMES), kind_of_row, bases, code)
        assert borne.tolist() == [any(row.kind == kind for row in by_name[name]) for name in ALL_NAMES]


@repeatable
@given(st.lists(one_part, max_size=5), st.integers(0, 10**6))
def test_the_number_of_passes_changes_no_file(parts: list[tuple[str, list[Name]]], base: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fresh = written(folder, parts, base, 0)
        found = set()
        for per_pass in (1, 2, 5, 10**6):
            with patch.object(names, "ROWS_PER_PASS", per_pass):
                repeated = build_names(fresh, folder / "g")
            found.add((repeated.tobytes(), *(path.read_bytes() for path in sorted(folder.glob("g.*")))))
        assert len(found) == 1


@repeatable
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=40))
def test_every_name_is_in_one_pass(some: list[Name]) -> None:
    with tempfile.TemporaryDirectory() as name:
        parts = written(Path(name), [("pretrain", some[::2]), ("chat", some[1::2])], 0, 0)
        with patch.object(names, "ROWS_PER_PASS", 3):
            found = list(names.passes(parts))
        assert len(found) == max(1, -(-len(some) // 3))
        assert sorted(row for _, rows, _ in found for row in rows.tolist()) == list(range(len(some)))
        edges = [(ids["hi"].min(), ids["hi"].max()) for ids, _, _ in found if len(ids)]
        assert all(one[1] < other[0] for one, other in pairwise(edges))


def test_names_that_share_an_upper_half_are_two_names(tmp_path: Path) -> None:
    """Not even when they stand in turns, in one part or over parts."""
    parts = written(tmp_path, [("chat", [(5, 1), (5, 2), (5, 1)]), ("pretrain", [(5, 2), (5, 3), (5, 2)])], 0, 0)
    assert build_names(parts, tmp_path / "g").tolist() == [False, False, True, False, False, True]
    index = NameIndex.open(tmp_path / "g")
    kinds, bases = np.array([1, 0]), np.array([0, 3])
    asked = as_ids([(5, 1), (5, 2), (5, 3), (5, 4), (4, 1)])
    assert index.bears(asked, kinds, bases, KINDS.index("chat")).tolist() == [True, True, False, False, False]
    assert index.bears(asked, kinds, bases, KINDS.index("pretrain")).tolist() == [False, True, True, False, False]


@pytest.mark.parametrize("parts", [[], [("chat", [])], [("chat", []), ("pretrain", [])]])
def test_nothing_is_indexed_too(tmp_path: Path, parts: list[tuple[str, list[Name]]]) -> None:
    fresh = written(tmp_path, parts, 0, 0)
    assert build_names(fresh, tmp_path / "g").tolist() == []
    index = NameIndex.open(tmp_path / "g")
    assert not index.bears(as_ids([(1, 1)]), np.array([0]), np.array([0]), 0).any()
