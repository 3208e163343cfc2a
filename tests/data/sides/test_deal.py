"""Sides and order against a splitter in memory; later nights, other parts and other buckets change neither."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from data import workers
from data.duplicates.decide import NearDuplicateRules
from data.duplicates.ledger import KEPT
from data.rows.keys import row_ids
from data.rows.parts import KINDS, content_column, texts_of
from data.sides import deal as sides
from data.sides.deal import add_sides, num_buckets
from data.sides.read import read_train, read_val, train_buckets
from data.sides.rules import SideRules
from data.sides.slices import read_slices
from schemas.domain import DOMAINS
from tests.data.corpus import RULES, Home, Piece, Seen, document, edited, home, plain, repeatable, respaced
from tests.reference.duplicates import GrownSlice, KeptRow, Splitter

EXACT_ONLY, NEAR = NearDuplicateRules(threshold=None, drop=True), NearDuplicateRules(threshold=0.8, drop=False)
SOURCES = ("books", "web", "rare")
WEIGHTS = {"books": 1.0, "web": 2.5, "rare": 0.5}
SMALL = replace(RULES, val_bytes_per_slice=100, weights=WEIGHTS)


def nights_of(seed: int) -> list[list[Piece]]:
    generator = random.Random(seed)

    def piece() -> Piece:
        documents = [
            document(generator.randrange(40), generator.randint(1, 20)) for _ in range(generator.randrange(25))
        ]
        texts = [generator.choice([plain, respaced, edited])(words) for words in documents]
        return Piece(texts, generator.choice(KINDS), generator.choice(SOURCES))

    return [[piece() for _ in range(generator.randrange(7))] for _ in range(generator.randint(1, 3))]


def night(its: Home, *pieces: Piece, workers: int = 1) -> dict[str, int]:
    """One more night with its sides, which lie beside the ledger."""
    fresh = its.add(*pieces)
    return add_sides(its.ledger, its.ledger.generations[-1].number, fresh, its.rules, its.folder, workers)


def train(its: Home) -> dict[str, list[str]]:
    """Texts of the train side in order, by kind."""
    return {kind: texts_of(read_train(its.folder, kind)[content_column(kind)]).to_list() for kind in KINDS}


def held(its: Home) -> set[tuple[str, str]]:
    return {(kind, name) for kind in KINDS for name in read_val(its.folder, kind)["row_id"]}


def reference(rules: SideRules) -> Splitter:
    return Splitter(rules.val_share, rules.salt, rules.shuffle_seed, rules.val_bytes_per_slice, rules.weights)


def as_kept(rows: Sequence[Seen]) -> list[KeptRow]:
    return [KeptRow(r.row, r.name, r.cluster, r.source, r.domain, len(r.text.encode())) for r in rows]


@repeatable
@given(st.builds(nights_of, st.integers(0, 2**32)), st.sampled_from([EXACT_ONLY, NEAR]))
def test_sides_and_order_are_those_of_a_splitter_in_memory(nights: list[list[Piece]], how: NearDuplicateRules) -> None:
    with home(settings=how, rules=SMALL) as its:
        splitter, slices = reference(its.rules), {kind: dict[str, GrownSlice]() for kind in KINDS}
        expected_train = {kind: list[int]() for kind in KINDS}
        expected_val = {kind: set[int]() for kind in KINDS}
        for pieces in nights:
            counts = night(its, *pieces)
            unused = 0
            for kind in KINDS:
                latest = its.ledger.generations[-1].number
                mine = as_kept([row for row in its.kept() if row.kind == kind and row.generation == latest])
                order, slices[kind] = splitter.train(mine), splitter.slices(mine, slices[kind])
                chosen = {row.number for its in slices[kind].values() for row in its.rows} - expected_val[kind]
                unused += sum(splitter.is_val(row.cluster) for row in mine) - len(chosen)
                assert (counts[f"{kind}_train"], counts[f"{kind}_val"]) == (len(order), len(chosen))
                expected_train[kind] += order
                expected_val[kind] |= chosen
            assert counts["held_out_unused"] == unused
        expected = {f"{kind}/{name}": slice_ for kind in KINDS for name, slice_ in slices[kind].items()}
        assert read_slices(its.folder).keys() == expected.keys()
        for name, slice_ in read_slices(its.folder).items():
            found = slice_.newest.documents, slice_.newest.num_bytes, slice_.full
            assert found == (len(expected[name].rows), expected[name].num_bytes, expected[name].full)
            assert set(slice_.sources) == {row.source for row in expected[name].rows}
        for kind in KINDS:
            assert read_train(its.folder, kind)["row"].to_list() == expected_train[kind]
            val = read_val(its.folder, kind)["row"].to_list()
            assert set(val) == expected_val[kind] and len(val) == len(set(val))
        check_rows(its)


def check_rows(its: Home) -> None:
    """Every row on a side is a kept one, whole, and no cluster is on both."""
    seen = {row.row: row for row in its.seen()}
    clusters: dict[str, set[str]] = {"train": set(), "val": set()}
    for kind in KINDS:
        for side, frame in (("train", read_train(its.folder, kind)), ("val", read_val(its.folder, kind))):
            for row, source, domain, text in zip(
                frame["row"], frame["source"], frame["domain"], texts_of(frame[content_column(kind)]), strict=True
            ):
                original, domain = seen[row], domain if side == "val" else DOMAINS[domain]
                said = original.kind, original.source, original.text, original.domain
                assert (kind, source, text, domain) == said
                assert original.fate == KEPT
                clusters[side].add(original.cluster)
    assert not clusters["train"] & clusters["val"]
    names = {kind: read_val(its.folder, kind) for kind in KINDS}
    assert all([seen[r].name for r in frame["row"]] == frame["row_id"].to_list() for frame in names.values())


def library(count: int, start: int = 0, source: str = "books", kind: str = "pretrain") -> list[Piece]:
    """Distinct documents in parts of twenty."""
    texts = [f"{number} {plain(document(number, 6))}" for number in range(start, start + count)]
    return [Piece(texts[s : s + 20], kind, source) for s in range(0, count, 20)]


def library_home(folder: Path, **changes: object) -> Home:
    return Home(folder, EXACT_ONLY, replace(RULES, val_share=0.2, weights=WEIGHTS, **changes))


def test_no_row_changes_sides_when_ten_times_as_many_come(tmp_path: Path) -> None:
    its = library_home(tmp_path)
    night(its, *library(60), *library(40, kind="chat"))
    files, order, val = its.files(0), train(its), held(its)
    slices = read_slices(tmp_path)
    counts = night(its, *library(700, 30), *library(400, 20, kind="chat", source="web"))
    assert counts["pretrain_train"] + counts["chat_train"] > 8 * sum(map(len, order.values()))
    assert its.files(0) == files and any(".train." in name for name in files) and any(".val." in name for name in files)
    assert all(train(its)[kind][: len(order[kind])] == order[kind] for kind in KINDS)
    assert val < held(its)
    after = read_slices(tmp_path)
    assert all(after[name].versions[: len(its.versions)] == its.versions for name, its in slices.items())
    old = {(row.kind, row.name) for row in its.kept() if row.generation == 0}
    assert not old & (held(its) - val)
    seen = its.seen()
    trained = {(kind, seen[row].name) for kind in KINDS for row in read_train(tmp_path, kind)["row"]}
    assert old - held(its) >= trained & old and not trained & held(its)


def test_a_night_without_rows_changes_nothing(tmp_path: Path) -> None:
    its = library_home(tmp_path)
    night(its, *library(60))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("pretrain.*")} | {"slices": read_slices(tmp_path)}
    for pieces in ([], library(60), [Piece([])]):
        assert set(night(its, *pieces).values()) == {0}
    after = {path.name: path.read_bytes() for path in tmp_path.glob("pretrain.*")} | {"slices": read_slices(tmp_path)}
    assert before == after


@pytest.mark.parametrize("dealers", [1, 2, 3, 7])
@pytest.mark.parametrize("bucket_bytes", [300, 2_000, 10**9])
def test_dealers_and_buckets_change_no_order(tmp_path: Path, dealers: int, bucket_bytes: int) -> None:
    pieces = [*library(200), *library(100, 200, "web"), *library(60, kind="chat")]
    plain_home = library_home(tmp_path / "plain")
    night(plain_home, *pieces)
    with patch.object(sides, "DEALERS", dealers), patch.object(sides, "BUCKET_BYTES", bucket_bytes):
        its = library_home(tmp_path / "patched")
        counts = night(its, *pieces)
        size = sum(len(text.encode()) for piece in pieces if piece.kind == "pretrain" for text in piece.texts)
        assert 2 * size / bucket_bytes + 1 >= num_buckets(size) >= size / bucket_bytes
        buckets = train_buckets(its.folder, "pretrain")
        assert len(buckets) == num_buckets(size)
    assert train(its) == train(plain_home) and held(its) == held(plain_home)
    assert max(len(bucket.files) for bucket in buckets) <= dealers
    assert sum(len(bucket.read()) for bucket in buckets) == counts["pretrain_train"]
    for kind in KINDS:
        assert read_train(its.folder, kind)["order"].is_sorted()


def test_processes_give_the_same_files(tmp_path: Path) -> None:
    one, other = library_home(tmp_path / "one"), library_home(tmp_path / "other")
    pieces = [*library(60), *library(40, kind="chat", source="web")]
    counts = night(one, *pieces)
    with patch.object(workers, "POOL_PAYS_BYTES", 0):
        assert night(other, *pieces, workers=2) == counts
    assert one.files(0) == other.files(0)
    assert read_slices(one.folder) == read_slices(other.folder)


@settings(repeatable, max_examples=5)
@given(st.randoms(use_true_random=False), st.integers(2, 30))
def test_the_order_hangs_on_seed_and_content_alone(generator: np.random.Generator, rows_per_part: int) -> None:
    texts = [text for piece in library(60) for text in piece.texts]
    again = list(texts)
    generator.shuffle(again)
    cut = [Piece(again[s : s + rows_per_part]) for s in range(0, len(again), rows_per_part)]
    found = []
    for pieces, seed in ((library(60), 1), (cut, 1), (cut, 2)):
        with home(settings=EXACT_ONLY, rules=replace(RULES, shuffle_seed=seed)) as its:
            night(its, *pieces)
            found.append((train(its)["pretrain"], held(its)))
    (order, val), (same_order, same_val), (other_order, _) = found
    assert order == same_order and val == same_val
    assert sorted(order) == sorted(other_order) and order != other_order
    assert len(set(order)) == len(order) == 60 - sum(RULES.is_val(row_ids(texts)))


def test_every_row_may_stand_anywhere() -> None:
    """Chi-square of old and new tenths, and of pairs of neighbours that stay in order."""
    ids = row_ids([f"document {number}" for number in range(20_000)])
    place = np.empty(len(ids), dtype=np.int64)
    place[np.argsort(RULES.order(ids))] = np.arange(len(ids))
    cells = np.arange(len(ids)) * 10 // len(ids) * 10 + place * 10 // len(ids)
    assert chisquare(np.bincount(cells, minlength=100), ddof=18).pvalue > 1e-4  # rows and columns are tenths
    assert abs((place[1:] > place[:-1]).mean() - 0.5) < 4 * 0.29 / np.sqrt(len(ids))
    other = replace(RULES, shuffle_seed=8).order(ids)
    assert abs(np.corrcoef(place, np.argsort(np.argsort(other)))[0, 1]) < 4 / np.sqrt(len(ids))


@pytest.mark.parametrize("share", [0.01, 0.2, 0.9])
def test_shares_are_kept_and_have_nothing_to_do_with_places(share: float) -> None:
    ids = row_ids([f"document {number}" for number in range(20_000)])
    rules = replace(RULES, val_share=share)
    val = rules.is_val(ids)
    assert abs(val.mean() - share) < 4 * np.sqrt(share * (1 - share) / len(ids))
    early = rules.order(ids) < np.uint64(2**63)
    assert abs(val[early].mean() - share) < 4 * np.sqrt(share * (1 - share) / early.sum())
    assert (rules.is_val(ids) <= replace(RULES, val_share=min(0.99, share + 0.05)).is_val(ids)).all()


@pytest.mark.parametrize(
    ("weight", "lowest", "highest"), [(2.0, 2, 2), (0.5, 0, 1), (1.5, 1, 2), (3.0, 3, 3), (0.25, 0, 1)]
)
def test_weights_say_how_often_train_rows_are_seen(tmp_path: Path, weight: float, lowest: int, highest: int) -> None:
    light, heavy = library_home(tmp_path / "light"), library_home(tmp_path / "heavy")
    heavy.rules = replace(heavy.rules, weights={**WEIGHTS, "rare": weight})
    light.rules = replace(light.rules, weights={**WEIGHTS, "rare": 1.0})
    pieces = [*library(400, source="rare"), *library(60, 1_000)]
    for its in (light, heavy):
        night(its, *pieces)
    assert held(heavy) == held(light) != set()
    once, often = Counter(train(light)["pretrain"]), Counter(train(heavy)["pretrain"])
    rare = {text for piece in pieces if piece.source == "rare" for text in piece.texts} & set(once)
    assert set(once.values()) == {1} and set(often) <= set(once)
    assert {often[text] for text in once if text not in rare} == {1}
    assert {often[text] for text in rare} == {lowest, highest}
    assert abs(sum(often[text] for text in rare) / len(rare) - weight) < 4 * 0.5 / np.sqrt(len(rare))


def test_copies_stand_anywhere_and_not_beside_each_other(tmp_path: Path) -> None:
    its = library_home(tmp_path)
    its.rules = replace(its.rules, weights={"books": 2.0})
    night(its, *library(500))
    order = train(its)["pretrain"]
    places: dict[str, list[int]] = {}
    for place, text in enumerate(order):
        places.setdefault(text, []).append(place)
    distances = np.array([other - one for one, other in places.values()])
    assert (distances == 1).sum() <= 6  # one or so by chance
    assert abs(distances.mean() / len(order) - 1 / 3) < 4 * 0.236 / np.sqrt(len(distances))
