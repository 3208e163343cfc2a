"""Parts in common files: each is read as if it had files of its own, in a folder that grew or was made anew."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.rows import folding
from data.rows.folding import TABLE, Parts, bad_lines_of, fold_parts, take_parts
from data.rows.parts import KINDS, Part
from tests.data.corpus import Piece, write_part

Night = list[tuple[str, int, int]]
"""Kind of each piece, its rows and its quarantined lines."""
nights = st.lists(
    st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from([0, 1, 3, 20]), st.integers(0, 3)), max_size=4),
    min_size=1,
    max_size=7,
)


def write_night(folder: Path, pieces: Night, first: int) -> None:
    for number, (kind, count, bad) in enumerate(pieces, start=first):
        generator = random.Random(number)
        texts = [f"{number} {n} " + "word " * generator.randrange(9) for n in range(count)]
        part = write_part(Part(folder, number), Piece(texts, kind))
        lines = [f'{{"line": {n}, "raw": "of {number}"}}\n' for n in range(bad)]
        part.path("quarantine.jsonl").write_text("".join(lines))


def read(part: Part) -> list[object]:
    """All that a part says."""
    rows = [frame.to_series().to_list() for frame in part.rows()]
    records = [part.ids.tolist(), part.sketches.tolist(), part.facts.tolist(), part.sketches.shape]
    lines = bad_lines_of(part)
    assert b"".join(lines) == lines.read()
    assert lines.read(5) == lines.read()[:5]
    return [part.number, rows, records, lines.read()]


def everything(folder: Path, numbers: list[int]) -> list[list[object]]:
    parts = Parts.read(folder)
    return [read(parts.of(number)) for number in numbers]


def grown(some: list[Night], folder: Path, folds: bool) -> dict[int, str]:
    """Write night after night; returns the kind of each part."""
    kinds: dict[int, str] = {}
    folder.mkdir()
    for pieces in some:
        write_night(folder, pieces, len(kinds))
        fresh = {len(kinds) + n: kind for n, (kind, *_) in enumerate(pieces)}
        kinds |= fresh
        if folds:
            fold_parts(folder, kinds, fresh)
    return kinds


@settings(max_examples=15, deadline=None)
@given(nights, st.sampled_from([1 << 28, 5_000]))
def test_folding_every_night_changes_no_part(some: list[Night], full_bytes: int) -> None:
    with TemporaryDirectory() as name, patch.object(folding, "FULL_BYTES", full_bytes):
        kinds = grown(some, Path(name) / "folded", True)
        grown(some, Path(name) / "plain", False)
        assert everything(Path(name) / "folded", [*kinds]) == everything(Path(name) / "plain", [*kinds])


@settings(max_examples=15, deadline=None)
@given(nights, st.randoms(use_true_random=False), st.booleans())
def test_parts_are_taken_into_another_folder_without_the_others(
    some: list[Night], generator: random.Random, folds: bool
) -> None:
    with TemporaryDirectory() as name:
        old, new = Path(name) / "old", Path(name) / "new"
        kinds = grown(some, old, folds)
        taken = [number for number in kinds if generator.random() < 0.8]
        before = everything(old, taken)
        new.mkdir()
        numbers = {number: place for place, number in enumerate(taken)}
        stems = take_parts(Parts.read(old), numbers, new)
        for path in old.iterdir():
            stem, _, suffix = path.name.partition(".")
            if stem in stems:
                (new / f"{stems[stem]}.{suffix}").hardlink_to(path)
        after = everything(new, [*numbers.values()])
        assert [it[1:] for it in after] == [it[1:] for it in before]
        kept = sum(len(lines) for *_, lines in before)  # type: ignore[arg-type,misc]
        assert sum(path.stat().st_size for path in new.glob("*.quarantine.jsonl")) == kept, "nothing of the others"
        assert everything(old, taken) == before
        grown_kinds = {place: kinds[number] for number, place in numbers.items()}
        fold_parts(new, grown_kinds, [*grown_kinds][-1:])
        assert everything(new, [*numbers.values()]) == after


def test_forty_nights_leave_few_files(tmp_path: Path) -> None:
    some: list[Night] = [[("pretrain", 2, 1), ("chat", 1, 0)]] * 40
    kinds = grown(some, tmp_path / "parts", True)
    counts = Counter(path.name.partition(".")[2] for path in (tmp_path / "parts").iterdir())
    assert counts.pop("json") == 1
    assert len(counts) == 5 and max(counts.values()) <= 2 * 7
    assert len(Parts.read(tmp_path / "parts").folded) > len(kinds) - 10


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_without_fresh_parts_is_left_alone(tmp_path: Path, kind: str) -> None:
    other = KINDS[1 - KINDS.index(kind)]
    kinds = grown([[(kind, 2, 0)] * 2, [(other, 2, 0)] * 2], tmp_path / "parts", False)
    fold_parts(tmp_path / "parts", kinds, [2, 3])
    names = {path.name.partition(".")[0] for path in (tmp_path / "parts").iterdir() if path.name != TABLE}
    assert names == {"00000", "00001", "00002-00003"}
