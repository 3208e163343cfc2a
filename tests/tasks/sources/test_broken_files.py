"""Every line of every broken file is accounted for: by the pieces, by the reader and by the schemas."""

from __future__ import annotations

import os
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.adapters import check_rows
from schemas.files.reader import read_chunks
from schemas.jsonl import BLANK, parse_chunk
from tasks.errors import NightStopped
from tasks.recipes.stage_configs import SourceConfig
from tasks.sources.resolve import Deferred, Resolved, resolve
from tests.broken_files import BROKEN_FILES, BrokenFile, rows, write

MAX_LINE_BYTES = 1 << 20
PEAK_BYTES = 60 << 20


def params(files: list[BrokenFile]) -> list[object]:
    is_root = os.geteuid() == 0
    skip = pytest.mark.skip(reason="root may read it")
    return [pytest.param(f, id=f.name, marks=[skip] if is_root and not f.for_root else []) for f in files]


def resolved(location: Path, kind: str, home: Path) -> Resolved:
    return resolve([SourceConfig(name="s", kind=kind, location=str(location))], home)


def fates(found: Resolved) -> tuple[int, Counter[str], Counter[str]]:
    """Rows that parse and pass the schema, and faults of reader and schema by rule; each line is one of them, once."""
    kept, of_lines, of_rows = 0, Counter[str](), Counter[str]()
    for located in found.pieces:
        line = located.piece.first_line
        for chunk in read_chunks(
            located.path, MAX_LINE_BYTES, located.piece.start, located.piece.end, located.piece.first_line
        ):
            assert chunk.first_line == line
            line += len(chunk.lines)
            parsed, bad = parse_chunk(chunk)
            assert len(parsed) == len(chunk.lines) == len(chunk.offsets)
            assert [row is None for row in parsed] == [index in bad for index in range(len(parsed))]
            checked = check_rows([row for row in parsed if row is not None], located.source.kind, located.source.format)
            kept += len(checked.good)
            of_lines.update(fault.rule for fault in bad.values())
            of_rows.update(fault.rule for fault in checked.faults.values())
            assert all(0 < len(fault.detail) <= 300 for fault in bad.values())
    return kept, of_lines, of_rows


@pytest.mark.parametrize("broken", params(BROKEN_FILES))
def test_every_line_ends_as_it_should(broken: BrokenFile, tmp_path: Path) -> None:
    """Beside a good file, so that a file of which nothing is left does not end the night."""
    data = tmp_path / "data"
    data.mkdir()
    write(rows(1, 10), "good.jsonl", data)
    path = broken.make(data)
    found = resolved(data / "*", broken.kind, tmp_path / "home")
    assert [d.label for d in found.deferred] == [f"s/{path.name}"] * broken.deferred
    assert [d.label for d in found.unreadable] == [f"s/{path.name}"] * broken.unreadable
    assert all(reason for _, reason in found.set_aside)
    pieces = tuple(located for located in found.pieces if located.piece.label != "s/good.jsonl")
    kept, of_lines, of_rows = fates(Resolved(pieces))
    assert of_lines.pop(BLANK, 0) == broken.blank
    assert of_lines == broken.line_faults
    assert of_lines + of_rows == broken.faults
    assert (kept, kept + of_lines.total() + of_rows.total()) == (broken.kept, broken.lines - broken.blank)


FRAGMENTS = [
    b"[", b"]", b"{", b"}", b", ", b"\n", b'"text": ', b'"data": ', b'"mine": ', b'"a"', b"1", b"null", b"// x\n", b'"',
    b'{"text": "a"}', b'[{"text": "b"}, {"text": "c"}]', b'{"n": 1, "text": "d"}', b'{"data": [{"text": "e"}]}', b"\\",
    b'{"role": "user", "content": "f"}', b'[[{"role": "user", "content": "g"}]]', b"[[", b"{}", b"[]", b'{"mine": [',
]  # fmt: skip


@settings(max_examples=150)
@given(st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=14).map(b"".join))
def test_whatever_json_a_file_seems_to_be_its_pieces_have_the_lines_that_they_say(
    tmp_path_factory: pytest.TempPathFactory, body: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    path = write(body, "any.json", folder)
    try:
        found = resolved(path, "pretrain", folder / "home")
    except NightStopped as stop:
        assert "is not finished" in str(stop) or "is not closed" in str(stop)
        return
    kept, of_lines, of_rows = fates(found)
    assert kept + of_lines.total() + of_rows.total() == sum(located.piece.num_lines for located in found.pieces)


@pytest.mark.parametrize("broken", params([file for file in BROKEN_FILES if file.deferred or file.unreadable]))
def test_a_source_of_which_nothing_is_left_stops_the_night(broken: BrokenFile, tmp_path: Path) -> None:
    path = broken.make(tmp_path)
    if broken.lines:
        assert resolved(path, broken.kind, tmp_path / "home").pieces
        return
    with pytest.raises(NightStopped) as stop:
        resolved(path, broken.kind, tmp_path / "home")
    for part in ("source s:", str(path), f"s/{path.name}: "):
        assert part in str(stop.value)


def test_the_first_reasons_are_told(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.jsonl").mkdir()
    write(rows(1, 2), "good.txt", tmp_path)
    (tmp_path / "folder.txt").mkdir()
    both = [
        SourceConfig(name=name, kind="pretrain", location=str(tmp_path / pattern))
        for name, pattern in (("t", "*.txt"), ("s", "*.jsonl"))
    ]
    with pytest.raises(NightStopped) as stop:
        resolve(both, tmp_path / "home")
    told = str(stop.value)
    assert "folder.txt" not in told, "the other source has a file left"
    assert told.startswith(f"source s: nothing of {tmp_path / '*.jsonl'} is left for tonight")
    assert [f"s/{number}.jsonl: a folder, not a file" in told for number in range(8)] == [True] * 5 + [False] * 3
    assert told.endswith("and 3 more")


def test_a_file_that_vanishes_after_it_was_listed_is_told(tmp_path: Path) -> None:
    write(rows(1, 2), "a.jsonl", tmp_path)
    write(rows(1, 2), "b.jsonl", tmp_path)
    now = (tmp_path / "a.jsonl").stat().st_mtime
    source = SourceConfig(name="s", kind="pretrain", location=str(tmp_path / "*.jsonl"))
    found = resolve([source], tmp_path, (), 9.0, lambda: now, lambda _: (tmp_path / "a.jsonl").unlink())
    assert [located.piece.label for located in found.pieces] == ["s/b.jsonl"]
    assert found.unreadable == (Deferred("s/a.jsonl", "No such file or directory"),)


@pytest.mark.parametrize("name", ["huge-line", "zst-bomb"])
def test_memory_is_bounded_whatever_the_file(name: str, tmp_path: Path) -> None:
    [broken] = [file for file in BROKEN_FILES if file.name == name]
    path = broken.make(tmp_path)
    tracemalloc.start()
    try:
        found = resolved(path, broken.kind, tmp_path / "home")
        for located in found.pieces:
            for chunk in read_chunks(located.path, MAX_LINE_BYTES, located.piece.start, located.piece.end):
                parse_chunk(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < PEAK_BYTES


def test_the_list_is_long_and_names_differ() -> None:
    names = [broken.name for broken in BROKEN_FILES]
    assert len(set(names)) == len(names) >= 45
