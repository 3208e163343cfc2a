from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.files import write_json


def test_json_reads_back_in_a_folder_that_was_not_there(tmp_path: Path) -> None:
    content = {"a": [1, 2.5, None], "b": "好"}
    write_json(tmp_path / "notes" / "night.json", content)
    assert json.loads((tmp_path / "notes" / "night.json").read_text(encoding="utf-8")) == content
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["night.json"]


def test_a_write_that_ends_half_way_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = tmp_path / "night.json"
    write_json(note, {"version": 1})
    whole = Path.write_text

    def torn(path: Path, text: str, encoding: str) -> None:
        whole(path, text[: len(text) // 2], encoding=encoding)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", torn)
    with pytest.raises(KeyboardInterrupt):
        write_json(note, {"version": 2})
    monkeypatch.undo()
    assert json.loads(note.read_text()) == {"version": 1}
    write_json(note, {"version": 3})
    assert json.loads(note.read_text()) == {"version": 3}
    assert len(list(tmp_path.iterdir())) == 1
