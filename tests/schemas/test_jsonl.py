from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import jsonl
from schemas.jsonl import KEPT_OF_BAD_LINE_BYTES, Fault, Line, parse, read_chunks, read_lines
from tests.reference.lines import content, raw_lines

MARK = b"\xef\xbb\xbf"
LIMIT = 1_000

binary = st.binary(max_size=12).map(lambda data: data.replace(b"\n", b""))
piece = st.one_of(binary, st.sampled_from([b"", b"\r", b"{}\r", b"{}\r\r", MARK + b"{}"]))
bodies = st.builds(
    lambda mark, pieces, ending: mark + b"\n".join(pieces) + ending,
    st.sampled_from([b"", MARK]),
    st.lists(piece, max_size=8),
    st.sampled_from([b"", b"\n"]),
)
block_sizes = st.integers(1, 9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all examples of a property may write to."""
    return tmp_path_factory.mktemp("jsonl")


def written(path: Path, body: bytes) -> Path:
    path.write_bytes(body)
    return path


def lines_of(path: Path, limit: int = LIMIT, block: int = jsonl.BLOCK_BYTES) -> list[Line]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "BLOCK_BYTES", block)
        return list(read_lines(path, limit))


@given(body=bodies, block=block_sizes)
@example(body=b"", block=1)
@example(body=MARK + b'{"a": 1}\r\n\r\n\n{"a": 2}', block=4)
def test_lines_keep_number_offset_and_content_whatever_the_block(folder: Path, body: bytes, block: int) -> None:
    expected = [
        Line(number, offset, content(raw, is_first=number == 1))
        for number, (offset, raw) in enumerate(raw_lines(body), start=1)
    ]
    assert lines_of(written(folder / "a.jsonl", body), block=block) == expected


@given(body=bodies, block=block_sizes)
def test_seeking_to_an_offset_finds_the_line(folder: Path, body: bytes, block: int) -> None:
    path = written(folder / "a.jsonl", body)
    lines = lines_of(path, block=block)
    with path.open("rb") as stream:
        for line in lines:
            stream.seek(line.byte_offset)
            found = stream.readline().rstrip(b"\n").removesuffix(b"\r")
            assert found.removeprefix(MARK if line.number == 1 else b"") == line.data
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))


@given(body=bodies, block=block_sizes, limit=st.integers(1, 8))
@example(body=b"12345\n123456\n1", block=3, limit=5)
def test_a_long_line_is_cut_and_the_others_are_whole(folder: Path, body: bytes, block: int, limit: int) -> None:
    lines = lines_of(written(folder / "a.jsonl", body), limit, block)
    expected = raw_lines(body)
    assert [(line.number, line.byte_offset) for line in lines] == [(n, at) for n, (at, _) in enumerate(expected, 1)]
    for line, (_, raw) in zip(lines, expected, strict=True):
        kept = content(raw, is_first=line.number == 1)
        if len(raw) <= limit:
            assert line == Line(line.number, line.byte_offset, kept)
        elif len(kept) > limit:
            detail = f"{len(raw)} bytes, the limit is {limit} (validate.max_line_bytes)"
            assert line.fault == Fault("line_too_long", detail)
            assert raw.startswith(line.data)
            assert len(line.data) <= limit + 1


def test_a_huge_line_takes_little_memory_and_spares_the_next(tmp_path: Path) -> None:
    body = b'{"text": "first"}\n' + b"x" * 4_000_000 + b'\n{"text": "next"}\n'
    path = written(tmp_path / "huge.jsonl", body)
    tracemalloc.start()
    try:
        first, huge, after = lines_of(path, limit=10_000, block=1 << 14)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 500_000
    assert huge.fault is not None
    assert huge.fault.detail.startswith("4000000 bytes, the limit is 10000")
    assert huge.data == b"x" * KEPT_OF_BAD_LINE_BYTES
    assert first.data == b'{"text": "first"}'
    assert after == Line(3, len(body) - len(b'{"text": "next"}\n'), b'{"text": "next"}')


def in_two_parts(compress: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """As `cat` and log rotation leave them: one compressed stream after another."""
    return lambda body: compress(body[:7]) + compress(body[7:])


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("a.jsonl.gz", gzip.compress),
        ("a.jsonl.gz", in_two_parts(gzip.compress)),
        ("a.jsonl.zst", zstandard.compress),
        ("a.jsonl.zst", in_two_parts(zstandard.compress)),
    ],
)
@pytest.mark.parametrize("block", [3, jsonl.BLOCK_BYTES])
@pytest.mark.parametrize("body", [b"", MARK + b'{"a": 1}\r\n\n{"a": "\xc3\xa9"}\nlast'])
def test_compressed_files_have_the_lines_of_the_plain_one(
    tmp_path: Path, name: str, compress: Callable[[bytes], bytes], block: int, body: bytes
) -> None:
    plain = lines_of(written(tmp_path / "a.jsonl", body))
    assert lines_of(written(tmp_path / name, compress(body)), block=block) == plain


GOOD_LINES = [f'{{"text": "{n * 7919 % 10_007:x} {n * n * 104_729 % 65_537:x}"}}'.encode() for n in range(400)]
BODY = b"\n".join(GOOD_LINES) + b"\n"


def assert_good_lines_then_one_unreadable(lines: list[Line]) -> None:
    *good, last = lines
    assert good, "the lines before the break are lost"
    assert [line.data for line in good] == GOOD_LINES[: len(good)]
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    assert all(line.fault is None for line in good)
    assert last.fault is not None
    assert last.fault.rule == "file_unreadable"
    assert BODY[last.byte_offset :].startswith(last.data)
    assert parse(last) == last.fault


@pytest.mark.parametrize("block", [64, jsonl.BLOCK_BYTES])
@pytest.mark.parametrize(("name", "compress"), [("a.gz", gzip.compress), ("a.zst", zstandard.compress)])
def test_a_truncated_file_gives_its_good_lines_and_one_fault(
    tmp_path: Path, name: str, compress: Callable[[bytes], bytes], block: int
) -> None:
    half = len(BODY) // 2
    body = compress(BODY[:half]) + compress(BODY[half:])[:-30]
    assert_good_lines_then_one_unreadable(lines_of(written(tmp_path / name, body), block=block))


@pytest.mark.parametrize("block", [64, jsonl.BLOCK_BYTES])
@pytest.mark.parametrize(("name", "compress"), [("a.gz", gzip.compress), ("a.zst", zstandard.compress)])
def test_damage_inside_a_compressed_file_ends_it_with_one_fault(
    tmp_path: Path, name: str, compress: Callable[[bytes], bytes], block: int
) -> None:
    damaged = bytearray(compress(BODY))
    damaged[12:40] = b"\xff" * 28
    *good, last = lines_of(written(tmp_path / name, bytes(damaged)), block=block)
    assert [line.data for line in good] == GOOD_LINES[: len(good)]
    assert last.fault is not None
    assert last.fault.rule == "file_unreadable"


@pytest.mark.parametrize("name", ["plain.jsonl.gz", "plain.jsonl.zst", "missing.jsonl", "missing.jsonl.gz"])
def test_a_file_that_cannot_be_opened_or_is_mislabelled_is_one_fault(tmp_path: Path, name: str) -> None:
    if name.startswith("plain"):
        written(tmp_path / name, BODY)
    (line,) = lines_of(tmp_path / name)
    assert (line.number, line.byte_offset, line.data) == (1, 0, b"")
    assert line.fault is not None
    assert line.fault.rule == "file_unreadable"
    assert 0 < len(line.fault.detail) <= 200


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "line_blank"),
        (b" \t ", "line_blank"),
        (b'{"text": "a"', "not_json"),
        (b'{"text": "a"} {"text": "b"}', "not_json"),
        (b"{'text': 'a'}", "not_json"),
        (b'{"text": NaN}', "not_json"),
        (b'{"text": "\\ud800"}', "not_json"),
        (b"[" * 5_000, "not_json"),
        (b'{"text": "\xff"}', "not_utf8"),
        (b'{"text": "\xed\xa0\x80"}', "not_utf8"),
        (b'["text"]', "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"12", "not_an_object"),
        (b"null", "not_an_object"),
    ],
)
def test_what_is_no_row_is_named(data: bytes, rule: str) -> None:
    fault = parse(Line(1, 0, data))
    assert isinstance(fault, Fault)
    assert fault.rule == rule
    assert 0 < len(fault.detail) <= 200


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"{}", {}),
        (b' {"text": "a"} ', {"text": "a"}),
        ('{"text": "naïve 🙂", "n": [1, null]}'.encode(), {"text": "naïve 🙂", "n": [1, None]}),
    ],
)
def test_an_object_is_parsed(data: bytes, value: dict[str, object]) -> None:
    assert parse(Line(1, 0, data)) == value


def test_invalid_utf8_tells_where() -> None:
    fault = parse(Line(1, 0, b'{"text": "ab\xfe"}'))
    assert isinstance(fault, Fault)
    assert fault.detail == r"byte 12 of the line is b'\xfe'"


@given(st.binary())
def test_parsing_never_raises_and_excerpts_are_always_text(data: bytes) -> None:
    line = Line(1, 0, data)
    assert isinstance(parse(line), (dict, Fault))
    line.excerpt().encode("utf-8")


def test_an_excerpt_is_bounded_and_shows_bad_bytes() -> None:
    assert Line(1, 0, b"a\xff\xc3\xa9").excerpt() == "a\\xffé"
    assert Line(1, 0, b"x" * 1_000_000).excerpt() == "x" * KEPT_OF_BAD_LINE_BYTES


@given(body=bodies, rows=st.integers(1, 4), size_bytes=st.integers(1, 30))
@example(body=b"four\n" * 7, rows=3, size_bytes=7)
@example(body=b"four\n" * 7, rows=3, size_bytes=100)
def test_chunks_are_the_lines_in_bounded_portions(folder: Path, body: bytes, rows: int, size_bytes: int) -> None:
    path = written(folder / "a.jsonl", body)
    chunks = list(read_chunks(path, LIMIT, rows, size_bytes))
    assert [line for chunk in chunks for line in chunk] == lines_of(path)
    for chunk in chunks:
        assert 1 <= len(chunk) <= rows
        assert sum(len(line.data) for line in chunk[:-1]) < size_bytes
    for chunk, _ in pairwise(chunks):
        assert len(chunk) == rows or sum(len(line.data) for line in chunk) >= size_bytes
