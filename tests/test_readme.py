"""The README's commands exist and mean what it says; both languages name the same ones."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flows.__main__ import main

ROOT = Path(__file__).resolve().parent.parent
READMES = ("README.md", "README.zh-CN.md")
PAIRS = [
    ("README.md", "README.zh-CN.md"),
    *((f"docs/{n}.md", f"docs/zh/{n}.md") for n in ("data-format", "model-in-20-lines", "operations", "techniques")),
]


def commands(readme: str) -> list[str]:
    """Lines of the bash blocks."""
    blocks = re.findall(
        r"^```bash\n(.*?)^```", (ROOT / readme).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_both_languages_give_the_same_commands() -> None:
    assert commands(READMES[0]) == commands(READMES[1])
    assert {"make run", "make test", "make up", "make down"} <= set(commands(READMES[0]))


def prepared(command: str) -> list[str]:
    """The command in a form that checks it and changes nothing."""
    words = shlex.split(command)
    if words[0] == "make":
        return [*words, "--dry-run"]
    program = words[0].removeprefix(".venv/bin/")
    words[0] = str(Path(sys.executable).with_name(program))
    if program == "prefect":
        return [*(word for word in words if not word.startswith("retrain-nightly/")), "--help"]
    of_nights = ("quarantine", "why-row", "who-ate", "replay", "nights", "lineage", "registry")
    if words[3] in of_nights:  # and the home has none
        return [*words[:4], "--help"]
    assert "--dry-run" in words, f"{command} would train"
    return words


@pytest.mark.parametrize("command", commands("README.md"))
def test_a_readme_command_works(command: str, home: Path, brief_probes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    words = prepared(command)
    if words[1:3] == ["-m", "flows"] and "--help" not in words:  # loading what a plan needs takes seconds each time
        monkeypatch.chdir(ROOT)
        assert main(words[3:]) == 0
        return
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", sorted({*READMES, *(name for pair in PAIRS for name in pair), "docs/architecture.md"}))
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{page} links to {target}"


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_the_chinese_page_keeps_step(english: str, chinese: str) -> None:
    """Same headings, tables, code and numbers of lines in tables: a page that fell behind shows."""
    pages = [(ROOT / name).read_text(encoding="utf-8").splitlines() for name in (english, chinese)]
    for marker in ("#", "|", "    ", "```"):
        first, second = (sum(line.startswith(marker) for line in page) for page in pages)
        assert first == second, f"{english} has {first} lines with {marker!r}, {chinese} has {second}"


def test_the_tree_in_the_architecture_page_is_the_tree() -> None:
    """Every folder is there, and every file that stands beside folders."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for package in ("flows", "tasks", "data", "schemas", "model"):
        section = re.search(rf"^    {package}/ .*?(?=^    \w|^$)", text, flags=re.DOTALL | re.MULTILINE)
        assert section is not None
        folders = {path.parent for path in (ROOT / package).rglob("*.py")} - {ROOT / package}
        named_folders = set(re.findall(r"^ {6,8}(\w+)/ ", section.group(), flags=re.MULTILINE))
        assert named_folders == {folder.name for folder in folders}, package
        loose = {path.name for path in (ROOT / package).glob("*.py")} - {"__init__.py"}
        assert set(re.findall(r"\b(\w+\.py)\b", section.group())) == (loose if folders else set()), package
