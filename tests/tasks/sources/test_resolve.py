"""A location becomes pieces of files with the digest of their bytes, in a fixed order, or a clear refusal."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import fsspec
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from schemas.files.reader import read_chunks
from schemas.jsonl import parse_chunk
from tasks.errors import NightStopped
from tasks.recipes.stage_configs import SourceConfig
from tasks.sources.builtin import MAKERS
from tasks.sources.resolve import LocatedPiece, resolve
from tests.tasks.serving import Served, closed_port, serve

BODY = b'{"text": "hello"}\n'


def source(location: object, name: str = "mine") -> SourceConfig:
    return SourceConfig(name=name, kind="pretrain", location=str(location))


def found(location: object, home: Path) -> list[LocatedPiece]:
    """Pieces of one source, a whole file each; that each digest is of the file's bytes is checked always."""
    resolved = resolve([source(location)], home)
    assert resolved.set_aside == []
    for located in resolved.pieces:
        assert located.piece.digest == hashlib.sha256(located.path.read_bytes()).hexdigest()
        assert located.piece.label == f"mine/{located.path.name}"
        assert located.path.is_absolute()
        assert (located.piece.start, located.piece.first_line) == (0, 1)
        assert located.piece.end == (None if located.path.suffix == ".gz" else located.path.stat().st_size)
    return list(resolved.pieces)


def refusal(location: object, home: Path) -> str:
    with pytest.raises(NightStopped) as stop:
        found(location, home)
    assert "source mine: " in str(stop.value)
    assert "Traceback" not in str(stop.value)
    return str(stop.value)


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(BODY + json.dumps({"text": name}).encode())
    return folder


def test_a_path_is_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.jsonl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for location in (tmp_path / "a.jsonl", "a.jsonl", "~/a.jsonl"):
        [file] = found(location, tmp_path)
        assert file.path.samefile(tmp_path / "a.jsonl")


def test_a_pattern_is_its_files_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*(f"{number * 7 % 20}.jsonl" for number in range(20)), ".hidden.jsonl"]
    write(tmp_path / "data", *names, "c.txt", "deep/d.jsonl")
    monkeypatch.chdir(tmp_path)
    for pattern in (tmp_path / "data" / "*.jsonl", "data/*.jsonl", "d?ta/*.jsonl"):
        assert [f.path.name for f in found(pattern, tmp_path)] == sorted(names)
    assert [f.path.name for f in found("data/**/d.jsonl", tmp_path)] == ["d.jsonl"]
    write(tmp_path / "odd[1]", "a.jsonl")
    monkeypatch.chdir(tmp_path / "odd[1]")
    for location in (tmp_path / "odd[1]" / "a.jsonl", "a.jsonl", "*.jsonl"):
        assert [f.path.name for f in found(location, tmp_path)] == ["a.jsonl"]


def test_sources_keep_their_order(tmp_path: Path) -> None:
    write(tmp_path, "z.jsonl", "a.jsonl")
    sources = [source(tmp_path / "z.jsonl", "first"), source(tmp_path / "*.jsonl", "second")]
    files = resolve(sources, tmp_path).pieces
    assert [file.piece.label for file in files] == ["first/z.jsonl", "second/a.jsonl", "second/z.jsonl"]
    assert [file.source for file in files] == [sources[0], sources[1], sources[1]]


def test_a_compressed_file_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(BODY))
    [file] = found(path, tmp_path)
    assert file.path == path


def test_builtin_files_are_those_of_the_corpus(corpus: Path) -> None:
    home = corpus.parents[1]
    for name in MAKERS:
        [file] = found(f"builtin:{name}", home)
        assert file.path == corpus / f"{name}.jsonl"


def test_an_unknown_builtin_is_told_the_known_ones(tmp_path: Path) -> None:
    told = refusal("builtin:chat-klingon", tmp_path)
    assert "'chat-klingon'" in told
    assert all(name in told for name in MAKERS)
    assert not (tmp_path / "corpus").exists(), "a misspelt name must not cost a build"


def test_files_of_one_name_have_labels_that_tell_them_apart(tmp_path: Path) -> None:
    write(tmp_path, "x/day/a.jsonl", "y/day/a.jsonl", "y/night/a.jsonl", "y/night/b.jsonl")
    files = resolve([source(tmp_path / "**" / "*.jsonl")], tmp_path).pieces
    expected = ["mine/x/day/a.jsonl", "mine/y/day/a.jsonl", "mine/night/a.jsonl", "mine/b.jsonl"]
    assert [file.piece.label for file in files] == expected


