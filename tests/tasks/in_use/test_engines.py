"""Which command an engine is started with, and what is said where it cannot be; one is started and asked."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from pathlib import Path

import pytest

from flows.commands import use
from flows.commands.table import parse
from tasks.errors import NightStopped
from tasks.in_use import engines
from tasks.in_use.engines import ENGINES, LOOPBACK, PORT, engine_command, serve
from tasks.in_use.version import UsableModel
from tasks.tracking.models.mlmodel import MLMODEL
from tests.tasks.serving import closed_port


@pytest.fixture
def model(tmp_path: Path) -> UsableModel:
    (tmp_path / MLMODEL).touch()
    return UsableModel("nightschool-tiny", 3, True, tmp_path)


def programs(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return folder


def test_the_command_line_knows_every_engine_and_listens_on_loopback() -> None:
    assert set(use.ENGINES) == set(ENGINES)
    _, arguments = parse(["serve", "demo"])
    assert (arguments.engine, arguments.host, arguments.port) == ("mlflow", LOOPBACK, PORT)
    with socket.create_server((arguments.host, 0)) as listening:
        assert listening.getsockname()[0].startswith("127.")


def test_an_engine_on_the_path_is_run_by_its_own_command(
    model: UsableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "empty" / "python"))
    monkeypatch.setenv("PATH", str(programs(tmp_path / "bin", *ENGINES)))
    commands = {name: " ".join(engine_command(name, model, "127.0.0.1", 8123)) for name in ENGINES}
    at, folder = tmp_path / "bin", model.folder
    assert commands == {
        "mlflow": f"{at}/mlflow models serve -m {folder} --env-manager local --host 127.0.0.1 --port 8123",
        "transformers": f"{at}/transformers serve {folder} --host 127.0.0.1 --port 8123",
        "vllm": f"{at}/vllm serve {folder} --served-model-name nightschool-tiny --host 127.0.0.1 --port 8123",
    }


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_that_is_missing_is_told_with_its_cure_and_command(
    model: UsableModel, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "empty" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(NightStopped) as stop:
        engine_command(name, model, LOOPBACK, PORT)
    said = str(stop.value)
    assert "not installed here" in said
    assert ENGINES[name].cure in said
    assert re.search(rf"run: {name} .*{re.escape(str(model.folder))} ", said)


def test_an_engine_of_this_environment_without_its_extras_names_them(
    model: UsableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(programs(tmp_path / "own", "transformers") / "python"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "openai" else name)
    with pytest.raises(NightStopped, match=r"lacks openai; to get it: .*transformers\[serving\]"):
        engine_command("transformers", model, LOOPBACK, PORT)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert engine_command("transformers", model, LOOPBACK, PORT)[0] == str(tmp_path / "own" / "transformers")


def test_mlflow_cannot_serve_what_an_earlier_release_registered(model: UsableModel) -> None:
    (model.folder / MLMODEL).unlink()
    with pytest.raises(NightStopped, match=r"version 3, the champion .* an earlier release .* --engine transformers"):
        engine_command("mlflow", model, LOOPBACK, PORT)


def test_a_port_that_is_taken_is_told_before_anything_starts(
    model: UsableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("started"))
    with socket.create_server((LOOPBACK, 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(NightStopped, match=rf"127.0.0.1:{port} cannot be listened on .* another --port"):
            serve(model, "mlflow", LOOPBACK, port)
    for port in (-1, 70_000):
        with pytest.raises(NightStopped, match=f"port {port} is not between"):
            serve(model, "mlflow", LOOPBACK, port)


@pytest.mark.parametrize("name", ENGINES)
def test_the_process_becomes_the_engine_and_says_how_to_ask_it(
    model: UsableModel, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = []
    monkeypatch.setattr(engines, "find_program", lambda program: (f"/bin/{program}", False))
    monkeypatch.setattr(os, "execve", lambda *call: started.append(call))
    port = closed_port()
    serve(model, name, LOOPBACK, port)
    [(program, command, environment)] = started
    assert program == command[0] == f"/bin/{name}"
    assert environment["HF_HUB_OFFLINE"] == "1"
    said = capsys.readouterr().err
    assert "nightschool-tiny, version 3, the champion" in said
    url, body = re.search(r"curl (\S+) .* -d '(.*)'", said).groups()
    assert url == f"http://127.0.0.1:{port}/{ENGINES[name].path}"
    assert json.loads(body)["messages"] == [{"role": "user", "content": "Hello!"}]
