"""Sets of shingles on disk against sets of words in memory."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.duplicates.shingles import shingle_sets
from data.rows.parts import KINDS, Part, PartRows
from tests.data.corpus import Piece, document, edited, home, plain, repeatable, respaced, window, write_part
from tests.reference.duplicates import jaccard, shingles

TEXTS = [
    *[window(1, start) for start in (0, 2, 4, 9, 60)],
    *[how(document(n)) for n in range(3) for how in (plain, respaced, edited, lambda words: plain(words[:3]))],
    "a", "a a a a a a a a", "你好 a", "one two ONE two one two one two",
]  # fmt: skip


@repeatable
@given(st.permutations(range(len(TEXTS))), st.sampled_from(KINDS), st.floats(0.05, 1.0))
def test_pairs_are_alike_as_the_reference_says(order: list[int], kind: str, threshold: float) -> None:
    texts = [TEXTS[number] for number in order]
    half = len(texts) // 2
    with home() as its:
        parts = [
            PartRows(
                write_part(Part(its.folder, n), Piece(some, kind), rows_per_chunk=3), n * half, len(some), kind, "s"
            )
            for n, some in enumerate((texts[:half], texts[half:]))
        ]
        rows = np.array(sorted(order[: len(order) * 2 // 3]))
        with shingle_sets(parts, rows, its.folder / "sets") as sets:
            for one, other in combinations(rows.tolist(), 2):
                assert len(sets.of(one)) == len(shingles(texts[one]))
                similarity = jaccard(texts[one], texts[other])
                assert (
                    sets.alike(one, other, threshold) == sets.alike(other, one, threshold) == (similarity >= threshold)
                )
        assert not (its.folder / "sets").exists()


def test_the_file_is_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), shingle_sets([], np.zeros(0, dtype=np.int64), tmp_path / "sets"):
        raise KeyError
    assert not list(tmp_path.iterdir())
