"""Servers that others make, each started on a registered model by its own command."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import NightStopped
from tasks.in_use.version import UsableModel
from tasks.settings import child_environment, path_with
from tasks.tracking.models.mlmodel import is_mlflow_model

LOOPBACK, PORT = "127.0.0.1", 8000
OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
"""All is in the folder: no engine needs to ask anybody outside."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A program that serves a folder."""

    program: str
    words: tuple[str, ...]
    """Its arguments; {folder}, {name}, {host} and {port} are filled in."""
    modules: tuple[str, ...] = ()
    """What must be installed where it is started from this environment."""
    cure: str
    """How to get it."""
    path: str
    """Of the address that answers a chat."""
    needs_mlflow: bool = False
    """Whether it reads MLflow's files, not Hugging Face's."""


ENGINES = {
    "mlflow": Engine(
        program="mlflow",
        words=("models", "serve", "-m", "{folder}", "--env-manager", "local", "--host", "{host}", "--port", "{port}"),
        cure="pip install mlflow",
        path="invocations",
        needs_mlflow=True,
    ),
    "transformers": Engine(
        program="transformers",
        words=("serve", "{folder}", "--host", "{host}", "--port", "{port}"),
        modules=("openai", "fastapi", "uvicorn"),
        cure=".venv/bin/pip install -c constraints.txt 'transformers[serving]'",
        path="v1/chat/completions",
    ),
    "vllm": Engine(
        program="vllm",
        words=("serve", "{folder}", "--served-model-name", "{name}", "--host", "{host}", "--port", "{port}"),
        cure="it brings a PyTorch of its own, so give it an environment of its own and put its bin folder on PATH: "
        "python3.11 -m venv vllm && vllm/bin/pip install vllm (without a GPU: its build for CPUs)",
        path="v1/chat/completions",
    ),
}  # fmt: skip


def engine_command(name: str, model: UsableModel, host: str, port: int) -> list[str]:
    """The command that serves a model, its program by full path.

    Raises NightStopped if the engine is not installed, or cannot serve this version.
    """
    engine = ENGINES[name]
    if engine.needs_mlflow and not is_mlflow_model(model.folder):
        raise NightStopped(
            f"{model} was registered by an earlier release as a folder of weights, which MLflow cannot serve; take "
            "--engine transformers or --engine vllm, or run the next night, whose model it can"
        )
    values = {"folder": str(model.folder), "name": model.name, "host": host, "port": str(port)}
    words = [word.format_map(values) for word in engine.words]
    program, ours = find_program(engine.program)
    missing = [module for module in engine.modules if importlib.util.find_spec(module) is None] if ours else []
    if not program or missing:
        lacks = f"which lacks {', '.join(missing)}" if program else "which is not installed here"
        raise NightStopped(
            f"--engine {name} runs {engine.program}, {lacks}; to get it: {engine.cure}\n"
            f"or, where it is installed, run: {shlex.join([engine.program, *words])}"
        )
    return [program, *words]


def find_program(name: str) -> tuple[str, bool]:
    """A program's path, empty if there is none, and whether it belongs to this environment."""
    beside = Path(sys.executable).with_name(name)
    if beside.exists():
        return str(beside), True
    return shutil.which(name) or "", False


def serve(model: UsableModel, engine: str, host: str, port: int) -> None:
    """Become the engine's process; does not return.

    Raises NightStopped if the engine is not there, or something listens on the port.
    """
    command = engine_command(engine, model, host, port)
    check_port(host, port)
    print(how_to_ask(model, engine, host, port, command), file=sys.stderr, flush=True)
    # MLflow starts uvicorn by its name, and nobody has to activate an environment to call it by its path
    os.execve(command[0], command, child_environment(PATH=path_with(Path(command[0]).parent), **OFFLINE))


def check_port(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise NightStopped(
            f"{host}:{port} cannot be listened on ({error.strerror or error}); choose another --port"
        ) from None
    except OverflowError:
        raise NightStopped(f"port {port} is not between 0 and 65535; choose another --port") from None


def how_to_ask(model: UsableModel, engine: str, host: str, port: int, command: Sequence[str]) -> str:
    url = f"http://{host}:{port}/{ENGINES[engine].path}"
    asked = '{"model": "%s", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 32}' % (
        str(model.folder) if engine == "transformers" else model.name
    )
    if engine == "mlflow":
        asked = '{"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 32}'
    return (
        f"{model}\n{shlex.join(command)}\n"
        f"once it listens: curl {url} -H 'Content-Type: application/json' -d {shlex.quote(asked)}"
    )
