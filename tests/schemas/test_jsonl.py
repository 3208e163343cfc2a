"""Every byte of a file ends in a line, every line in a row or a fault, whatever the bytes are."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.files import blocks, reader
from schemas.files.reader import read_chunks
from schemas.jsonl import KEPT_OF_BAD_LINE_BYTES, Chunk, Fault, excerpt, parse_chunk
from tests.reference.lines import content, raw_lines, repeats_a_key

MARK = b"\xef\xbb\xbf"
LIMIT = 1_000
Lines = list[tuple[int, int, bytes, Fault | None]]
"""Number, byte offset, content and fault of each line."""

binary = st.binary(max_size=12).map(lambda data: data.replace(b"\n", b""))
line = st.one_of(binary, st.sampled_from([b"", b"\r", b"{}", b"{}\r", b"{}\r\r", MARK + b"{}"]))
bodies = st.builds(
    # A good line at the beginning: without one the file may be taken for something else than jsonl.
    lambda mark, lines, ending: mark + b"\n".join([b'{"a": 1}', *lines]) + ending,
    st.sampled_from([b"", MARK]),
    st.lists(line, max_size=8),
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


def chunks_of(path: Path, limit: int = LIMIT, block: int = blocks.BLOCK_BYTES, **where: int) -> list[Chunk]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", block)
        return list(read_chunks(path, limit, **where))


def lines_of(path: Path, limit: int = LIMIT, block: int = blocks.BLOCK_BYTES, **where: int) -> Lines:
    return [
        (chunk.first_line + index, chunk.offsets[index], data, chunk.faults.get(index))
        for chunk in chunks_of(path, limit, block, **where)
        for index, data in enumerate(chunk.lines)
    ]


def expected_lines(body: bytes) -> Lines:
    return [
        (number, offset, content(raw, is_first=number == 1), None)
        for number, (offset, raw) in enumerate(raw_lines(body), start=1)
    ]


def parsed(*lines: bytes) -> tuple[list[dict[str, object] | None], dict[int, Fault]]:
    return parse_chunk(Chunk(1, list(range(len(lines))), list(lines), {}))


@given(body=bodies, block=block_sizes)
@example(body=b"", block=1)
@example(body=MARK + b'{"a": 1}\r\n\r\n\n{"a": 2}', block=4)
def test_lines_keep_number_offset_and_content_whatever_the_block(folder: Path, body: bytes, block: int) -> None:
    assert lines_of(written(folder / "a.jsonl", body), block=block) == expected_lines(body)


@given(body=bodies, block=block_sizes, data=st.data())
def test_ranges_together_are_the_file(folder: Path, body: bytes, block: int, data: st.DataObject) -> None:
    path = written(folder / "a.jsonl", body)
    expected = expected_lines(body)
    starts = [offset for _, offset, _, _ in expected]
    cut = data.draw(st.integers(0, len(starts) - 1))
    head = lines_of(path, block=block, end=starts[cut])
    tail = lines_of(path, block=block, start=starts[cut], end=len(body), first_line=cut + 1)
    assert head + tail == expected
    *read, last = lines_of(path, block=block, start=starts[cut], end=len(body) + 1, first_line=cut + 1)
    assert read == tail[: len(read)]
    assert last[3] is not None and last[3].rule == "file_unreadable", "fewer bytes than there were must be told"


def test_a_range_inside_a_file_is_lines_whatever_the_file_is(tmp_path: Path) -> None:
    path = written(tmp_path / "page.jsonl", b"<html>\n<p>\n")
    assert lines_of(path, start=7, first_line=2) == [(2, 7, b"<p>", None)]


@given(body=bodies, block=block_sizes, limit=st.integers(1, 8))
@example(body=b"12345\n123456\n1", block=3, limit=5)
@example(body=b'{"a": 1}\n{}\r\n{}\r\r\n', block=9, limit=2)
def test_a_long_line_is_cut_and_the_others_are_whole(folder: Path, body: bytes, block: int, limit: int) -> None:
    lines = lines_of(written(folder / "a.jsonl", body), limit, block)
    expected = raw_lines(body)
    assert [(number, at) for number, at, _, _ in lines] == [(n, at) for n, (at, _) in enumerate(expected, 1)]
    for (number, _, data, fault), (_, raw) in zip(lines, expected, strict=True):
        kept = content(raw, is_first=number == 1)
        if len(raw) <= limit:
            assert (data, fault) == (kept, None)
        elif len(kept) > limit:
            assert fault == Fault("line_too_long", f"{len(raw)} bytes, the limit is {limit} (validate.max_line_bytes)")
            assert data in raw


def peak_of(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_huge_line_takes_little_memory_and_spares_the_next(tmp_path: Path) -> None:
    body = b'{"text": "first"}\n' + b"x" * 16_000_000 + b'\n{"text": "next"}\n'
    path = written(tmp_path / "huge.jsonl", body)
    assert peak_of(lambda: lines_of(path, limit=10_000)) < 2_000_000
    first, huge, after = lines_of(path, limit=10_000)
    assert first[2:] == (b'{"text": "first"}', None)
    assert huge[2] == b"x" * KEPT_OF_BAD_LINE_BYTES
    assert huge[3] is not None and huge[3].detail.startswith("16000000 bytes, the limit is 10000")
    assert after == (3, len(body) - len(b'{"text": "next"}\n'), b'{"text": "next"}', None)


def test_chunks_of_very_short_lines_stay_small(tmp_path: Path) -> None:
    path = written(tmp_path / "short.jsonl", b"{}\n" * 400_000)
    sizes = [len(chunk.lines) for chunk in read_chunks(path, LIMIT, size_bytes=1 << 20)]
    assert sum(sizes) == 400_000
    assert max(sizes) < 110_000, "a chunk is bounded by what its lines cost, not by their bytes alone"


@given(body=bodies, block=st.integers(1, 40), size_bytes=st.integers(1, 400))
def test_chunks_are_consecutive_and_of_about_the_size(folder: Path, body: bytes, block: int, size_bytes: int) -> None:
    path = written(folder / "a.jsonl", body)
    chunks = chunks_of(path, block=block, size_bytes=size_bytes)
    for chunk, after in pairwise(chunks):
        assert after.first_line == chunk.first_line + len(chunk.lines)
        assert sum(map(len, chunk.lines)) + (reader.LINE_OVERHEAD_BYTES + block) * len(chunk.lines) >= size_bytes
    assert all(len(chunk.lines) == len(chunk.offsets) > 0 for chunk in chunks)
    assert lines_of(path, block=block, size_bytes=size_bytes) == lines_of(path)


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
@pytest.mark.parametrize("block", [3, blocks.BLOCK_BYTES])
@pytest.mark.parametrize("body", [b"", MARK + b'{"a": 1}\r\n\n{"a": "\xc3\xa9"}\nlast'])
def test_compressed_files_have_the_lines_of_the_plain_one(
    tmp_path: Path, name: str, compress: Callable[[bytes], bytes], block: int, body: bytes
) -> None:
    assert lines_of(written(tmp_path / name, compress(body)), block=block) == expected_lines(body)


GOOD_LINES = [f'{{"text": "{n * 7919 % 10_007:x} {n * n * 104_729 % 65_537:x}"}}'.encode() for n in range(400)]
BODY = b"\n".join(GOOD_LINES) + b"\n"
HALF = len(BODY) // 2


def damaged(body: bytes) -> bytes:
    return body[:12] + b"\xff" * 28 + body[40:]


@pytest.mark.parametrize("block", [64, blocks.BLOCK_BYTES])
@pytest.mark.parametrize(("name", "compress"), [("a.gz", gzip.compress), ("a.zst", zstandard.compress)])
@pytest.mark.parametrize("kind", ["truncated", "damaged"])
def test_a_broken_compressed_file_gives_its_good_lines_and_one_fault(
    tmp_path: Path, name: str, compress: Callable[[bytes], bytes], block: int, kind: str
) -> None:
    second = compress(BODY[HALF:])
    body = compress(BODY[:HALF]) + (second[:-30] if kind == "truncated" else damaged(second))
    *good, last = lines_of(written(tmp_path / name, body), block=block)
    assert len(good) >= BODY[:HALF].count(b"\n"), "the lines before the break are lost"
    assert [data for _, _, data, _ in good] == GOOD_LINES[: len(good)]
    assert [number for number, *_ in good] == list(range(1, len(good) + 1))
    assert all(fault is None for *_, fault in good)
    number, offset, data, fault = last
    assert number == len(good) + 1
    assert BODY[offset:].startswith(data)
    assert fault is not None and fault.rule == "file_unreadable"


@pytest.mark.parametrize("name", ["plain.jsonl.gz", "plain.jsonl.zst", "missing.jsonl", "missing.jsonl.gz"])
def test_a_file_that_cannot_be_opened_or_is_mislabelled_is_one_fault(tmp_path: Path, name: str) -> None:
    if name.startswith("plain"):
        written(tmp_path / name, BODY)
    ((number, offset, data, fault),) = lines_of(tmp_path / name)
    assert (number, offset, data) == (1, 0, b"")
    assert fault is not None and fault.rule == "file_unreadable"
    assert 0 < len(fault.detail) <= 200


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
        (b'{"text": "a", "text": ' + b"[" * 990 + b"]" * 990 + b"}", "not_json"),
        (b'{"text": "\xff"}', "not_utf8"),
        (b'{"text": "\xed\xa0\x80"}', "not_utf8"),
        (b'["text"]', "not_an_object"),
        (b"12", "not_an_object"),
        (b"null", "not_an_object"),
        (b'{"text":0,"text":0}', "duplicate_key"),
        (b'{"output": "", "text": {"a": 1}, "n": 1, "output" : 0.5}', "duplicate_key"),
        (b'{"conversations": [{"role": "user"}], "conversations": []}', "duplicate_key"),
    ],
)
def test_what_is_no_row_is_named(data: bytes, rule: str) -> None:
    rows, faults = parsed(b'{"text": "a"}', data)
    assert rows == [{"text": "a"}, None]
    assert [(index, fault.rule) for index, fault in faults.items()] == [(1, rule)]
    assert 0 < len(faults[1].detail) <= 200


def test_invalid_utf8_and_a_repeated_key_are_told_exactly() -> None:
    _, faults = parsed(b'{"text": "ab\xfe"}', b'{"text": "a", "text": "b", "n": 1}')
    assert faults[0].detail == r"byte 12 of the line is b'\xfe'"
    assert faults[1] == Fault("duplicate_key", "'text' appears 2 times")


def test_a_line_that_was_cut_is_not_parsed() -> None:
    fault = Fault("line_too_long", "")
    assert parse_chunk(Chunk(1, [0, 3], [b"{}", b"{}"], {0: fault})) == ([None, {}], {0: fault})


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"{}", {}),
        (b' {"text": "a"} ', {"text": "a"}),
        ('{"text": "naïve 🙂", "n": [1, null]}'.encode(), {"text": "naïve 🙂", "n": [1, None]}),
        (b'{"text": "a", "more": {"text": "b"}}', {"text": "a", "more": {"text": "b"}}),
        (b'{"text": "text", "output": "\\"text\\": 1"}', {"text": "text", "output": '"text": 1'}),
    ],
)
def test_an_object_is_parsed(data: bytes, value: dict[str, object]) -> None:
    assert parsed(data) == ([value], {})


keys = st.sampled_from(["text", "conversations", "messages", "instruction", "output"])
values = st.one_of(st.integers(), st.text(max_size=4), st.dictionaries(keys, st.text(max_size=2), max_size=2))


@given(pairs=st.lists(st.tuples(keys, values), max_size=4), gap=st.sampled_from(["", " "]))
def test_a_repeated_key_is_found_wherever_it_is(pairs: list[tuple[str, object]], gap: str) -> None:
    inside = f",{gap}".join(f'"{key}"{gap}:{gap}{json.dumps(value)}' for key, value in pairs)
    data = f"{{{inside}}}".encode()
    rows, faults = parsed(data)
    if repeats_a_key(data):
        assert rows == [None] and faults[0].rule == "duplicate_key"
    else:
        assert (rows, faults) == ([dict(pairs)], {})


@given(st.lists(st.binary(), max_size=4))
def test_parsing_never_raises_and_excerpts_are_always_text(lines: list[bytes]) -> None:
    rows, faults = parsed(*lines)
    assert [row is None for row in rows] == [index in faults for index in range(len(lines))]
    for data in lines:
        excerpt(data).encode("utf-8")


def test_an_excerpt_is_bounded_and_shows_bad_bytes() -> None:
    assert excerpt(b"a\xff\xc3\xa9") == "a\\xffé"
    assert excerpt(b"x" * 1_000_000) == "x" * KEPT_OF_BAD_LINE_BYTES
