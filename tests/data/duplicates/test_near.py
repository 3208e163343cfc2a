"""Banding against all pairs; long runs; and that it does not matter in which order rows come."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from data.duplicates import near
from data.duplicates.near import ALL_PAIRS_UP_TO, NearIndex, accepted_from, build_near, candidates, fold_near, joined
from data.rows.sketch import BANDS, SKETCH_BYTES, band_keys, similarity
from tests.data.corpus import repeatable
from tests.reference.duplicates import components

THRESHOLD = 0.8
seeds = st.integers(0, 10**6)
Pair = tuple[int, int]


def families(seed: int, count: int, num_families: int = 4, most_changed: int = 40) -> np.ndarray:
    """Sketches that are each one of a few, with up to so many bytes changed."""
    generator = np.random.default_rng(seed)
    ancestors = generator.integers(0, 256, (num_families, SKETCH_BYTES), dtype=np.uint8)
    sketches = ancestors[generator.integers(0, num_families, count)]
    for sketch in sketches:
        changed = generator.choice(SKETCH_BYTES, generator.integers(0, most_changed + 1), replace=False)
        sketch[changed] = generator.integers(0, 256, len(changed))
    return sketches


def built(sketches: np.ndarray, first_row: int = 0) -> tuple[np.ndarray, NearIndex]:
    """Clusters and the index, held in memory."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "g"
        sketches.tofile(f"{prefix}.near.sketches")
        np.arange(first_row, first_row + len(sketches), dtype=np.uint32).tofile(f"{prefix}.near.rows")
        labels = build_near(prefix, THRESHOLD)
        index = NearIndex.open(prefix)
        return labels, NearIndex(*(np.array(column) for column in (index.rows, index.sketches, index.bands)))


def share_a_band(one: np.ndarray, other: np.ndarray) -> bool:
    return any((one[s : s + 4] == other[s : s + 4]).all() for s in range(0, SKETCH_BYTES, 4))


def are_near(one: np.ndarray, other: np.ndarray) -> bool:
    return share_a_band(one, other) and bool(similarity(one[None], other[None])[0] >= accepted_from(THRESHOLD))


def partition(labels: np.ndarray, rows: np.ndarray) -> set[frozenset[int]]:
    """The clusters as sets of rows."""
    return {frozenset(rows[labels == label].tolist()) for label in np.unique(labels)}


@repeatable
@given(seeds, st.integers(0, ALL_PAIRS_UP_TO), st.sampled_from([1, 3, 200_000]))
def test_clusters_are_the_components_of_all_pairs(seed: int, count: int, pairs_at_once: int) -> None:
    """As long as no run is longer than what is compared with each other."""
    sketches = families(seed, count)
    with patch.object(near, "PAIRS_AT_ONCE", pairs_at_once):
        labels, _ = built(sketches)
    assert labels.tolist() == components(count, lambda one, other: are_near(sketches[one], sketches[other]))


@repeatable
@given(seeds, st.integers(0, ALL_PAIRS_UP_TO), st.integers(0, 20))
def test_matches_are_all_near_pairs(seed: int, count: int, num_asked: int) -> None:
    sketches = families(seed, count + num_asked)
    old, asked = sketches[:count], sketches[count:]
    _, index = built(old, first_row=1_000)
    found = [
        pair for pairs in index.matches(asked, THRESHOLD) for pair in zip(*(p.tolist() for p in pairs), strict=True)
    ]
    expected = [
        (a, 1_000 + b)
        for a in range(num_asked)
        for b in range(count)
        for start in range(0, SKETCH_BYTES, 4)
        if (asked[a, start : start + 4] == old[b, start : start + 4]).all() and are_near(asked[a], old[b])
    ]
    assert sorted(found) == sorted(expected)  # a pair comes once for every band it shares


@repeatable
@given(seeds, st.sampled_from([0, 5, 60, 200]))
def test_an_index_holds_every_row_in_every_band_in_order_of_keys(seed: int, count: int) -> None:
    sketches = families(seed, count)
    _, index = built(sketches)
    assert index.bands.shape == (BANDS, count)
    for band in range(BANDS):
        keys, places = index.bands[band] >> np.uint64(32), (index.bands[band] & np.uint64(0xFFFFFFFF)).astype(np.int64)
        assert sorted(places.tolist()) == list(range(count))
        assert (keys[1:] >= keys[:-1]).all()
        assert (keys == band_keys(sketches, band)[places]).all()


@repeatable
@given(st.lists(st.integers(1, 50), max_size=4), seeds, st.sampled_from([1, 7, 200_000]))
def test_candidates_are_neighbours_and_the_head_of_their_run(runs: list[int], seed: int, pairs_at_once: int) -> None:
    places = np.random.default_rng(seed).permutation(sum(runs)).astype(np.uint64)
    some = np.repeat(np.array([0, 7, 2**31, 2**32 - 1], dtype=np.uint64)[: len(runs)], runs)
    keys = some << np.uint64(32) | places
    key, place = (keys >> np.uint64(32)).tolist(), (keys & np.uint64(0xFFFFFFFF)).tolist()
    expected = {
        (place[one], place[other])
        for one in range(len(keys))
        for other in range(one + 1, len(keys))
        if key[one] == key[other] and (other - one < ALL_PAIRS_UP_TO or one == key.index(key[one]))
    }
    with patch.object(near, "PAIRS_AT_ONCE", pairs_at_once):
        batches = list(candidates(keys))
    found = [pair for batch in batches for pair in zip(*(part.tolist() for part in batch), strict=True)]
    assert set(found) == expected and len(found) == len(expected)
    assert all(len(one) <= pairs_at_once for one, _ in batches)
    assert len(found) <= ALL_PAIRS_UP_TO * len(keys)


