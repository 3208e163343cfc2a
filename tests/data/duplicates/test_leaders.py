"""Rows of one template stay, near duplicates of a kept row go and say truly of which; whatever the cluster's size."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.duplicates import leaders
from data.duplicates.decide import NearDuplicateRules, add_generation
from data.duplicates.leaders import LEADERS_PER_BUCKET, MOST_READ, Crowd, kept_rows
from data.duplicates.ledger import KEPT, NEAR, Ledger
from data.duplicates.near import accepted_from
from data.rows.keys import row_ids
from data.rows.parts import FACTS_DTYPE, Part, PartRows
from data.rows.sketch import BANDS, SKETCH_BYTES
from tests.data.corpus import RULES, Home, Piece, Seen, document, edited, filled, home, plain, repeatable
from tests.reference.duplicates import jaccard


def texts_of_templates(num_rows: int, num_copies: int, seed: int = 0) -> list[str]:
    """Rows of two templates, near copies of the first ones of them, and rows like no other."""
    rows = [filled(300 + row % 2, row) for row in range(num_rows)]
    texts = [plain(words) for words in rows] + [edited(words) for words in rows[:num_copies]]
    texts += [plain(document(seed * 7 + number)) for number in range(5)]
    random.Random(seed).shuffle(texts)
    return texts


def assert_proven(seen: Sequence[Seen]) -> None:
    """Whatever is dropped repeats the row that it names, which is kept and of its kind."""
    for row in (row for row in seen if row.fate == NEAR):
        kept = seen[row.kept]
        assert kept.fate == KEPT and kept.kind == row.kind
        assert jaccard(row.text, kept.text) >= 0.8


def assert_apart(kept: Sequence[Seen]) -> None:
    """Rows that are alike are no two, or of two kinds on one side."""
    for one, other in combinations(kept, 2):
        if jaccard(one.text, other.text) >= 0.8:
            assert one.kind != other.kind
            assert RULES.is_val(row_ids_of(one.cluster)) == RULES.is_val(row_ids_of(other.cluster))


def row_ids_of(cluster: str) -> np.ndarray:
    return np.array([(int(cluster[:16], 16), int(cluster[16:], 16))], dtype=row_ids([]).dtype)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_nights", [1, 3])
def test_rows_of_a_template_stay_and_their_copies_go(tmp_path: Path, seed: int, num_nights: int) -> None:
    its, texts = Home(tmp_path), texts_of_templates(120, 30, seed)
    assert 0.55 < jaccard(plain(filled(300, 0)), plain(filled(300, 2))) < 0.65
    for night in range(num_nights):
        mine = texts[night::num_nights]
        its.add(Piece(mine[::2]), Piece(mine[1::2]), Piece(mine[:20], "chat"))
    seen = its.seen()
    for kind, texts_of_kind in (
        ("pretrain", texts),
        ("chat", [t for n in range(num_nights) for t in texts[n::num_nights][:20]]),
    ):
        rows = [row for row in seen if row.kind == kind and row.fate == KEPT]
        pairs = sum(jaccard(one, other) >= 0.8 for one, other in combinations(texts_of_kind, 2))
        left_out = sum(row.kind == kind and row.fate > NEAR for row in seen)
        assert len(rows) == len(texts_of_kind) - pairs - left_out, "of each two that are alike one stays"
        assert kind == "chat" or (pairs == 30 and not left_out)
    assert_proven(seen)
    assert_apart([row for row in seen if row.fate == KEPT])
    assert max(map(len, clusters(seen).values())) > 20, "a template is a cluster"
    assert not list(tmp_path.glob("*.shingles"))


def clusters(seen: Sequence[Seen]) -> dict[str, list[Seen]]:
    return {name: [row for row in seen if row.cluster == name] for name in {row.cluster for row in seen}}


@pytest.mark.parametrize("num_nights", [1, 2])
def test_many_copies_of_one_text_leave_one(tmp_path: Path, num_nights: int) -> None:
    """More than a bucket holds; each differs from the others in a word of its own."""
    words = document(3, 200)
    copies = [plain([*words[:place], f"own{place}", *words[place + 1 :]]) for place in range(5, 195, 3)]
    assert len(copies) > 3 * LEADERS_PER_BUCKET
    its = Home(tmp_path)
    for night in range(num_nights):
        its.add(Piece(copies[night::num_nights]))
    seen = its.seen()
    assert sum(row.fate == KEPT for row in seen) == 1
    assert_proven(seen)


@repeatable
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2))
def test_at_the_bounds_nothing_unproven_is_dropped(seed: int, per_bucket: int, most_read: int, num_nights: int) -> None:
    texts = texts_of_templates(24, 12, seed)
    with (
        patch.object(leaders, "LEADERS_PER_BUCKET", per_bucket),
        patch.object(leaders, "MOST_READ", most_read),
        home() as its,
    ):
        for night in range(num_nights):
            its.add(Piece(texts[night::num_nights]))
        seen = its.seen()
    assert_proven(seen)
    assert sum(row.fate == KEPT for row in seen) >= 24 + 5


def test_work_on_a_row_is_bounded() -> None:
    """However many rows of a template there are, and none of them dropped."""
    rng, count = np.random.default_rng(1), 600
    sketches = np.repeat(rng.integers(0, 256, (1, SKETCH_BYTES), dtype=np.uint8), count, axis=0)
    for sketch in sketches:
        sketch[rng.choice(SKETCH_BYTES, 14, replace=False)] = rng.integers(0, 256, 14)
    crowd = Crowd(
        rows=np.arange(count), sketches=sketches, groups=np.zeros(count, dtype=np.int64),
        near=np.zeros((0, 2), dtype=np.int64), same_kind=np.zeros(0, dtype=bool), rivals=np.zeros(0, dtype=bool),
    )  # fmt: skip
    asked: list[int] = []
    read: list[int] = []
    alike = leaders.most_alike

    class NoneAlike:
        def alike(self, one: int, other: int, threshold: float) -> bool:
            read.append(one)
            return False

    def counted(sketches: np.ndarray, place: int, others: np.ndarray, least: float) -> np.ndarray:
        asked.append(len(others))
        return alike(sketches, place, others, least)

    with patch.object(leaders, "most_alike", counted), patch.object(leaders, "shingle_sets") as sets:
        sets.return_value.__enter__.return_value = NoneAlike()
        kept, torn = kept_rows(crowd, [], Path("unused"), 0.8, drop=True)
    assert kept.tolist() == list(range(count)) and not torn.any()
    assert LEADERS_PER_BUCKET < max(asked) <= BANDS * LEADERS_PER_BUCKET
    assert max(np.bincount(read)) == MOST_READ


def test_equal_sketches_need_no_text(tmp_path: Path) -> None:
    """The parts hold none."""
    rng, count = np.random.default_rng(5), 40
    part = Part(tmp_path, 0)
    sketches = np.repeat(rng.integers(0, 256, (count // 4, SKETCH_BYTES), dtype=np.uint8), 4, axis=0)
    ids = np.frombuffer(rng.bytes(16 * count), dtype=row_ids([]).dtype)
    for array, suffix in ((ids, "ids"), (sketches, "sketches"), (np.zeros(count, dtype=FACTS_DTYPE), "facts")):
        array.tofile(part.path(suffix))
    ledger, how = Ledger((), ()), NearDuplicateRules(threshold=0.8, drop=True)
    for rows in (PartRows(part, 0, count, "pretrain", "s"), PartRows(part, count, count, "chat", "s")):
        ledger = add_generation(ledger, [rows], tmp_path, how, RULES.is_val)
        fates, volume = ledger.fates_of(rows), ledger.volumes[-1]
        assert np.bincount(fates, minlength=3).tolist() == [count // 4, 0, count * 3 // 4]
        kept = volume.kept - rows.base
        assert (fates[kept] == KEPT).all() and (kept // 4 == np.arange(count) // 4).all()


def test_an_estimate_alone_drops_nothing(tmp_path: Path) -> None:
    """Some rows of the template look as alike as duplicates do."""
    its = Home(tmp_path)
    its.add(Piece([plain(filled(300, row)) for row in range(200)]))
    sketches = its.ledger.parts[0].part.sketches
    alike = [(sketches[n] == sketches[n + 1 :]).mean(axis=1) for n in range(199)]
    assert sum((estimates > accepted_from(0.8)).sum() for estimates in alike) > 200
    assert all(row.fate == KEPT for row in its.seen())
