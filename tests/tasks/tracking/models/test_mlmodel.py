"""A registered folder is a model of MLflow and of Hugging Face, in processes that know nothing of this project."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import mlflow.transformers
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from transformers import AutoModelForCausalLM, AutoTokenizer

import tasks
from model.exchange.export import export_folder
from model.network.transformer import Transformer
from tasks.errors import NightStopped
from tasks.in_use.engines import ENGINES, LOOPBACK, engine_command
from tasks.in_use.version import UsableModel
from tasks.tracking.models.mlmodel import CARD, EXAMPLE, is_mlflow_model, make_mlflow_model
from tests.model.tiny import tiny_config
from tests.tasks.rows import small_tokenizer
from tests.tasks.serving import closed_port

HELLO = [{"role": "user", "content": "hi"}]
OURS = ("flows", "tasks", "data", "schemas", "model")
WITHOUT_US = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OURS!r}:
            raise AssertionError(f"imports {{name}}")
sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    export_folder(Transformer(tiny_config(), seed=3), small_tokenizer(), folder)  # one that says something
    return folder


@pytest.fixture(scope="module")
def folder(exported: Path) -> Path:
    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    assert not is_mlflow_model(exported)
    make_mlflow_model(exported, "# A card\n")
    assert is_mlflow_model(exported)
    assert {name: (exported / name).read_bytes() for name in before} == before, "Hugging Face's files are as they were"
    assert [path.name for path in exported.parent.iterdir()] == ["model"]
    return exported


@pytest.fixture(scope="module")
def served(folder: Path) -> mlflow.pyfunc.PyFuncModel:
    return mlflow.pyfunc.load_model(str(folder))


def by_transformers(folder: Path, **choice: Any) -> str:
    """The best reply to HELLO, straight from transformers."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    chat = tokenizer.apply_chat_template(HELLO, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        ids = model.generate(**chat, do_sample=False, temperature=None, top_p=None, **choice)
    return str(tokenizer.decode(ids[0, chat["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


def test_it_has_signature_example_card_and_requirements_and_no_pickle(folder: Path) -> None:
    read = Model.load(str(folder))
    assert set(read.flavors) == {"python_function", "transformers"}
    assert "messages" in read.signature.inputs.input_names()
    assert json.loads((folder / "input_example.json").read_text()) == EXAMPLE
    assert read.model_size_bytes > (folder / "model.safetensors").stat().st_size
    assert (folder / CARD).read_text() == "# A card\n"
    needed = (folder / "requirements.txt").read_text()
    assert f"torch=={torch.__version__.partition('+')[0]}\n" in needed
    assert "nightschool" not in needed
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pickle", ".bin", ".pt")]
    assert "cloudpickle" not in needed
    assert str(Path(tasks.__file__).parent) not in "".join(
        path.read_text() for path in folder.rglob("*") if path.suffix != ".safetensors" and path.is_file()
    ), "whoever gets the folder learns nothing about where it was made"


def test_both_ways_of_mlflow_answer_as_transformers_does_without_this_project(folder: Path) -> None:
    script = f"""{WITHOUT_US}
import json, mlflow
asked = {{"messages": {HELLO!r}, "max_tokens": 6, "temperature": 0.0}}
answer = mlflow.pyfunc.load_model({str(folder)!r}).predict(asked)
pipe = mlflow.transformers.load_model({str(folder)!r})
said = pipe({HELLO!r}, max_new_tokens=6, do_sample=False)[0]["generated_text"][-1]["content"]
print(json.dumps([answer, said]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd="/", capture_output=True, text=True, check=True)
    answer, said = json.loads(done.stdout.splitlines()[-1])
    expected = by_transformers(folder, max_new_tokens=6)
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": expected}
    assert answer["object"] == "chat.completion"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert said.strip() == expected


def test_a_reply_ends_where_it_is_asked_to(served: mlflow.pyfunc.PyFuncModel, folder: Path) -> None:
    whole = by_transformers(folder, max_new_tokens=6)
    [choice] = served.predict({"messages": HELLO, "max_tokens": 6, "temperature": 0.0, "stop": [whole[1]]})["choices"]
    assert choice["message"]["content"] == whole.partition(whole[1])[0].strip()
    assert choice["finish_reason"] == "stop"
    [choice] = served.predict({"messages": HELLO, "max_tokens": 2, "temperature": 0.0})["choices"]
    assert choice["finish_reason"] == "length"


def test_rows_of_a_table_get_an_answer_each(served: mlflow.pyfunc.PyFuncModel) -> None:
    table = pd.DataFrame({"messages": [HELLO, HELLO, HELLO], "temperature": [0.0, 0.0, None], "max_tokens": [4, 2, 3]})
    answers = served.predict(table)
    assert [answer["usage"]["completion_tokens"] for answer in answers] == [4, 2, 3]


@pytest.mark.parametrize(
    ("request_of", "said"),
    [
        ({"messages": []}, "no messages"),
        ({"n": 2}, "n cannot be used here"),
        ({"stream": True}, "stream cannot be used here"),
        ({"frequency_penalty": 0.5}, "frequency_penalty cannot be used here"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"top_p": 0.0}, "top_p is 0"),
        ({"max_tokens": -1}, "max_tokens 1 or more"),
        ({"max_tokens": 64}, r"the messages have \d+ tokens and max_tokens is 64; the model holds 64 in all"),
        ({"messages": [{"role": "user", "content": "long " * 60}]}, "the model holds 64 in all"),
    ],
)
def test_a_request_that_cannot_be_answered_as_asked_is_refused(
    served: mlflow.pyfunc.PyFuncModel, request_of: dict[str, Any], said: str
) -> None:
    with pytest.raises(MlflowException, match=said) as refused:
        served.predict({"messages": HELLO} | request_of)
    assert refused.value.get_http_status_code() == 400


def test_a_typed_marker_is_text_for_mlflow_too(served: mlflow.pyfunc.PyFuncModel) -> None:
    def prompt_tokens(typed: str) -> int:
        asked = {"messages": [{"role": "user", "content": typed}], "max_tokens": 1}
        return int(served.predict(asked)["usage"]["prompt_tokens"])

    as_letters = len(small_tokenizer().encode("<|im_end|>").ids)
    assert prompt_tokens("x<|im_end|>") - prompt_tokens("x") >= as_letters - 1 > 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_server_answers_on_loopback(folder: Path, engine: str, tmp_path: Path) -> None:
    """Of the engines that are installed, called from an environment that nobody activated; others are left out."""
    port = closed_port()
    model = UsableModel("nightschool-tiny", 1, True, folder)
    try:
        engine_command(engine, model, LOOPBACK, port)
    except NightStopped as stop:
        pytest.skip(str(stop))
    asked = {"model": str(folder), "messages": HELLO, "max_tokens": 6, "temperature": 0.0}
    if engine == "mlflow":
        del asked["model"]
    call = (
        "from pathlib import Path\n"
        "from tasks.in_use.engines import serve\n"
        "from tasks.in_use.version import UsableModel\n"
        f"serve(UsableModel({model.name!r}, 1, True, Path({str(folder)!r})), {engine!r}, {LOOPBACK!r}, {port})"
    )
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", call], cwd=Path(tasks.__file__).parent.parent, stdout=log, stderr=log,
            env=os.environ | {"PATH": "/usr/bin:/bin"}, start_new_session=True,
        )  # fmt: skip
    try:
        answer = ask(f"http://127.0.0.1:{port}/{ENGINES[engine].path}", asked, server, tmp_path / "log")
    finally:
        with suppress(ProcessLookupError):  # of a server that could not start
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    assert answer["choices"][0]["message"]["content"].strip() == by_transformers(folder, max_new_tokens=6)


def ask(url: str, content: dict[str, Any], server: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    """Post until the server listens."""
    post = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + 240
    while True:
        try:
            return dict(json.load(opener.open(post, timeout=60)))
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, "the server does not listen"
            time.sleep(0.5)
