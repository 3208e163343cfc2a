"""A look at sources says what is there and what is not, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.recipes.stage_configs import SourceConfig
from tasks.sources.presence import look_at_sources

BESIDE = "; {there} holds a.jsonl, b.jsonl; correct the location, or bring the files"


@pytest.mark.parametrize(
    ("location", "said", "is_gone"),
    [
        ("{there}/*.jsonl", "2 files, 6 B", False),
        ("{there}/a.jsonl", "1 file, 3 B", False),
        ("{there}/none-*.jsonl", f"nothing found at {{there}}/none-*.jsonl{BESIDE}", True),
        ("{there}/gone.jsonl", f"nothing found at {{there}}/gone.jsonl{BESIDE}", True),
        ("builtin:chat-english", "built in", False),
        ("builtin:nope", "nothing found: there is no builtin:nope", True),
        ("hub:owner/name", "hub:owner/name (remote, not looked at)", False),
        ("https://example.org/rows.jsonl", "https://example.org/rows.jsonl (remote, not looked at)", False),
    ],
)
def test_what_is_there_of_a_source(location: str, said: str, is_gone: bool, tmp_path: Path) -> None:
    there, home = tmp_path / "there", tmp_path / "home"
    there.mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (there / name).write_text("{}\n")
    source = SourceConfig(name="text", kind="pretrain", location=location.format(there=there))
    assert list(look_at_sources([source], home)) == [(source, said.format(there=there), is_gone)]
    assert not home.exists()
