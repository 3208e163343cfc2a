"""Homes that cannot be, users whom the machine does not know, and commands that write nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.test_command_line import ROOT, environment
from tests.tiny_recipe import tiny_content, write_sources

COMMANDS = [["demo"], ["find-lr", "demo"], ["sweep", "demo", "--over", "pretrain.optim.peak_lr=0.1,0.2"], ["rollback"]]
QUESTIONS = [["why-row", "nobody"], ["who-ate", "champion"], ["quarantine"]]


def ended(words: list[str], home: Path, folder: Path, module: str = "flows") -> tuple[int, str]:
    """Exit code and what a call says, from a folder that is not the project's."""
    done = subprocess.run(
        [sys.executable, "-m", module, *words], cwd=folder, env=environment(home) | {"PYTHONPATH": str(ROOT)},
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


@pytest.mark.parametrize("words", COMMANDS[:3], ids=lambda words: words[0])
def test_a_dry_run_writes_nothing(words: list[str], tmp_path: Path) -> None:
    folder, home = tmp_path / "elsewhere", tmp_path / "home"
    folder.mkdir()
    content = tiny_content(write_sources(tmp_path / "raw"))
    small = [f"--set=model={content['model']}", f"--set=pretrain.num_tokens={content['pretrain']['num_tokens']}"]
    before = tree(tmp_path)
    code, said = ended([*words, *small, "--dry-run"], home, folder)
    assert code == 0, said
    assert tree(tmp_path) == before
