"""Files as they arrive at night: broken, mislabelled, half written. What must become of each, end to end."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

MARK = b"\xef\xbb\xbf"
HUGE_BYTES = 100 << 20
LINE_RULES = frozenset(
    {"line_too_long", "file_unreadable", "file_not_jsonl", "not_utf8", "not_json", "not_an_object",
     "duplicate_key"}
)  # fmt: skip
"""Rules of the reader; every other one is of schemas/pretrain.py, schemas/chat.py or schemas/adapters.py."""


@dataclass(frozen=True)
class BrokenFile:
    """A file to make in a folder, and how its lines end when it is a source of `kind` in the format `minimind`.

    Lines read are `kept`, `blank` and the `faults`; a file with `deferred` or `unreadable` is told beside them, once.
    """

    name: str
    make: Callable[[Path], Path]
    kept: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    kind: str = "pretrain"
    deferred: int = 0
    unreadable: int = 0
    blank: int = 0
    """Lines that hold nothing, which are no fault."""
    for_root: bool = True
    """Whether it is broken for root, too."""

    @property
    def lines(self) -> int:
        return self.kept + self.faults.total() + self.blank

    @property
    def line_faults(self) -> Counter[str]:
        """Those that need no schema."""
        return Counter({rule: times for rule, times in self.faults.items() if rule in LINE_RULES})


def row(number: int, kind: str = "pretrain") -> bytes:
    """A good row, without its line feed."""
    turns = [
        {"role": "user", "content": f"Which row is this? {number}"},
        {"role": "assistant", "content": "A good one."},
    ]
    content = {"text": f"This is row {number}, a good one."} if kind == "pretrain" else {"conversations": turns}
    return json.dumps(content).encode()


def rows(first: int, last: int) -> bytes:
    return b"".join(row(number) + b"\n" for number in range(first, last + 1))


def write(body: bytes, name: str, folder: Path) -> Path:
    path = folder / name
    path.write_bytes(body)
    return path


def plain(
    name: str, body: bytes, kept: int = 0, suffix: str = ".jsonl", deferred: int = 0, blank: int = 0, **faults: int
) -> BrokenFile:
    return BrokenFile(name, partial(write, body, name + suffix), kept, Counter(faults), deferred=deferred, blank=blank)


def among_good(name: str, *lines: bytes, **faults: int) -> BrokenFile:
    """Lines between a good first and a good last one."""
    return plain(name, b"\n".join([row(1), *lines, row(2)]) + b"\n", 2 + len(lines) - sum(faults.values()), **faults)


def other(name: str, body: bytes) -> BrokenFile:
    """Something else than jsonl: one fault, however long it is."""
    return plain(name, body, file_not_jsonl=1)


def chat(name: str, *conversations: object, **faults: int) -> BrokenFile:
    """Conversations before a good one."""
    lines = [json.dumps({"conversations": turns}).encode() for turns in conversations]
    body = b"".join(line + b"\n" for line in [*lines, row(1, "chat")])
    kept = 1 + len(lines) - sum(faults.values())
    return BrokenFile(name, partial(write, body, f"{name}.jsonl"), kept, Counter(faults), kind="chat")


def turns(*spoken: object) -> list[dict[str, object]]:
    """User and assistant in turns."""
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(spoken)]


def text(raw: str) -> bytes:
    """A row whose text is written as it stands."""
    return f'{{"text": "{raw}"}}'.encode()


def parquet(rows: int = 3) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": [f"This is row {number}." for number in range(rows)]}), stream)
    return stream.getvalue()


def zip_file() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.jsonl", rows(1, 3))
    return stream.getvalue()


def tar_file() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("a.jsonl")
        member.size = len(rows(1, 3))
        archive.addfile(member, io.BytesIO(rows(1, 3)))
    return stream.getvalue()


def huge_line(folder: Path, after: bytes = b"\n" + rows(2, 2)) -> Path:
    """A hole of 100 MB after a row; it takes no space on the disk."""
    path = write(rows(1, 1), f"huge-line-{len(after)}.jsonl", folder)
    with path.open("r+b") as stream:
        stream.seek(HUGE_BYTES, io.SEEK_END)
        stream.write(b"x" + after)
    return path


def bomb(folder: Path) -> Path:
    """A few kilobytes that stand for 100 MB on one line."""
    path = folder / "zst-bomb.jsonl.zst"
    block = bytes(1 << 20)
    with path.open("wb") as stream, zstandard.ZstdCompressor().stream_writer(stream) as writer:
        writer.write(rows(1, 1))
        for _ in range(HUGE_BYTES >> 20):
            writer.write(block)
        writer.write(b"\n" + rows(2, 2))
    return path


def made(name: str, make: Callable[[Path], object], **expected: int) -> BrokenFile:
    """Something that is no file, or none that can be read."""

    def make_path(folder: Path) -> Path:
        path = folder / f"{name}.jsonl"
        make(path)
        return path

    return BrokenFile(name, make_path, unreadable=1, **expected)


def forbidden(path: Path) -> None:
    path.write_bytes(rows(1, 3))
    path.chmod(0)


UTF = {name: rows(1, 3).decode().encode(name) for name in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")}
PRETTY = json.dumps([json.loads(row(number)) for number in range(3)], indent=2).encode()
ENTRIES = b"[\n" + b",\n".join(row(number) for number in range(3)) + b"\n]\n"
LONG = b"[\n" + rows(1, 4_000).replace(b"\n", b",\n") + row(0) + b"\n]\n"
TURNS = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]
ZSTD = zstandard.ZstdCompressor()

ENDINGS = [
    plain("torn-line", rows(1, 2) + b'{"text": "cut o', 2, deferred=1),
    plain("torn-only-line", b'{"text": "cut o', deferred=1),
    plain("zeros-after-a-crash", rows(1, 2) + bytes(5_000), 2, deferred=1),
    plain("missing-last-line-feed", rows(1, 2) + row(3), 3),
    plain("whole-line-without-line-feed-and-mark", MARK + row(1), 1),
    plain("bad-last-line", rows(1, 2) + b'{"text": "a\tb \xff", "n": NaN}', 2, not_utf8=1),
    plain("crlf", rows(1, 3).replace(b"\n", b"\r\n"), 3),
    plain("mixed-line-endings", row(1) + b"\r\n" + row(2) + b"\n\r\n" + row(3) + b"\r\n", 3, blank=1),
    other("carriage-returns-alone", rows(1, 3).replace(b"\n", b"\r")),
    plain("byte-order-mark", MARK + rows(1, 2), 2),
    plain("byte-order-mark-inside", rows(1, 2) + MARK + rows(3, 4), 3, not_json=1),
    plain("empty", b""),
    plain("blank-lines-alone", b"\n" * 5, blank=5),
    plain("white-space-lines", b"\n".join([row(1), b" \t ", "\u3000\xa0".encode(), row(2)]), 2, blank=2),
    plain("concatenated", rows(1, 2) + row(3) + rows(4, 5), 3, not_json=1),
    plain("very-many-tiny-rows", b'{"text":"a"}\n' * 100_000, 100_000),
    BrokenFile("huge-line", huge_line, 2, Counter(line_too_long=1)),
    BrokenFile("huge-torn-line", partial(huge_line, after=b""), 1, Counter(line_too_long=1)),
]  # fmt: skip
BYTES = [
    *(other(name, body) for name, body in UTF.items()),
    other("utf-16-mark", b"\xff\xfe" + UTF["utf-16-le"]),
    other("utf-16-be-mark", b"\xfe\xff" + UTF["utf-16-be"]),
    other("utf-32-mark", b"\xff\xfe\0\0" + UTF["utf-32-le"]),
    among_good("nul-line", bytes(50), not_json=1),
    among_good("invalid-utf8", b'{"text": "\xff\xfe"}', not_utf8=1),
    among_good("latin-1", '{"text": "Café"}'.encode("latin-1"), not_utf8=1),
    among_good("overlong-utf8", b'{"text": "\xc0\xaf"}', not_utf8=1),
    among_good("surrogate-escaped", text("\\ud800"), not_json=1),
    among_good("surrogate-raw", b'{"text": "\xed\xa0\x80"}', not_utf8=1),
    among_good("control-characters", text("a\\u0007b"), text("\\u001b[1m"), text_control_characters=2),
    among_good("wrongly-decoded", text("\ufffd" * 9 + "a"), text_undecodable=1),
    among_good("raw-tab", text("one\ttwo"), not_json=1),
    among_good("line-separator", text("one\u2028two\u2029three\x85four")),
    among_good("zero-width", text("zero\u200bwidth\u2060joined\ufeff.")),
    among_good("right-to-left", text("\u202eright\u202c \u200fto left \u0627\u0644")),
]  # fmt: skip
SHAPES = [
    among_good("duplicate-keys", b'{"text": "a", "text": "b"}', b'{"text": "a", "n": {"text": 1}}', duplicate_key=1),
    among_good("huge-integer", b'{"text": "A number.", "n": ' + b"9" * 400 + b"}", not_json=1),
    among_good("infinite-float", b'{"text": "A number.", "n": 1e999}', not_json=1),
    among_good("nan", b'{"text": NaN}', b'{"text": "a", "n": Infinity}', b'{"n": -Infinity}', not_json=3),
    among_good("depth-bomb", b"[" * 100_000 + b"]" * 100_000, b'{"text":' * 9_000, not_json=2),
    among_good("deep-text", b'{"text": ' + b"[" * 500 + b"]" * 500 + b"}", text_missing=1),
    among_good("null-flood", *[b'{"text": null}'] * 300, text_missing=300),
    among_good("renamed-key", b'{"txt": "a"}', b'{"Text": "b"}', b"{}", text_missing=3),
    among_good("text-no-string", *(b'{"text": %b}' % v for v in (b"1", b"[1]", b"{}", b"true")), text_missing=4),
    among_good("text-blank", text(""), text(" \\n\\t"), text_blank=2),
    among_good("text-invisible", *map(text, ("\u200b", "\ufeff \ufe0f", "\xad\u2060", "\u3164", "\U000e0041")),
               text_blank=5),
    among_good("array-lines", b'["text"]', b"[]", not_an_object=2),
    among_good("scalar-lines", b"12", b'"text"', b"null", b"true", not_an_object=4),
    among_good("two-objects-on-a-line", row(3) + b" " + row(4), not_json=1),
    among_good("object-over-two-lines", b'{"text":', b'"two"}', not_json=2),
    among_good("trailing-comma", row(3) + b",", b'{"text": "a",}', not_json=2),
    plain("trailing-commas-everywhere", rows(1, 3).replace(b"\n", b",\n"), not_json=3),
    among_good("single-quotes", b"{'text': 'a'}", not_json=1),
    among_good("comments", b"// exported by hand", row(3) + b" # really", not_json=2),
    plain("odd-first-line", b"text,label\n" + rows(1, 3), 3, not_json=1),
    plain("odd-first-line-of-broken-rows", b"text,label\n{'text': 'a, b'}\n", not_json=2),
    plain("pointer-and-then-rows", b"version https://git-lfs.github.com/spec/v1\n" + rows(1, 3), 3, not_json=1),
    plain("pretty-object-and-then-rows", b'{\n"text": "a"\n}\n' + rows(1, 3), 3, not_json=3),
    plain("array-that-ends-after-a-row", b"[\n" + row(1) + b"\n", 1, deferred=1),
    plain("array-torn-in-a-row", b"[" + row(1) + b", " + row(2)[:9], 1, deferred=1),
    plain("array-without-commas", b"[\n" + rows(1, 3) + b"]\n", 3, not_json=2),
    plain("depth-bomb-first", b"[" * 100_000 + b"\n" + rows(1, 2), 2, not_json=1),
    plain("array-on-a-line", b"[" + row(1) + b", " + row(2) + b"]\n", 2),
    plain("array-file", ENTRIES, 3),
    plain("array-file-with-mark", MARK + ENTRIES, 3),
    plain("long-array-file", LONG, 4_001),
    plain("pretty-array", PRETTY, 3),
    plain("gz-array", gzip.compress(PRETTY), 3, ".json.gz"),
    plain("gz-array-truncated", gzip.compress(ENTRIES[:-2]), 3, ".gz", file_unreadable=1),
    plain("array-in-an-object", b'{"version": "1", "data": ' + PRETTY + b', "more": [1]}', 3),
    other("array-in-an-object-twice", b'{"train": ' + ENTRIES + b', "test": ' + ENTRIES + b"}"),
    plain("array-of-all-sorts", b'[{"text": "a"}, 1, "b, c", null, [{"text": "d"}], {"text": "e"}]', 2,
          not_json=0, not_an_object=4),
    plain("arrays-on-lines", b"[" + row(1) + b"]\n[" + row(2) + b"]\n", 2),
    plain("long-arrays-on-lines", LONG + LONG.replace(b"\n", b"") + b"\n", 8_002),
    plain("second-array-torn", b"[" + row(1) + b"]\n[" + row(2) + b", " + row(3)[:9], 2, deferred=1),
    plain("second-array-torn-in-a-key", b"[" + row(1) + b']\n[{"te', 1, file_unreadable=1),
    plain("array-and-other-array", b"[" + row(1) + b"]\n[1, 2]\n", not_an_object=2),
    plain("array-and-a-word", b"[" + row(1) + b", " + row(2) + b"];\n", 2, file_unreadable=1),
    plain("arrays-of-turns-on-lines", (json.dumps(TURNS) + "\n").encode() * 3, not_an_object=3),
    plain("array-under-any-key", b'{"meta": {"a": {"b": [1]}}, "texts_of_2024": ' + ENTRIES + b"}", 3),
    plain("long-array-under-any-key", b'{"texts_of_2024": ' + LONG.replace(b"\n", b"") + b"}", 4_001),
    plain("long-row-with-rows-in-it", json.dumps({"texts": [{"text": "a" * 1_000}] * 90, "text": "b"}).encode()
          + b"\n" + rows(1, 2), 3),
    plain("list-of-who-knows-what", b'{"text": "a", "examples": [{"text": "b"}]}\n', 1),
    other("arrays-of-unlike-rows", b"[" + row(1) + b'] [{"n": 1, "text": "b"}]\n'),
    other("array-of-arrays", json.dumps([TURNS] * 5).encode()),
    other("long-array-of-arrays", json.dumps([TURNS] * 2_000).encode()),
    other("arrays-of-arrays-on-lines", (json.dumps([TURNS] * 5) + "\n").encode() * 2),
    other("pretty-array-of-arrays", json.dumps([TURNS] * 5, indent=1).encode()),
    other("array-of-strings", json.dumps(["One text.", "Another."]).encode()),
    other("array-with-a-header", b'[{}, ' + row(1) + b", " + row(2) + b"]"),
    other("rows-deep-in-an-object", b'{"meta": {"n": 1}, "data": {"train": ' + ENTRIES.replace(b"\n", b"") + b"}}"),
    other("long-rows-deep-in-an-object", b'{"data": {"train": ' + LONG.replace(b"\n", b"") + b"}}"),
    other("two-lists-on-a-line", b'{"train": ' + ENTRIES.replace(b"\n", b"") + b', "test": [' + row(5) + b"]}"),
    other("lists-on-lines", (b'{"train": ' + ENTRIES.replace(b"\n", b"") + b"}\n") * 2),
    other("conversations-in-a-conversation", json.dumps({"conversations": [TURNS] * 5}).encode()),
    other("rows-by-name", json.dumps({f"r{n}": json.loads(row(n)) for n in range(3)}).encode()),
    other("table-by-columns", json.dumps({"text": {"0": "One text.", "1": "Another."}}).encode()),
    other("comment-above-an-array", b"// exported by hand\n" + ENTRIES.replace(b"\n", b"")),
    other("array-in-javascript", b"const rows = " + ENTRIES.replace(b"\n", b"") + b";\n"),
    other("rows-in-a-row", rows(1, 3).replace(b"\n", b"")),
    other("rows-and-commas", rows(1, 3).replace(b"\n", b", ")),
    other("array-in-python", b"[{'text': 'One text.'}, {'text': 'Another.'}]"),
    plain("array-with-a-broken-row", ENTRIES.replace(b"1,", b'1 "and,', 1), 2, not_json=1),
    plain("array-and-more", LONG + b" and more", 4_001, file_unreadable=1),
    plain("two-arrays-in-an-object", b'{"data": ' + LONG + b', "test": ' + LONG + b"}", 4_001, file_unreadable=1),
    plain("array-with-an-unfinished-row", LONG.replace(b'."},', b".", 1), 4_000, not_json=1),
    other("pretty-objects", b"\n".join(json.dumps(json.loads(row(n)), indent=1).encode() for n in range(3)) + b"\n"),
]  # fmt: skip
CONTAINERS = [
    plain("gz-truncated", gzip.compress(rows(1, 5)) + gzip.compress(rows(6, 9))[:10], 5, ".gz", file_unreadable=1),
    plain("gz-mislabelled", rows(1, 5), suffix=".gz", file_unreadable=1),
    plain("gz-trailing-garbage", gzip.compress(rows(1, 5)) + b"garbage", 5, ".gz", file_unreadable=1),
    plain("gz-multi-member", gzip.compress(rows(1, 5)[:70]) + gzip.compress(rows(1, 5)[70:]), 5, ".gz"),
    plain("gz-of-utf-16", gzip.compress(UTF["utf-16-le"]), 0, ".gz", file_not_jsonl=1),
    plain("zst-truncated", ZSTD.compress(rows(1, 5)) + ZSTD.compress(rows(6, 9))[:-3], 5, ".zst", file_unreadable=1),
    plain("zst-mislabelled", rows(1, 5), suffix=".zst", file_unreadable=1),
    BrokenFile("zst-bomb", bomb, 2, Counter(line_too_long=1)),
    other("gzip-bytes", gzip.compress(rows(1, 5))),
    other("zstandard-bytes", ZSTD.compress(rows(1, 5))),
    other("lfs-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"),
    other("path-instead-of-data", b"../data/pretrain.jsonl"),
    other("address-instead-of-data", b"https://example.org/data/pretrain\n"),
    other("html-error-page", b"<!DOCTYPE html>\n<html><head><title>503</title></head>\n<body>Sorry</body></html>"),
    other("csv", b"text,label\nHello there,good\n\"One, two\",bad\n"),
    other("tsv", b'"text"\t"label"\nHello there\tgood\n'),
    other("pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< /Type /Catalog >>\nendobj\n"),
    other("png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1"),
    other("zip", zip_file()),
    other("tar", tar_file()),
    other("parquet-bytes", parquet()),
    BrokenFile("parquet-truncated", partial(write, parquet()[:-20], "truncated.parquet"), unreadable=1),
    made("folder", Path.mkdir),
    made("dangling-link", lambda path: path.symlink_to("nowhere.jsonl")),
    made("link-to-itself", lambda path: path.symlink_to(path.name)),
    made("named-pipe", os.mkfifo),
    made("forbidden", forbidden, for_root=False),
]  # fmt: skip
CONVERSATIONS = [
    chat("empty-conversation", [], conversation_empty=1),
    chat("unanswered-conversation", turns("Hello?"), conversation_unanswered=1),
    chat("wrong-alternation", turns("a", "b")[::-1], turns("a") * 2 + turns("a", "b"), conversation_order=2),
    chat("renamed-role", [{"role": "bot", "content": "a"}], [{"role": "User", "content": "a"}], role_unknown=2),
    chat("missing-role", [{"content": "a"}], [{"role": 1, "content": "a"}], role_missing=2),
    chat("content-no-string", turns(None, "a"), turns("a", 1), turns(["a"], "b"), content_missing=3),
    chat("content-blank", turns("a", " "), content_blank=1),
    chat("content-control-characters", turns("a", "\x1b[1m"), content_control_characters=1),
    chat("no-list-of-turns", "a", 1, None, {"role": "user"}, ["a", "b"], conversations_missing=5),
    chat("tool-call-no-json", [*turns("a"), {"role": "assistant", "content": "", "tool_calls": "{no"}],
         tool_calls_invalid=1),
]  # fmt: skip
BROKEN_FILES = [*ENDINGS, *BYTES, *SHAPES, *CONTAINERS, *CONVERSATIONS]
