"""Pieces hold every finished line once, and of a file that has grown the tail alone is new."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.rows.piece import Piece
from schemas.files.reader import read_chunks
from tasks.errors import NightStopped
from tasks.pages.text import plural
from tasks.recipes.stage_configs import SourceConfig
from tasks.sources import pieces
from tasks.sources import resolve as sources
from tasks.sources.resolve import LocatedPiece, Resolved, resolve
from tests.reference.lines import cut, raw_lines

repeatable = settings(max_examples=30)

rows = st.integers(0, 40).map(lambda size: json.dumps({"t": "x" * size}).encode())
finished = st.lists(rows, max_size=6).map(lambda lines: b"".join(line + b"\n" for line in lines))
torn = st.sampled_from([b'{"t": "cu', b"{", b'{"t": 1', b" "])
growth = st.one_of(finished, torn, rows, st.just(b"\n"), st.just(b"\r\n"), st.just(b'"}\n'))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all examples of a property may write to."""
    return tmp_path_factory.mktemp("pieces")


def resolved(path: Path, known: Sequence[Piece] = (), piece_bytes: int = 64 << 20, **more: object) -> Resolved:
    source = SourceConfig(name="s", kind="pretrain", location=str(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "PIECE_BYTES", piece_bytes)
        return resolve([source], path.parent / "home", known, **more)


def read(located: LocatedPiece) -> list[tuple[int, int, bytes]]:
    """Number, offset and bytes of each line, as the stage that validates reads them."""
    return [
        (chunk.first_line + index, chunk.offsets[index], line)
        for chunk in read_chunks(
            located.path, 1 << 20, located.piece.start, located.piece.end, located.piece.first_line
        )
        for index, line in enumerate(chunk.lines)
    ]


def known_of(found: Resolved) -> list[Piece]:
    """What the next night knows; that each piece knows its number of lines is checked always."""
    for located in found.pieces:
        assert located.piece.num_lines == (0 if located.piece.end is None else len(read(located)))
    return [located.piece for located in found.pieces]


@repeatable
@given(body=finished, piece_bytes=st.integers(1, 120))
@example(body=b"", piece_bytes=1)
def test_pieces_are_cut_after_the_line_that_fills_them(folder: Path, body: bytes, piece_bytes: int) -> None:
    path = folder / "a.jsonl"
    path.write_bytes(body)
    found = resolved(path, piece_bytes=piece_bytes).pieces
    expected = cut(body, piece_bytes)
    assert [body[located.piece.start : located.piece.end] for located in found] == expected
    assert [located.piece.digest for located in found] == [hashlib.sha256(part).hexdigest() for part in expected]
    starts = [sum(part.count(b"\n") for part in expected[:index]) + 1 for index in range(len(expected))]
    assert [located.piece.first_line for located in found] == starts


@repeatable
@given(nights=st.lists(growth, min_size=1, max_size=5), piece_bytes=st.integers(30, 200))
@example(nights=[b'{"t": 1}', b"\n", b'{"t": 2}', b"\r\n", b'{"t": 3}\n'], piece_bytes=30)
@example(nights=[b'{"t": 1}\n12', b'3\n{"t": 2}\n'], piece_bytes=30)
@example(nights=[b'{"t": 1}\n{"t": ', b'2}\n{"t": 3}'], piece_bytes=200)
def test_no_line_is_lost_or_split_however_a_file_grows(folder: Path, nights: list[bytes], piece_bytes: int) -> None:
    """What is left for the next night is the end after the last line feed, and only if it is no JSON value."""
    path, body, known = folder / "a.jsonl", b'{"t": "first"}\n', list[Piece]()
    for tonight in nights:
        body += tonight
        path.write_bytes(body)
        found = resolved(path, known, piece_bytes)
        lines = raw_lines(body)
        if found.deferred:
            offset, left = lines.pop()
            assert left and not is_json(left)
            assert f"({plural(len(left), 'byte')})" in found.deferred[0].reason
            assert found.pieces[-1].piece.end == offset
        else:
            assert body.endswith(b"\n") or is_json(lines[-1][1])
        expected = [(number, offset, raw.removesuffix(b"\r")) for number, (offset, raw) in enumerate(lines, start=1)]
        assert [line for located in found.pieces for line in read(located)] == expected
        known = known_of(found)


def is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


def body_of(first: int, last: int) -> bytes:
    return b"".join(b'{"text": "row %d"}\n' % number for number in range(first, last))


def test_of_a_file_that_has_grown_the_tail_alone_is_new(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(body_of(0, 20))
    before = resolved(path, piece_bytes=100)
    path.write_bytes(body_of(0, 33))
    after = resolved(path, known_of(before), piece_bytes=100).pieces
    assert after[: len(before.pieces)] == before.pieces
    tail = after[len(before.pieces)]
    assert (tail.piece.start, tail.piece.first_line) == (len(body_of(0, 20)), 21)


def array_of(first: int, last: int, ending: bytes = b"]\n") -> bytes:
    return b"[\n" + b",\n".join(b'  {"text": "row %d"}' % number for number in range(first, last)) + ending


@repeatable
@given(
    nights=st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from([b"]", b"\n]\n", b"", b",", b', {"text": "to'])), min_size=1
    ),
    piece_bytes=st.integers(20, 200),
)
def test_an_array_that_grows_costs_its_tail(folder: Path, nights: list[tuple[int, bytes]], piece_bytes: int) -> None:
    """Appended to before its bracket, closed or not; what is cut once stays."""
    path, last, known = folder / "grows.json", 1, list[Piece]()
    for more, ending in nights:
        last += more
        body = array_of(0, last, ending)
        path.write_bytes(body)
        found = resolved(path, known, piece_bytes)
        lines = [line for located in found.pieces for line in read(located)]
        assert [json.loads(line)["text"] for _, _, line in lines] == [f"row {number}" for number in range(last)]
        assert [number for number, *_ in lines] == list(range(1, last + 1))
        assert all(body[offset:].startswith(line) for _, offset, line in lines)
        assert bool(found.deferred) == (b"]" not in ending)
        assert not more or [located.piece for located in found.pieces][: len(known)] == known
        known = known_of(found)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_a_last_line_that_got_its_line_feed_later_stays_where_it_is(tmp_path: Path, ending: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(body_of(0, 5)[:-1])
    before = resolved(path, piece_bytes=50)
    path.write_bytes(body_of(0, 5)[:-1] + ending + body_of(5, 7))
    *kept, tail = resolved(path, known_of(before), piece_bytes=50).pieces
    assert tuple(kept) == before.pieces
    assert (tail.piece.start, tail.piece.first_line) == (len(body_of(0, 5)) - 1 + len(ending), 6)


def test_known_pieces_are_taken_over_as_they_were_cut(tmp_path: Path) -> None:
    """Another recipe of the same home may have cut the file otherwise; its memory is not ours."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(body_of(0, 20))
    ours = resolved(path, piece_bytes=50, clock=settled(path))
    (tmp_path / "home" / "sources.json").unlink()
    theirs = resolved(path, piece_bytes=90, clock=settled(path))
    assert resolved(path, known_of(ours), piece_bytes=90, clock=settled(path)) == ours != theirs


def test_a_gap_between_known_pieces_must_still_be_a_line_feed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n12')
    known = known_of(resolved(path))
    path.write_bytes(b'{"text": "a"}\n12\n{"text": "b"}\n')
    known = known_of(resolved(path, known))
    assert len(known) == 2
    path.write_bytes(b'{"text": "a"}\n123{"text": "b"}\n')
    assert resolved(path, known).pieces == resolved(path).pieces


@pytest.mark.parametrize(
    "body",
    [
        body_of(0, 7) + b'{"text": "ROW 7"}\n' + body_of(8, 20),
        body_of(0, 19),
        b"",
        body_of(0, 20).replace(b"\n", b" ", 1),
        b"\n" + body_of(0, 20),
    ],
)
def test_a_file_that_did_not_only_grow_is_cut_from_the_beginning(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(body_of(0, 20))
    known = known_of(resolved(path, piece_bytes=50))
    path.write_bytes(body)
    assert resolved(path, known, 90).pieces == resolved(path, (), 90).pieces


def test_known_pieces_of_other_files_and_sources_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(body_of(0, 20))
    known = known_of(resolved(path, piece_bytes=50))
    others = [replace(piece, source="t") for piece in known] + [replace(piece, label="s/b.jsonl") for piece in known]
    os.utime(path, (1, 1))
    assert [located.piece.end for located in resolved(path, others).pieces] == [len(body_of(0, 20))]


def test_a_file_in_two_sources_is_remembered_for_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_bytes(body_of(0, 20))
    both = [SourceConfig(name=name, kind="pretrain", location=str(tmp_path / "a.jsonl")) for name in "st"]
    first = resolve(both, tmp_path, clock=settled(tmp_path / "a.jsonl"))
    forbid_reading(monkeypatch)
    assert resolve(both, tmp_path, known_of(first), clock=settled(tmp_path / "a.jsonl")) == first


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces.RangeReader, "measured", lambda *_: pytest.fail("the file is read"))


def settled(path: Path) -> Callable[[], float]:
    """A clock that shows ten seconds after the file's last change."""
    return lambda: path.stat().st_mtime + 10


TABLE = pa.BufferOutputStream()
pq.write_table(pa.table({"text": ["a"]}), TABLE)
BODIES = {
    "a.jsonl": body_of(0, 20) + b'{"torn', "a.jsonl.gz": body_of(0, 20), "page.jsonl": b"<html>\n" * 9,
    "a.parquet": TABLE.getvalue().to_pybytes(),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_a_file_that_has_not_changed_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(BODIES[name])
    first = resolved(path, piece_bytes=100, clock=settled(path))
    forbid_reading(monkeypatch)
    assert resolved(path, piece_bytes=100, clock=settled(path)) == first
    assert resolved(path, known_of(first), piece_bytes=100, clock=settled(path)) == first
    assert [file.name for file in (tmp_path / "home").glob("sources.json*")] == ["sources.json"]


def test_a_file_read_right_after_its_change_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another change in the same tick of the file system's clock would leave no trace."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(body_of(0, 3))
    resolved(path, clock=lambda: path.stat().st_mtime + 1.9)
    forbid_reading(monkeypatch)
    with pytest.raises(pytest.fail.Exception, match="is read"):
        resolved(path, clock=settled(path))


def test_a_change_of_the_same_size_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(body_of(0, 3))
    os.utime(path, (1_000, 1_000))
    before = resolved(path)
    path.write_bytes(body_of(1, 4))
    os.utime(path, (1_000, 1_000))
    [after] = resolved(path, known_of(before)).pieces
    assert after.piece.digest == hashlib.sha256(body_of(1, 4)).hexdigest() != before.pieces[0].piece.digest


@pytest.mark.parametrize("memory", [b"", b"\xff", b"[]", b'{"a": 1}', b'{"/a": {"pieces": []}}', b"half"])
def test_a_broken_memory_costs_a_read_and_nothing_else(tmp_path: Path, memory: bytes) -> None:
    path, file = tmp_path / "a.jsonl", tmp_path / "home" / "sources.json"
    path.write_bytes(body_of(0, 3))
    first = resolved(path, clock=settled(path))
    file.write_bytes(file.read_bytes()[:-9] if memory == b"half" else memory)
    assert resolved(path, clock=settled(path)) == first


def test_a_file_that_is_written_to_while_it_is_read_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(body_of(0, 5))
    known = known_of(resolved(path))
    path.write_bytes(body_of(0, 8))
    look = pieces.what_is

    def look_and_append(*arguments: object) -> object:
        with path.open("ab") as stream:
            stream.write(b'{"te')
        return look(*arguments)

    monkeypatch.setattr(pieces, "what_is", look_and_append)
    found = resolved(path, known)
    assert [located.piece.end for located in found.pieces] == [len(body_of(0, 5))], "what is known and as it was stays"
    assert "still being written to" in found.deferred[0].reason
    with pytest.raises(NightStopped, match=r"source s: .*\n.*still being written to"):
        resolved(path)


@pytest.mark.parametrize("age", [0.5, -100.0])
@pytest.mark.parametrize("grows", [True, False])
def test_a_young_file_is_looked_at_again_after_the_rest_of_its_time(tmp_path: Path, age: float, grows: bool) -> None:
    (tmp_path / "old.jsonl").write_bytes(body_of(0, 1))
    os.utime(tmp_path / "old.jsonl", (1_000, 1_000))
    young, slept = tmp_path / "young.jsonl", []
    young.write_bytes(body_of(0, 2))
    os.utime(young, (9_000, 9_000))

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if grows:
            young.write_bytes(body_of(0, 3))

    found = resolved(tmp_path / "*.jsonl", settle_seconds=2.0, clock=lambda: 9_000 + age, sleep=sleep)
    assert slept == [2.0 - max(age, 0)]
    assert [located.piece.label for located in found.pieces] == ["s/old.jsonl", *([] if grows else ["s/young.jsonl"])]
    assert [deferred.label for deferred in found.deferred] == ["s/young.jsonl"] * grows


def test_nobody_waits_for_settled_and_built_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.jsonl", "chat-english.jsonl"):
        (tmp_path / name).write_bytes(body_of(0, 2))
    os.utime(tmp_path / "a.jsonl", (9_000, 9_000))
    os.utime(tmp_path / "chat-english.jsonl", (9_002, 9_002))
    monkeypatch.setattr(sources, "build_corpus", lambda _: tmp_path)
    built_in = SourceConfig(name="b", kind="chat", location="builtin:chat-english")
    there = SourceConfig(name="s", kind="pretrain", location=str(tmp_path / "a.jsonl"))
    found = resolve([there, built_in], tmp_path / "home", (), 2.0, lambda: 9_002.0, pytest.fail)
    assert len(found.pieces) == 2