@repeatable
@given(st.integers(1, 30), seeds, st.integers(0, 30))
def test_joining_is_union_find(count: int, seed: int, num_pairs: int) -> None:
    generator = np.random.default_rng(seed)
    one, other = generator.integers(0, count, (2, num_pairs))
    edges = set(zip(one.tolist(), other.tolist(), strict=True))
    labels = np.arange(count)
    for half in (slice(None, num_pairs // 2), slice(num_pairs // 2, None)):
        labels = joined(labels, one[half], other[half])
    assert labels.tolist() == components(count, lambda a, b: (a, b) in edges or (b, a) in edges)


NUM_CHANGED = 17


def crowd(seed: int, count: int) -> np.ndarray:
    """Sketches that share most bands with many others, about half of which are near: templates, filled in."""
    generator = np.random.default_rng(seed)
    sketches = np.repeat(generator.integers(0, 256, (1, SKETCH_BYTES), dtype=np.uint8), count, axis=0)
    for sketch in sketches:
        changed = generator.choice(SKETCH_BYTES, NUM_CHANGED, replace=False)
        sketch[changed] = generator.integers(0, 256, len(changed))
    return sketches


@pytest.mark.parametrize("seed", range(4))
def test_clusters_do_not_depend_on_the_order_of_rows(seed: int) -> None:
    """Not even where runs are so long that only some pairs are looked at."""
    sketches, asked = np.split(crowd(seed, 800), 2)
    found = []
    for order in (np.arange(len(sketches)), np.random.default_rng(seed).permutation(len(sketches))):
        labels, index = built(sketches[order])
        matched = index.matches(asked, THRESHOLD)
        pairs = {(a, order[b]) for places, rows in matched for a, b in zip(places, rows, strict=True)}
        found.append((partition(labels, order), pairs))
        assert longest_run(index) > 3 * ALL_PAIRS_UP_TO
    assert found[0] == found[1]
    assert 1 < len(found[0][0]) < len(sketches)
    assert found[0][1]


def found(index: NearIndex, asked: np.ndarray, rows: range | None = None) -> set[Pair]:
    matches = index.matches(asked, THRESHOLD, rows)
    return {pair for places, near in matches for pair in zip(places.tolist(), near.tolist(), strict=True)}


@settings(max_examples=6, deadline=None)
@given(seeds, st.lists(st.sampled_from([0, 1, 12, 40]), min_size=1, max_size=6), st.integers(0, 10))
def test_a_folded_index_finds_what_its_generations_find(seed: int, sizes: list[int], cut: int) -> None:
    """Also where runs are so long that of each generation only some rows are found; and of some generations alone."""
    sketches = crowd(seed, sum(sizes) + 20)
    sketches[::7] |= np.uint8(0xF0)
    sketches[::11, :4] = 0xFF
    bounds = np.cumsum([0, *sizes]).tolist()
    asked, rows = sketches[bounds[-1] :], [range(*pair) for pair in pairwise(bounds)]
    with tempfile.TemporaryDirectory() as folder:
        prefixes = [(Path(folder) / f"g{n}", 1) for n in range(len(sizes))]
        for (prefix, _), its in zip(prefixes, rows, strict=True):
            sketches[its.start : its.stop].tofile(f"{prefix}.near.sketches")
            np.array(its, dtype=np.uint32).tofile(f"{prefix}.near.rows")
            build_near(prefix, THRESHOLD)
        cut = min(cut, len(sizes))
        steps = [(Path(folder) / "first", cut)] if cut else []
        if cut:
            fold_near(prefixes[:cut], steps[0][0])
        fold_near([*steps, *prefixes[cut:]], Path(folder) / "all")
        folded = NearIndex.open(Path(folder) / "all", len(sizes))
        each = [found(NearIndex.open(prefix), asked) for prefix, _ in prefixes]
        assert found(folded, asked) == set().union(*each)
        assert [found(folded, asked, its) for its in rows] == each
        assert folded.rows.tolist() == list(range(bounds[-1])) and (folded.sketches == sketches[: bounds[-1]]).all()


def longest_run(index: NearIndex) -> int:
    return max(int(np.unique(band >> np.uint64(32), return_counts=True)[1].max()) for band in index.bands)


def test_many_copies_are_one_cluster() -> None:
    """A run of hundreds is joined through neighbours, without all pairs."""
    sketches = np.concatenate([families(1, 500, num_families=1, most_changed=4), families(2, 3, most_changed=0)])
    labels, _ = built(sketches)
    assert (labels[:500] == 0).all() and (labels[500:] >= 500).all()


def test_how_many_true_near_duplicates_are_missed() -> None:
    """Once in 400 at 0.8, if each of eighty bytes agrees by itself, at least by chance."""
    agreeing = np.arange(SKETCH_BYTES + 1)
    too_low = (agreeing / SKETCH_BYTES - 1 / 256) / (1 - 1 / 256) < accepted_from(0.8)
    missed = binom.pmf(agreeing, SKETCH_BYTES, 0.8 + 0.2 / 256)[too_low].sum()
    assert 1 / 450 < missed < 1 / 350
