"""Validation slices grow to their budget: what is in one stays, in its order, and each growth is a version."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.duplicates.decide import NearDuplicateRules
from data.rows.keys import row_ids
from data.rows.parts import KINDS, content_column, texts_of
from data.sides.deal import add_sides
from data.sides.read import read_val
from data.sides.slices import SLICES, Slice, digest_of_names, read_slices, taken, validation_version
from tests.data.corpus import RULES, Home, Piece, document, home, plain, repeatable

EXACT_ONLY = NearDuplicateRules(threshold=None, drop=True)
SOURCES = ("books", "web", "rare")
WEIGHTS = dict.fromkeys(SOURCES, 1.0)


def night(its: Home, *pieces: Piece) -> dict[str, int]:
    """One more night with its sides, which lie beside the ledger."""
    fresh = its.add(*pieces)
    return add_sides(its.ledger, its.ledger.generations[-1].number, fresh, its.rules, its.folder, 1)


def library(count: int, start: int = 0, source: str = "books", kind: str = "pretrain") -> list[Piece]:
    """Distinct documents in parts of twenty."""
    texts = [f"{number} {plain(document(number, 6))}" for number in range(start, start + count)]
    return [Piece(texts[s : s + 20], kind, source) for s in range(0, count, 20)]


def library_home(folder: Path, **changes: object) -> Home:
    return Home(folder, EXACT_ONLY, replace(RULES, val_share=0.2, weights=WEIGHTS, **changes))


def members(folder: Path) -> dict[str, list[str]]:
    """Names of the documents of each slice, in the order in which they are read."""
    found: dict[str, list[str]] = {}
    for kind in KINDS:
        for name, row_id in read_val(folder, kind).select("slice", "row_id").iter_rows():
            found.setdefault(name, []).append(row_id)
    return found


def arrivals(seed: int) -> list[list[Piece]]:
    """Nights of rows of any source and kind, some very long, in a listing of any order."""
    generator, number = random.Random(seed), 0
    nights = []
    for _ in range(generator.randint(1, 5)):
        pieces = []
        for _ in range(generator.randrange(5)):
            lengths = [generator.choice([2, 6, 6, 20, 90]) for _ in range(generator.randrange(15))]
            texts = [f"{number + n} {plain(document(number + n, words))}" for n, words in enumerate(lengths)]
            number += len(lengths)
            pieces.append(Piece(texts, generator.choice(KINDS), generator.choice(SOURCES)))
        nights.append(pieces)
    return nights


@repeatable
@given(st.builds(arrivals, st.integers(0, 2**32)), st.sampled_from([60, 300, 1_000, 10**6]))
def test_slices_only_grow_within_their_budget_whatever_arrives(nights: list[list[Piece]], budget: int) -> None:
    rules = replace(RULES, val_bytes_per_slice=budget, weights=WEIGHTS)
    with home(settings=EXACT_ONLY, rules=rules) as its:
        before: dict[str, Slice] = {}
        read: dict[str, list[str]] = {}
        for number, pieces in enumerate(nights):
            night(its, *pieces)
            slices, now = read_slices(its.folder), members(its.folder)
            assert now.keys() == slices.keys() >= before.keys()
            for name, slice_ in slices.items():
                old = before.get(name)
                assert now[name][: len(read.get(name, []))] == read.get(name, []), "old ones are there, in their order"
                grew = len(now[name]) > len(read.get(name, []))
                assert slice_.versions[: len(old.versions) if old else 0] == (old.versions if old else ())
                assert len(slice_.versions) == (len(old.versions) if old else 0) + grew
                assert not (old and old.full and (grew or not slice_.full)), "a full slice is frozen"
                assert slice_.newest.num_bytes <= budget or slice_.newest.documents == 1
                assert not slice_.full or slice_.newest.num_bytes * 2 > budget, "frozen only when it holds something"
                assert [version.number for version in slice_.versions] == list(range(1, len(slice_.versions) + 1))
                assert not grew or slice_.newest.generation == number
            before, read = slices, now
        check_versions(its, before, read)
        check_sources(its, read)


def check_versions(its: Home, slices: dict[str, Slice], read: dict[str, list[str]]) -> None:
    """Each version is a prefix that can be read again, with its digest and its bytes."""
    sizes = {(row.kind, row.name): len(row.text.encode()) for row in its.kept()}
    for name, slice_ in slices.items():
        kind = name.partition("/")[0]
        for version in slice_.versions:
            prefix = read[name][: version.documents]
            assert version.digest == digest_of_names(prefix)
            assert version.num_bytes == sum(sizes[kind, row_id] for row_id in prefix)
    whole = validation_version(slices)
    assert (whole.documents, whole.slices) == (sum(map(len, read.values())), len(slices))


def check_sources(its: Home, read: dict[str, list[str]]) -> None:
    """Every source with held-out rows of a domain is validated on there."""
    owner = {(row.kind, row.name): (row.kind, row.domain, row.source) for row in its.kept()}
    validated = {owner[name.partition("/")[0], row_id] for name, row_ids_ in read.items() for row_id in row_ids_}
    held = {owner[row.kind, row.name] for row in its.kept() if its.rules.is_val(row_ids([row.text]))[0]}
    assert validated == held


@settings(repeatable, max_examples=10)
@given(st.builds(arrivals, st.integers(0, 2**32)), st.randoms(use_true_random=False))
def test_the_listing_of_a_night_s_files_decides_nothing(nights: list[list[Piece]], shuffler: random.Random) -> None:
    rules = replace(RULES, val_bytes_per_slice=300, weights=WEIGHTS)
    found = []
    for shuffled in (False, True):
        with home(settings=EXACT_ONLY, rules=rules) as its:
            for pieces in nights:
                listed = list(pieces)
                if shuffled:
                    shuffler.shuffle(listed)
                night(its, *listed)
            found.append((read_slices(its.folder), members(its.folder)))
    assert found[0] == found[1]


@given(st.lists(st.integers(1, 400), max_size=30), st.integers(0, 300), st.integers(1, 500))
def test_a_slice_is_filled_in_order_and_ends_at_the_first_that_does_not_fit(
    sizes: list[int], used: int, budget: int
) -> None:
    chosen, full = taken(np.array(sizes, dtype=np.int64), used, budget)
    total = used + sum(size for size, mine in zip(sizes, chosen, strict=True) if mine)
    fitting = [mine for size, mine in zip(sizes, chosen, strict=True) if 2 * size <= budget]
    assert fitting == sorted(fitting, reverse=True), "no shorter row overtakes one that does not fit"
    assert total <= max(budget, used) or (not used and chosen.sum() == 1)
    assert full == (not all(fitting) or total >= budget)
    assert used or not sizes or chosen.any()


def test_a_long_row_does_not_end_a_slice_that_has_hardly_begun(tmp_path: Path) -> None:
    its = library_home(tmp_path, val_bytes_per_slice=2_000)
    night(its, *library(60))
    small = {name: slice_.newest.documents for name, slice_ in read_slices(tmp_path).items()}
    night(its, Piece([f"{number} {plain(document(number, 300))}" for number in range(1_000, 1_100)]))
    assert {name: read_slices(tmp_path)[name].newest.documents for name in small} == small
    night(its, *library(300, 2_000))
    grown = read_slices(tmp_path)
    assert all(grown[name].newest.documents > count for name, count in small.items())


def test_a_source_that_comes_when_a_slice_is_full_has_its_own(tmp_path: Path) -> None:
    its = library_home(tmp_path, val_bytes_per_slice=100)
    night(its, *library(300))
    full = {name: slice_ for name, slice_ in read_slices(tmp_path).items() if slice_.full}
    unused = night(its, *library(300, 1_000))["held_out_unused"]
    after = read_slices(tmp_path)
    assert full and unused and after.items() >= full.items(), "more of the same is not used"
    night(its, *library(100, 2_000, "rare"))
    own = {name: slice_ for name, slice_ in read_slices(tmp_path).items() if name.rpartition("/")[0] in full}
    assert own and not own.keys() & after.keys()
    assert all(name.endswith("/rare") and slice_.sources == ("rare",) for name, slice_ in own.items())
    assert read_slices(tmp_path).items() >= full.items()


@pytest.mark.parametrize("budget", [1, 100, 250, 10**6])
def test_slices_keep_within_their_bytes(tmp_path: Path, budget: int) -> None:
    its = library_home(tmp_path, val_bytes_per_slice=budget)
    counts = night(its, *library(300), *library(200, kind="chat"))
    total = 0
    for kind in KINDS:
        val = read_val(tmp_path, kind)
        sizes = val.with_columns(size=texts_of(val[content_column(kind)]).str.len_bytes())
        for (name,), part in sizes.group_by("slice"):
            assert part["size"].sum() <= budget or len(part) == 1
            described = read_slices(tmp_path)[str(name)].newest
            assert (described.documents, described.num_bytes) == (len(part), part["size"].sum())
        total += len(val)
    assert total == counts["pretrain_val"] + counts["chat_val"]
    val_rows = [row for row in its.kept() if its.rules.is_val(row_ids([row.text]))[0]]
    assert counts["held_out_unused"] == len(val_rows) - total
    assert (counts["held_out_unused"] == 0) == (budget == 10**6)


def test_digests_of_slices_change_with_their_documents_alone(tmp_path: Path) -> None:
    """Another order of parts, another seed of no weight, two nights for one: the same digest. Other rows: another."""

    def digests(name: str, *nights: Sequence[Piece], **changes: object) -> dict[str, str]:
        its = library_home(tmp_path / name, val_bytes_per_slice=10**6, **changes)
        for pieces in nights:
            night(its, *pieces)
        return {name: slice_.newest.digest for name, slice_ in read_slices(its.folder).items()}

    first = digests("first", library(200))
    assert digests("reversed", library(200)[::-1]) == first == digests("seed", library(200), shuffle_seed=99)
    assert digests("heavier", [replace(piece, source="web") for piece in library(200)]) == first
    assert digests("two nights", library(80), library(120, 80)) == first
    versions = [validation_version(read_slices(tmp_path / name)) for name in ("first", "two nights")]
    assert [version.number for version in versions] == [1, 2] and versions[0].digest == versions[1].digest
    more = digests("more", library(300))
    before, after = members(tmp_path / "first"), members(tmp_path / "more")
    unchanged = {name for name in before if set(before[name]) == set(after.get(name, []))}
    assert unchanged == {name for name in first if first[name] == more[name]} != set(first)


def test_slices_are_read_as_written_those_of_one_version_too(tmp_path: Path) -> None:
    its = library_home(tmp_path)
    night(its, *library(60))
    content = json.loads((tmp_path / SLICES).read_text())
    assert {name: Slice.from_dict(value) for name, value in content.items()} == read_slices(tmp_path)
    old = {"documents": 17, "version": "0123456789ab", "since_generation": 0}
    assert asdict(Slice.from_dict(old)) == {
        "versions": ({"number": 1, "digest": "0123456789ab", "documents": 17, "num_bytes": 0, "generation": 0},),
        "sources": (), "full": True,
    }  # fmt: skip
    assert read_slices(tmp_path / "nothing") == {}
    assert read_val(tmp_path, "pretrain").schema["slice"] == pl.String
