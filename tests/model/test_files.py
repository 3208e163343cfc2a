"""What is written is whole or as it was, and is on the disk before it takes its name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from model.files import atomic_write, made_once, publish_folder, sha256_of, write_json, write_text


@pytest.fixture
def disk_events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Flushes and renames, in the order in which the operating system is asked for them."""
    events: list[str] = []
    fsync = os.fsync

    def flush(descriptor: int) -> None:
        events.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def recorded(rename: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def renamed(path: Path, target: Path) -> Path:
            events.append(f"rename {path.name} {target.name}")
            return rename(path, target)

        return renamed

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(Path, "rename", recorded(Path.rename))
    monkeypatch.setattr(Path, "replace", recorded(Path.replace))
    return events


def test_json_reads_back_in_a_folder_that_was_not_there(tmp_path: Path) -> None:
    content = {"a": [1, 2.5, None], "b": "好"}
    write_json(tmp_path / "notes" / "night.json", content)
    assert json.loads((tmp_path / "notes" / "night.json").read_text(encoding="utf-8")) == content
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["night.json"]


def test_a_write_that_ends_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    note = tmp_path / "night.json"
    write_json(note, {"version": 1})
    with pytest.raises(KeyboardInterrupt), atomic_write(note) as temporary:
        temporary.write_text('{"vers')
        raise KeyboardInterrupt
    assert json.loads(note.read_text()) == {"version": 1}
    assert list(tmp_path.iterdir()) == [note]


def test_what_a_killed_writer_left_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = tmp_path / "night.txt"
    with monkeypatch.context() as killed:
        killed.setattr(Path, "replace", lambda path, target: target)
        write_text(note, "a long first version")
    assert not note.exists()
    assert len(list(tmp_path.iterdir())) == 1
    write_text(note, "二")
    assert note.read_bytes() == "二".encode()
    assert list(tmp_path.iterdir()) == [note]


def test_a_file_is_on_the_disk_before_it_takes_its_name(tmp_path: Path, disk_events: list[str]) -> None:
    write_text(tmp_path / "notes" / "a.txt", "a")
    assert disk_events == ["fsync .a.txt.partial", "rename .a.txt.partial a.txt", "fsync notes"]


def test_a_file_is_made_once(tmp_path: Path) -> None:
    path, made = tmp_path / "downloads" / "rows.jsonl", []

    def make(temporary: Path) -> None:
        made.append(temporary)
        temporary.write_text("{}")
        if len(made) == 1:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        made_once(path, make)
    assert not path.exists()
    for _ in range(3):
        assert made_once(path, make) == path
    assert path.read_text() == "{}"
    assert len(made) == 2


def test_a_folder_is_on_the_disk_with_all_that_is_in_it_before_it_takes_its_name(
    tmp_path: Path, disk_events: list[str]
) -> None:
    working, final = tmp_path / "stage.partial", tmp_path / "stage"
    for folder in (working / "parts", final):
        folder.mkdir(parents=True)
    (working / "record.json").touch()
    (working / "parts" / "0.ids").touch()
    (final / "damaged").touch()
    publish_folder(working, final)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {
        "stage", "stage/record.json", "stage/parts", "stage/parts/0.ids",
    }  # fmt: skip
    assert sorted(disk_events[:4]) == [f"fsync {name}" for name in ("0.ids", "parts", "record.json", "stage.partial")]
    assert disk_events[4:] == ["rename stage.partial stage", f"fsync {tmp_path.name}"]


def test_a_file_s_checksum_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert sha256_of(tmp_path / "abc") == expected
