"""`python -m flows` as a person uses it: in a process of its own, with its own embedded server, off the network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.__main__ import main
from flows.commands.nights import resolved_recipe
from model.files import write_json
from tasks.errors import MESSAGE_LIMIT
from tasks.home.contents.pretrained import READING, TRUNK
from tasks.home.digests import plain
from tasks.home.trunk import Start, Trunk
from tests.shortcuts import with_databases
from tests.tasks.rows import stage_record
from tests.tiny_recipe import tiny_content, write_sources

ROOT = Path(__file__).resolve().parent.parent.parent


def settings_for(content: dict[str, Any], prefix: str = "") -> list[str]:
    """The tiny recipe as --set arguments on top of a named one."""
    arguments: list[str] = []
    for key, value in content.items():
        if isinstance(value, dict):
            arguments += settings_for(value, f"{prefix}{key}.")
        else:
            arguments += ["--set", f"{prefix}{key}={json.dumps(value)}"]
    return arguments


def tiny_arguments(folder: Path, **sources: Path) -> list[str]:
    paths = write_sources(folder) | sources
    return ["demo", *settings_for(tiny_content(paths))]


def environment(home: Path) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "NIGHTSCHOOL_"))}
    return clean | {"NIGHTSCHOOL_HOME": str(home), "OMP_NUM_THREADS": "1"}


def squeezed(text: str) -> str:
    """Columns a blank apart, however wide they are."""
    return " ".join(text.split())


def flows(arguments: list[str], home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment(home) | more, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture
def at_tests_server(prefect_server: None) -> dict[str, str]:
    """Environment of a process that starts no server of its own."""
    from prefect.settings import PREFECT_API_URL

    return {"PREFECT_API_URL": str(PREFECT_API_URL.value())}


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return tiny_arguments(tmp_path_factory.mktemp("raw"))


def test_the_whole_chain_of_a_recipe_in_a_file_asks_nobody_outside_this_machine(tmp_path: Path) -> None:
    """Every Python process of the chain has the guard loaded: Prefect's server and what makes the databases, too."""
    recipe = tmp_path / "mine.yaml"
    write_sources(tmp_path / "raw")
    relative = {"text": Path("raw/text.jsonl"), "chat": Path("raw/chat.jsonl")}
    recipe.write_text(json.dumps(tiny_content(relative) | {"name": "mine"}))
    denied = tmp_path / "denied"
    denied.touch()
    guard = {"PYTHONPATH": str(ROOT / "tests" / "deny"), "DENIED_SOCKETS": str(denied)}
    done = flows(["--recipe", str(recipe)], tmp_path / "home", **guard)
    assert done.returncode == 0, done.stderr[-3000:]
    assert denied.read_text() == ""
    assert "PROMOTED  version 1" in done.stdout
    assert "Where to look" in done.stdout
    assert done.stdout.count("assistant  ") == 1
    probe = "import socket; socket.create_connection(('198.51.100.1', 80))"
    caught = subprocess.run([sys.executable, "-c", probe], env=os.environ | guard, capture_output=True, check=False)
    assert caught.returncode != 0
    assert "198.51.100.1" in denied.read_text()


def test_bad_data_ends_with_code_2_and_one_message(
    arguments: list[str], tmp_path: Path, shared_folder: Path, at_tests_server: dict[str, str]
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "good"}\n' + '{"wrong": "key"}\n' * 30)
    named = [f"sources.0.location={bad}"]
    home = with_databases(tmp_path / "home", shared_folder)
    done = flows([*arguments, "--set", *named], home, **at_tests_server)
    assert done.returncode == 2
    assert "lines are bad" in done.stderr
    assert "text_missing" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.count("max_bad_share") == 1


def test_ctrl_c_keeps_the_state_and_the_same_command_goes_on(
    arguments: list[str], tmp_path: Path, shared_folder: Path
) -> None:
    home = with_databases(tmp_path / "home", shared_folder)
    longer = [*arguments, "--set", "pretrain.num_tokens=60000"]
    command = [sys.executable, "-m", "flows", *longer]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(home), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        text=True, start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if "pretrain step" in squeezed(line):
            os.killpg(process.pid, signal.SIGINT)  # what a terminal does: the whole group is told
            break
    said += process.stderr.readlines()
    assert process.wait(timeout=60) == 130, "".join(said)[-3000:]
    text = "".join(said)
    assert "the checkpoint is saved" in text
    assert "Run the same again" in text
    assert "Traceback" not in text
    done = flows([*longer, "--set", "sft.num_tokens=2000"], home)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "pretrain goes on at step" in squeezed(done.stderr)
    assert "validate reused" in squeezed(done.stderr)