def test_a_file_that_cannot_be_read_is_told_and_the_others_are_taken(tmp_path: Path) -> None:
    write(tmp_path, *(f"{n}.jsonl" for n in range(9)))
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "link.jsonl").symlink_to("gone.jsonl")
    resolved = resolve([source(tmp_path / "*.jsonl")], tmp_path)
    assert [located.piece.label for located in resolved.pieces] == [f"mine/{n}.jsonl" for n in range(9)]
    assert [d.label for d in resolved.unreadable] == ["mine/folder.jsonl", "mine/link.jsonl"]
    assert resolved.unreadable[0].reason == "a folder, not a file; name its files, as in folder.jsonl/*.jsonl"
    assert resolved.unreadable[1].reason == "a link to gone.jsonl, which is not there"
    assert resolved.set_aside == [(d.label, d.reason) for d in resolved.unreadable]


@pytest.mark.parametrize("location", ["nowhere.jsonl", "*.nothing", ""])
def test_nothing_found_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"nothing found at {location}" in refusal(location, tmp_path)


def test_a_location_without_a_file_says_what_is_beside_it(tmp_path: Path) -> None:
    told = refusal(tmp_path / "deep" / "er" / "*.jsonl", tmp_path)
    assert told.endswith(f"er/*.jsonl; {tmp_path} is empty; correct the location, or bring the files")
    write(tmp_path, *(f"{n}.txt" for n in range(6)))
    told = refusal(tmp_path / "*.jsonl", tmp_path)
    assert f"{tmp_path} holds 0.txt, 1.txt, 2.txt, 3.txt and 2 more; correct" in told


