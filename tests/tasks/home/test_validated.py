"""What the folder of validate says of files that were left out."""

from __future__ import annotations

import json
from pathlib import Path

from tasks.home.contents.validated import MOST_FILES, REPORT, files_left_out


def told_of(folder: Path, num_files: int) -> list[str]:
    set_aside = [(f"books/{number}.jsonl", "its last line is not finished") for number in range(num_files)]
    (folder / REPORT).write_text(json.dumps({"set_aside": set_aside}))
    return files_left_out(folder)


def test_each_file_is_named_with_its_reason_and_many_are_counted(tmp_path: Path) -> None:
    assert told_of(tmp_path, 0) == []
    assert told_of(tmp_path, 1) == ["file books/0.jsonl was left out: its last line is not finished"]
    assert len(told_of(tmp_path, MOST_FILES)) == MOST_FILES
    assert told_of(tmp_path, MOST_FILES + 3)[MOST_FILES:] == ["and 3 more; see the data report"]
