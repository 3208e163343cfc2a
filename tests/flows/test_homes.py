"""Homes that cannot be, users whom the machine does not know, and commands that write nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.test_command_line import ROOT, environment
from tests.tiny_recipe import tiny_content, write_sources

IN_ONE_PROCESS = """
import json, sys
import pytest
from flows.__main__ import main
from tests.shortcuts import probe_briefly

with pytest.MonkeyPatch.context() as patch:
    probe_briefly(patch)
    print("codes", [main(words) for words in json.loads(sys.argv[1])])
"""
COMMANDS = [["demo"], ["find-lr", "demo"], ["sweep", "demo", "--over", "pretrain.optim.peak_lr=0.1,0.2"], ["rollback"]]
QUESTIONS = [["why-row", "nobody"], ["who-ate", "champion"], ["quarantine"]]


def ended(words: list[str], home: Path, folder: Path, module: str = "flows") -> tuple[int, str]:
    """Exit code and what a call says, from a folder that is not the project's."""
    return python(["-m", module, *words], home, folder)


def python(words: list[str], home: Path, folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment(home) | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("words", [*COMMANDS, *QUESTIONS], ids=lambda words: words[0])
def test_a_home_that_is_a_file_is_one_message(words: list[str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("a file")
    code, said = ended(words, home, tmp_path)
    assert (code, "Traceback" in said) == (2, False), said
    assert len(said) < 1_600
    assert home.read_text() == "a file"


def test_the_services_say_so_too(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("a file")
    assert ended(["up"], home, tmp_path, "tasks.services") == (
        2,
        f"\nthe home {home} cannot be made: it is a file; set NIGHTSCHOOL_HOME to a folder that is there or can be "
        "made\n",
    )  # fmt: skip
    code, said = ended(["down"], home, tmp_path, "tasks.services")
    assert (code, "Traceback" in said) == (0, False)


def test_dry_runs_write_nothing(tmp_path: Path) -> None:
    """Nor do the libraries that a process loads for them."""
    folder, home = tmp_path / "elsewhere", tmp_path / "home"
    folder.mkdir()
    content = tiny_content(write_sources(tmp_path / "raw"))
    small = [f"--set=model={content['model']}", f"--set=pretrain.num_tokens={content['pretrain']['num_tokens']}"]
    before = tree(tmp_path)
    dry = [[*words, *small, "--dry-run"] for words in COMMANDS[:3]]
    code, said = python(["-c", IN_ONE_PROCESS, json.dumps(dry)], home, folder)
    assert code == 0 and "codes [0, 0, 0]" in said, said
    assert tree(tmp_path) == before
