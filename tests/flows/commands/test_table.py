"""One help page lists every command and recipe, each has its own, and any error of a command ends with its code."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flows import __main__
from flows.__main__ import main
from flows.commands.table import COMMANDS, Command
from tasks.errors import Diverged, Interrupted, NightBusy, NightStopped
from tasks.recipes import deployments
from tasks.recipes.deployments import recipe_descriptions

ROOT = Path(__file__).resolve().parents[3]
LARGE = {"prefect", "torch", "mlflow", "pandera", "pydantic"}


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The page that a call prints before it exits with code 0, its words a blank apart."""
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_one_page_lists_every_command_and_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(["--help"], capsys)
    for command in COMMANDS:
        assert f"{command.name} {command.help}" in text
    for name, description in recipe_descriptions().items():
        assert f"{name} run this recipe: {description}" in text


@pytest.mark.parametrize("name", [*recipe_descriptions(), *(command.name for command in COMMANDS)])
def test_the_page_of_a_command_explains_every_option(
    name: str, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    text = printed([name, "--help"], capsys)
    assert text.startswith(f"usage: python -m flows {name} [-h]")
    for option in set(re.findall("--[a-z-]+", text)) - {"--help"}:
        assert text.count(option) >= 2, f"{option} is in the usage and explained"
    assert not home.exists()


def test_no_page_waits_for_a_large_library() -> None:
    check = (
        "import sys; from flows.__main__ import main\n"
        "for words in (['--help'], ['demo', '--help'], ['sweep', '--help']):\n"
        "  try: main(words)\n"
        f"  except SystemExit: assert not {LARGE!r} & set(sys.modules), words\n"
    )
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


def test_a_recipe_cannot_have_the_name_of_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prefect.yaml"
    entries = [{"name": name, "entrypoint": deployments.ENTRYPOINT, "description": "all of 100%"} for name in "ab"]
    path.write_text(json.dumps({"deployments": entries}))
    monkeypatch.setattr(deployments.recipe_descriptions, "__defaults__", (path,))
    assert "a run this recipe: all of 100% b run this recipe" in printed(["--help"], capsys)
    path.write_text(json.dumps({"deployments": [*entries, entries[0] | {"name": "sweep"}]}))
    assert main(["a"]) == 2
    assert "has a recipe 'sweep', which is the name of a command" in capsys.readouterr().err


def test_the_hint_repeats_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.orig_argv", [".venv/bin/python", "-m", "flows", "demo", "--set", "a.b=c d"])
    assert __main__.typed(["demo", "--set", "a.b=c d"]) == ".venv/bin/python -m flows demo --set 'a.b=c d'"
    assert __main__.typed(["other"]) == "python -m flows other"


@pytest.mark.parametrize("only_reads", [True, False])
@pytest.mark.parametrize("error", [NightStopped, Diverged, NightBusy, Interrupted, KeyboardInterrupt])
def test_an_error_ends_with_its_code_and_says_how_to_go_on(
    error: type[BaseException],
    only_reads: bool,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(arguments: object) -> int:
        raise error("the reason")

    monkeypatch.setattr(__main__, "show_log_lines", lambda: None)
    failing = Command(name="fail", help="fail", run=fail, only_reads=only_reads)
    monkeypatch.setattr(__main__, "parse", lambda words: (failing, None))
    assert main(["fail", "--with", "a blank"]) == getattr(error, "exit_code", 130)
    message = capsys.readouterr().err
    assert ("the reason" in message) == issubclass(error, NightStopped)
    goes_on = error is Interrupted or (error is KeyboardInterrupt and not only_reads)
    assert ("Run the same again" in message) == goes_on
    assert ("python -m flows fail --with 'a blank'" in message) == goes_on
    assert home.exists() == (not only_reads)


def test_a_dry_run_that_is_interrupted_leaves_nothing_to_go_on_with(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(__main__, "show_log_lines", lambda: None)
    command = Command(name="demo", help="demo", run=interrupt)
    monkeypatch.setattr(__main__, "parse", lambda words: (command, argparse.Namespace(dry_run=True)))
    assert main(["demo", "--dry-run"]) == 130
    assert "Run the same again" not in capsys.readouterr().err
    assert not home.exists()


SAYS_MUCH = """
import sys
from flows import __main__
from flows.commands.table import Command

def say(arguments):
    for number in range(100_000):
        print(number)
    raise SystemExit("nobody reads any more")

__main__.parse = lambda words: (Command(name="say", help="say", run=say, only_reads=True), None)
sys.exit(__main__.main(["say"]))
"""


def test_a_command_whose_reader_has_left_is_done(home: Path) -> None:
    call = f"{shlex.quote(sys.executable)} -c {shlex.quote(SAYS_MUCH)} | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", call], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
    assert not home.exists()


def test_another_pipe_that_broke_is_no_reader(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: object) -> int:
        raise BrokenPipeError(32, "a rank is gone")

    monkeypatch.setattr(__main__, "parse", lambda words: (Command(name="x", help="x", run=fail, only_reads=True), None))
    assert main(["x"]) == 1
    assert "a rank is gone" in capsys.readouterr().err