def test_a_broken_table_says_what_helps(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl")
    for name in ("b.parquet", "c.arrow"):
        (tmp_path / name).write_bytes(b"PAR1 and no more")
    for file in resolve([source(tmp_path / "*.*")], tmp_path / "home").unreadable:
        kind = file.label.partition(".")[2]
        assert file.reason.startswith(f"it is cut off, or no {kind} file (")
        assert file.reason.endswith("); bring it anew, or name it after what it is")


def test_one_source_without_a_file_stops_all(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl")
    with pytest.raises(NightStopped, match="source empty: nothing found"):
        resolve([source(tmp_path / "a.jsonl"), source(tmp_path / "b.jsonl", "empty")], tmp_path)


@pytest.fixture
def served() -> Iterator[Served]:
    with serve() as server:
        yield server


def test_a_file_of_the_web_is_brought_once(served: Served, tmp_path: Path) -> None:
    served.files["/data/a.jsonl"] = BODY
    one = found(f"{served.url}/data/a.jsonl", tmp_path)
    other = found(f"{served.url}/data/a.jsonl", tmp_path)
    assert one == other
    assert served.sent == ["/data/a.jsonl"]
    [file] = one
    assert file.path.read_bytes() == BODY
    assert file.path.name == "a.jsonl"
    assert file.path.is_relative_to(tmp_path)


def test_a_file_of_the_web_that_changed_is_brought_again(served: Served, tmp_path: Path) -> None:
    """Nightly data appears under the same address every night."""
    served.files["/a.jsonl"] = BODY
    found(f"{served.url}/a.jsonl", tmp_path)
    served.files["/a.jsonl"], served.changed = BODY * 2, 60
    [file] = found(f"{served.url}/a.jsonl", tmp_path)
    assert file.path.read_bytes() == BODY * 2


def test_files_of_one_name_in_two_places_are_two(served: Served, tmp_path: Path) -> None:
    served.files |= {"/one/a.jsonl": BODY, "/two/a.jsonl": BODY * 2}
    sizes = [found(f"{served.url}/{place}/a.jsonl", tmp_path)[0].path.read_bytes() for place in ("one", "two", "one")]
    assert sizes == [BODY, BODY * 2, BODY]


def test_a_compressed_file_of_the_web_is_not_decompressed(served: Served, tmp_path: Path) -> None:
    """Its name says how to read it, so its bytes must stay what the name says."""
    served.files["/a.jsonl.gz"] = gzip.compress(BODY)
    [file] = found(f"{served.url}/a.jsonl.gz", tmp_path)
    assert file.path.suffix == ".gz"
    assert gzip.decompress(file.path.read_bytes()) == BODY


@pytest.mark.parametrize("status", [403, 404, 500])
def test_an_address_that_refuses_stops_the_night(served: Served, tmp_path: Path, status: int) -> None:
    served.files["/a.jsonl"], served.status = BODY, status
    location = f"{served.url}/a.jsonl" if status != 404 else f"{served.url}/b.jsonl"
    assert f"{location} cannot be read" in refusal(location, tmp_path)


def test_an_address_where_nobody_is_stops_the_night(tmp_path: Path) -> None:
    location = f"http://127.0.0.1:{closed_port()}/a.jsonl"
    assert f"{location} cannot be read" in refusal(location, tmp_path)


@pytest.mark.parametrize("location", ["nosuch://host/a.jsonl", "http://[bad/a.jsonl"])
def test_an_address_of_no_kind_stops_the_night(tmp_path: Path, location: str) -> None:
    assert f"{location} cannot be read" in refusal(location, tmp_path)


def test_a_download_that_breaks_off_stops_the_night_and_is_not_used(served: Served, tmp_path: Path) -> None:
    served.files["/a.jsonl"], served.missing_bytes = BODY, 3
    assert "cannot be read" in refusal(f"{served.url}/a.jsonl", tmp_path)
    served.missing_bytes = 0
    [file] = found(f"{served.url}/a.jsonl", tmp_path)
    assert file.path.read_bytes() == BODY


@pytest.fixture
def bucket() -> Iterator[fsspec.AbstractFileSystem]:
    """An object store in memory."""
    filesystem = fsspec.filesystem("memory")
    for name, ending in (("b", b"2"), ("a", b"1")):
        filesystem.pipe_file(f"/bucket/{name}.jsonl", BODY + ending)
    yield filesystem
    filesystem.rm("/bucket", recursive=True)


def test_a_pattern_of_an_object_store_is_its_files_in_order(bucket: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    files = found("memory://bucket/*.jsonl", tmp_path)
    assert [file.path.name for file in files] == ["a.jsonl", "b.jsonl"]
    assert [file.path.read_bytes() for file in files] == [BODY + b"1", BODY + b"2"]
    assert refusal("memory://bucket/*.txt", tmp_path).endswith(
        "nothing found at memory://bucket/*.txt; correct the address"
    )


def test_only_what_changed_in_an_object_store_is_brought(bucket: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    before = {f.path.name: f.path.stat().st_ino for f in found("memory://bucket/*.jsonl", tmp_path)}
    bucket.pipe_file("/bucket/b.jsonl", BODY * 2)
    files = {file.path.name: file.path for file in found("memory://bucket/*.jsonl", tmp_path)}
    assert files["a.jsonl"].stat().st_ino == before["a.jsonl"]
    assert files["b.jsonl"].read_bytes() == BODY * 2


def test_a_dataset_of_the_hub_becomes_jsonl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the Hub's own library, from a dataset folder on this machine."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "corpus-of-mine"
    data.mkdir()
    rows = [{"text": f"Zeile {n} – ü"} for n in range(3)]
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (data / "test.jsonl").write_text(json.dumps({"text": "held out"}) + "\n")
    for split, expected in (("", rows), (":test", [{"text": "held out"}])):
        for _ in range(2):
            [file] = found(f"hub:{data}{split}", tmp_path)
            assert [json.loads(line) for line in file.path.read_text(encoding="utf-8").splitlines()] == expected
            assert file.path.name == "corpus-of-mine.jsonl"
    assert "cannot be loaded" in refusal(f"hub:{data}:nosuch", tmp_path)


def write_stream(table: pa.Table, path: Path) -> None:
    """As the `datasets` library writes its files."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


WRITERS: dict[str, Callable[[pa.Table, Path], object]] = {
    "a.parquet": lambda table, path: pq.write_table(table, path, row_group_size=700),
    "a.feather": lambda table, path: feather.write_feather(table, str(path)),
    "a.arrow": write_stream,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_becomes_a_line_a_row(tmp_path: Path, name: str) -> None:
    rows = [{"text": f"Zeile {n}\n\u00fc", "turns": [{"role": "user"}] * (n % 3)} for n in range(2_500)]
    WRITERS[name](pa.Table.from_pylist(rows), tmp_path / name)
    [located] = resolve([source(tmp_path / name)], tmp_path).pieces
    assert located.piece.label == f"mine/{name}"
    assert located.piece.digest == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert (located.piece.start, located.piece.end, located.piece.first_line) == (0, None, 1)
    assert [json.loads(line) for line in located.path.read_text(encoding="utf-8").splitlines()] == rows
    inode = located.path.stat().st_ino
    os.utime(tmp_path / name, (1, 1))
    [again] = resolve([source(tmp_path / name)], tmp_path).pieces
    assert (again, again.path.stat().st_ino) == (located, inode), "converted once for the same bytes"
    WRITERS[name](pa.Table.from_pylist(rows[:3]), tmp_path / name)
    [other] = resolve([source(tmp_path / name)], tmp_path).pieces
    assert len(other.path.read_bytes().splitlines()) == 3


def test_a_row_of_a_table_that_is_no_text_is_one_fault_at_its_line(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(pa.string(), 3, [None, *pa.array([b"ab", b"\xff\xfe", b"cd"]).buffers()[1:]])
    bytes_column = pa.array([b"in bytes", b"x", "\u00fc".encode()])
    pq.write_table(pa.table({"text": bad, "n": bytes_column}), tmp_path / "a.parquet")
    [located] = resolve([source(tmp_path / "a.parquet")], tmp_path).pieces
    [chunk] = read_chunks(located.path, 1_000)
    rows, faults = parse_chunk(chunk)
    assert rows == [{"text": "ab", "n": "in bytes"}, None, {"text": "cd", "n": "\u00fc"}]
    assert [(index, fault.rule) for index, fault in faults.items()] == [(1, "not_utf8")]


def test_a_column_that_nobody_reads_need_not_be_text(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(pa.string(), 3, [None, *pa.array([b"ab", b"\xff\xfe", b"cd"]).buffers()[1:]])
    columns = {"text": ["a", "b", "c"], "picture": pa.array([b"\xff\xd8\xff", None, b"ok"]), "note": bad,
               "more": pa.array([{"bytes": b"\x89PNG"}] * 3)}  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    [located] = resolve([source(tmp_path / "a.parquet")], tmp_path).pieces
    [chunk] = read_chunks(located.path, 1_000)
    rows, faults = parse_chunk(chunk)
    assert faults == {}
    assert [row["text"] for row in rows if row] == ["a", "b", "c"]
    assert [str(row["picture"])[:8] for row in rows if row] == ["not text", "None", "ok"]


def test_a_text_of_a_table_that_is_no_utf8_is_quarantined_as_it_stands(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array(["\u4e2d\u6587".encode("gbk")])}), tmp_path / "a.parquet")
    [located] = resolve([source(tmp_path / "a.parquet")], tmp_path).pieces
    assert located.path.read_bytes() == b'{"text":"\xd6\xd0\xce\xc4"}\n'


def test_a_name_that_is_no_utf8_is_the_files_fault(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n')
    (tmp_path / os.fsdecode(b"caf\xe9.jsonl")).write_bytes(b'{"text": "b"}\n')
    found = resolve([source(tmp_path / "*.jsonl")], tmp_path / "home")
    assert [located.piece.label for located in found.pieces] == ["mine/a.jsonl"]
    assert found.set_aside == [("mine/caf\\xe9.jsonl", "its path is no UTF-8; rename it")]
    with pytest.raises(NightStopped, match="rename it"):
        resolve([source(tmp_path / "caf*.jsonl")], tmp_path / "home")


@pytest.mark.parametrize("pattern", ["**/*.jsonl", "**/**/*.jsonl", "d*/**/*.jsonl", "**"])
def test_a_file_is_read_once_by_however_many_links(tmp_path: Path, pattern: str) -> None:
    """Loops of links in every folder, of which a plain walk has more paths than anybody can count."""
    inner = tmp_path / "data" / "deep" / "deeper"
    inner.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far.jsonl").write_bytes(b'{"text": "far"}\n')
    (inner / "z.jsonl").write_bytes(b'{"text": "z"}\n')
    for number, folder in enumerate([tmp_path / "data", inner.parent, inner]):
        for name in ("a-loop", "z-loop"):
            (folder / f"{name}-{number}").symlink_to(tmp_path / "data", target_is_directory=True)
    (tmp_path / "data" / "far").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "data" / "again.jsonl").symlink_to(inner / "z.jsonl")
    (tmp_path / "data" / "twin.jsonl").hardlink_to(inner / "z.jsonl")
    root = tmp_path if pattern.startswith("d") else tmp_path / "data"
    found = resolve([source(root / pattern)], tmp_path / "home")
    assert sorted(located.path.read_bytes() for located in found.pieces) == [b'{"text": "far"}\n', b'{"text": "z"}\n']
    again = [reason for _, reason in found.set_aside if "another path to" in reason]
    assert len(again) == 2


@pytest.mark.parametrize(("suffix", "compress"), [(".bz2", bz2.compress), (".xz", lzma.compress)])
def test_other_compressions_are_read(tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(compress(b'{"text": "a"}\n') + compress(b'{"text": "b"}\n'))
    [located] = resolve([source(path)], tmp_path).pieces
    [chunk] = read_chunks(located.path, 1_000)
    assert chunk.lines == [b'{"text": "a"}', b'{"text": "b"}']
    path.write_bytes(path.read_bytes()[:-5])
    [*_, last] = read_chunks(path, 1_000)
    assert [fault.rule for fault in last.faults.values()] == ["file_unreadable"]


def test_a_table_of_the_web_is_converted(served: Served, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "b.parquet")
    served.files["/b.parquet"] = (tmp_path / "b.parquet").read_bytes()
    [located] = resolve([source(f"{served.url}/b.parquet")], tmp_path).pieces
    assert located.path.read_bytes() == b'{"text":"a"}\n{"text":"b"}\n'