def test_a_source_without_a_file_ends_with_code_2(
    tmp_path: Path, shared_folder: Path, at_tests_server: dict[str, str]
) -> None:
    home = with_databases(tmp_path / "home", shared_folder)
    done = flows(["demo", "--set", "sources.0.location=/no/such/file.jsonl"], home, **at_tests_server)
    assert done.returncode == 2
    assert "source conversations: nothing found at /no/such/file.jsonl" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (["nope"], "no recipe or command 'nope'\n  recipes: demo, small, nightly, minimind-moe"),
        (["dmeo"], "no recipe or command 'dmeo'; did you mean demo?"),
        (["sweeep", "demo"], "no recipe or command 'sweeep'; did you mean sweep?"),
        (["x" * 90_000], "no recipe or command 'xxx"),
        (["demo", "--set", "pretrain.lr=1"], "no setting 'pretrain.lr': 'lr' is none of num_tokens"),
        (["demo", "--set", "model.num_experts_per_tok=1"], "the router would never learn"),
        (["demo", "--set", "pretrain"], "--set takes key.path=value, not 'pretrain'"),
        (["demo", "--set", "twin=true", "--set", "model.dense=true"], "a dense model is its own twin"),
        (["find-lr", "nope"], "no recipe 'nope'; prefect.yaml has demo, small, nightly, minimind-moe"),
        (["find-lr", "smal"], "did you mean small?"),
        (["quarantine", "--set", "pretrain.num_tokens=1"], "--set changes the rules of a recheck; add --recheck"),
        (["find-lr", "demo", "--lr-min", "2"], "lr_min (2.0) must be below lr_max (1.0)"),
        (["sweep", "demo", "--over", "split.salt=a,b"], "only settings of pretrain and model are swept"),
        (["sweep", "demo", "--over", "pretrain.optim.peak_lr"], "--over takes key.path=value,value"),
        (["sweep", "demo", "--over", "model.num_experts_per_tok=2,9"], "must be at most num_experts"),
        (
            ["promote", "tiny"],
            "the number of the version is missing: python -m flows promote tiny VERSION; python -m flows registry tiny",
        ),
        (
            ["promote", "tiny", "abc"],
            "'abc' is no version number: python -m flows promote tiny VERSION; python -m flows registry tiny lists",
        ),
        (["promote", "tiny", "0"], "'0' is no version number"),
        (["promote", "tiny", "-1"], "'-1' is no version number"),
        (["promote", "tiny", "²"], "'²' is no version number"),
        (["promote", "tiny", "9" * 5_000], "is no version number"),
    ],
)
def test_mistakes_end_with_code_2_and_say_the_cure(
    mistake: list[str], said: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(mistake) == 2
    message = capsys.readouterr().err
    assert said in message
    assert len(message) < MESSAGE_LIMIT + 10
    assert not (home / "data").exists()


@pytest.mark.parametrize("wrong", [["promote"], ["demo", "3"], [], ["sweep", "demo"], ["--nope"]])
def test_a_wrong_call_shows_the_usage(wrong: list[str], home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(wrong)
    assert stop.value.code == 2
    assert "usage: python -m flows" in capsys.readouterr().err


def test_promoting_by_hand_without_a_model_says_so(
    home: Path, at_tests_server: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", at_tests_server["PREFECT_API_URL"])
    for words, said in (
        (["rollback"], "no recipe has a registered model yet"),
        (["promote", "7"], "no recipe has a registered model yet"),
        (["rollback", "demo"], "no previous champion of nightschool-demo"),
        (["promote", "demo", "7"], "no version 7 of nightschool-demo"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err


def test_a_dry_run_says_what_it_will_cost_and_starts_nothing(
    arguments: list[str], home: Path, brief_probes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--dry-run"]) == 0
    said = capsys.readouterr().out
    for part in ("num_tokens: 3072", "twin: false", "parameters", "active", "12 steps of 256 tokens", "memory", "disk"):
        assert part in said
    assert "source text: 1 file" in said
    assert not (home / "data").exists()
    assert not (home / "mlflow").exists()
    assert main([*arguments, "--set", "sources.1.location=/no/such/file", "--dry-run"]) == 2
    assert "nothing of source talk" in capsys.readouterr().err


def test_a_dry_run_says_what_the_night_begins_with_and_that_nothing_new_is_skipped(
    arguments: list[str], home: Path, brief_probes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--dry-run"]) == 0
    first = squeezed(capsys.readouterr().out)
    assert "start pretraining from scratch: no night of this recipe has left a trunk here; tonight 3,072 token" in first
    assert "Skipped" not in first

    recipe = resolved_recipe("demo", None, arguments[2::2])
    folder = home / "data" / "pretrain@one"
    (folder / TRUNK).mkdir(parents=True)
    write_json(folder / READING, {"nights": 1})
    stage_record(folder, config={"model": plain(recipe.model), "train": plain(recipe.pretrain)}).write(folder)
    begun = Start(how="scratch", reason="from scratch")
    Trunk(folder="pretrain@one", night="one", data="rows", start=begun).write(home, "tiny")
    write_json(home / "nights" / "tiny@one.json", {"key": "one", "stages": {"pretrain": "pretrain@one"}, "ended": True})
    for more, tokens, steps in (
        ([], "3,072", "12 steps"),
        (["--set", "pretrain.night_tokens=1280"], "1,280", "5 steps"),
        (["--set", "pretrain.night_minutes=0.001"], "", ""),
    ):
        assert main([*arguments, *more, "--dry-run"]) == 0
        said = squeezed(capsys.readouterr().out)
        assert f"start pretraining goes on with the trunk of pretrain@one; tonight {tokens}" in said
        assert f"pretrain {steps}" in said
        assert "this one ends as Skipped within seconds; --again does it all the same" in said
    assert main([*arguments, "--set", "model.hidden_size=64", "--again", "--dry-run"]) == 0
    other = squeezed(capsys.readouterr().out)
    assert "from scratch: the model is another one than pretrain@one has (hidden_size)" in other
    assert "Skipped" not in other


def test_a_trial_says_what_it_will_cost_before_it_starts(
    arguments: list[str], home: Path, brief_probes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["find-lr", *arguments, "--steps", "30", "--dry-run"]) == 0
    assert "30 steps of 256 tokens" in capsys.readouterr().out
    over = ["--over", "pretrain.optim.peak_lr=0.01,0.02", "--over", "model.num_experts_per_tok=2,3"]
    assert main(["sweep", *arguments, *over, "--share", "0.5", "--seeds", "3", "--dry-run"]) == 0
    assert "4 settings with 3 seeds each, 12 trainings of 6 steps, 50% of pretraining" in capsys.readouterr().out
    assert not (home / "data").exists()
    assert not (home / "mlflow").exists()
