"""A JSON array is its elements, each at its place, however it is laid out, read and broken."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.files import blocks
from schemas.files.reader import read_chunks
from schemas.jsonl import parse_chunk

MARK = b"\xef\xbb\xbf"
LIMIT = 1 << 20
texts = st.text(st.sampled_from('ab{}[],:"\\\n\u00e9\u4e2d '), max_size=8)
turns = st.lists(st.fixed_dictionaries({"role": texts, "content": texts}), max_size=3)
rows = st.lists(st.fixed_dictionaries({"id": texts, "turns": turns}), min_size=1, max_size=6)
indents = st.sampled_from([None, 0, 1, 4])
wrappings = st.sampled_from([(b"", b""), (MARK, b"\n"), (b'{"version": "1", "data":', b', "more": {"a": []}}\n')])
BROKEN = [b'{"id": "a" "b"}', b'{"id": "a}', b'{"id": "a"', b'{"id": ["a"}', b'{"id": "a', b'{"id": {"x": "a"']


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all examples of a property may write to."""
    return tmp_path_factory.mktemp("arrays")


def lines_of(path: Path, block: int, **where: int) -> list[tuple[int, int, bytes]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", block)
        chunks = list(read_chunks(path, LIMIT, **where))
    assert not any(chunk.faults for chunk in chunks)
    return [
        (chunk.first_line + index, chunk.offsets[index], line)
        for chunk in chunks
        for index, line in enumerate(chunk.lines)
    ]


@given(rows=rows, indent=indents, wrapping=wrappings, escaped=st.booleans(), block=st.integers(1, 40), data=st.data())
def test_each_row_has_its_number_and_place(
    folder: Path, rows: list[object], indent: int | None, wrapping: tuple[bytes, bytes], escaped: bool, block: int,
    data: st.DataObject,
) -> None:  # fmt: skip
    body = wrapping[0] + json.dumps(rows, indent=indent, ensure_ascii=escaped).encode() + wrapping[1]
    path = folder / "a.json"
    path.write_bytes(body)
    found = lines_of(path, block)
    assert [json.loads(line) for _, _, line in found] == rows
    assert [number for number, *_ in found] == list(range(1, len(rows) + 1))
    assert all(body[offset:].startswith(line) for _, offset, line in found)
    number, offset, _ = data.draw(st.sampled_from(found))
    end = found[-1][1] + len(found[-1][2])
    assert lines_of(path, block, start=offset, end=end, first_line=number) == found[number - 1 :]
    if number > 1:
        assert lines_of(path, block, end=offset) == found[: number - 1]


@given(arrays=st.lists(rows, min_size=2, max_size=4), indent=indents,
       between=st.sampled_from([b"\n", b"", b",\n", b" "]), block=st.integers(1, 40), data=st.data())  # fmt: skip
def test_arrays_one_after_another_are_rows_of_one_file(
    folder: Path, arrays: list[list[object]], indent: int | None, between: bytes, block: int, data: st.DataObject
) -> None:
    body = between.join(json.dumps(array, indent=indent, sort_keys=True).encode() for array in arrays) + b"\n"
    path = folder / "c.json"
    path.write_bytes(body)
    found = lines_of(path, block)
    assert [json.loads(line) for _, _, line in found] == [row for array in arrays for row in array]
    assert all(body[offset:].startswith(line) for _, offset, line in found)
    number, offset, _ = data.draw(st.sampled_from(found))
    assert lines_of(path, block, start=offset, end=len(body), first_line=number) == found[number - 1 :]
    if number > 1:
        assert lines_of(path, block, end=offset) == found[: number - 1]


@given(count=st.integers(0, 4), more=st.integers(1, 4), broken=st.sampled_from(BROKEN), block=st.integers(1, 40),
       between=st.sampled_from([b",", b", ", b",\n", b"\n,\n  "]))  # fmt: skip
def test_a_broken_row_spoils_no_other(
    folder: Path, count: int, more: int, broken: bytes, block: int, between: bytes
) -> None:
    """Wherever lines end, that is: a string without an end goes on to the end of its line."""
    if broken.count(b'"') % 2 and b"\n" not in between:
        between = between + b"\n"
    good = [json.dumps({"id": f"row {number}", "turns": [{"role": "a"}]}).encode() for number in range(count + more)]
    path = folder / "b.json"
    path.write_bytes(b"[" + between.join([*good[:count], broken, *good[count:]]) + b"]")
    if count + more == 1 and broken.startswith(b'{"id": "a" "b"'):
        return
    lines = [line for _, _, line in lines_of(path, block)]
    parsed, faults = parse_chunk(next(iter(read_chunks(path, LIMIT))))
    assert [line for line in lines if line in good] == good
    assert len(lines) == len(good) + 1
    assert [index for index, row in enumerate(parsed) if row is None] == [count] == list(faults)


def test_a_row_of_any_length_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as stream:
        stream.write(b'[{"text": "first"}, {"text": "')
        for _ in range(40):
            stream.write(b'{[\\"' + b"x" * (1 << 20))
        stream.write(b'"}, {"text": "last"}]')
    tracemalloc.start()
    [chunk] = read_chunks(path, LIMIT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    parsed, faults = parse_chunk(chunk)
    assert parsed == [{"text": "first"}, None, {"text": "last"}]
    assert faults[1].detail.startswith(f"{40 * (4 + (1 << 20)) + 12} bytes, the limit is")
    assert peak < 40 << 20
