"""lm-evaluation-harness: which figure of a task counts, and that a night goes on where there is none."""

from __future__ import annotations

import json
import logging
from importlib.util import find_spec
from pathlib import Path

import pytest

from model.exchange.export import export_folder
from model.network.transformer import Transformer
from tasks.evaluation.measures import harness
from tasks.evaluation.measures.harness import harness_identity, harness_scores, task_figures
from tasks.recipes.stage_configs import EvaluateConfig
from tests.model.tiny import tiny_config
from tests.tasks.rows import small_tokenizer, write_files

TASK = """task: toy
dataset_path: json
dataset_kwargs: {data_files: {test: toy.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
doc_to_choice: "{{choices}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
ROWS = [{"question": "hello", "choices": [" world", " text"], "answer": n % 2} for n in range(3)]
MODEL = Transformer(tiny_config(max_position_embeddings=64))


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    rows = "".join(json.dumps(row) + "\n" for row in ROWS)
    return write_files(tmp_path / "tasks", {"toy.yaml": TASK, "toy.jsonl": rows})


def config(folder: Path, *tasks: str) -> EvaluateConfig:
    return EvaluateConfig(harness_tasks=tasks or ("toy",), harness_folder=str(folder))


def scores(config: EvaluateConfig, export: Path | None = None) -> dict[str, float]:
    return harness_scores(MODEL, small_tokenizer(), export, config)


def test_tasks_without_a_folder_are_refused() -> None:
    with pytest.raises(ValueError, match=r"harness_tasks \(toy\) needs harness_folder"):
        EvaluateConfig(harness_tasks=("toy",))


def test_without_tasks_there_is_nothing_to_do_and_nothing_in_the_key(tasks: Path) -> None:
    none = EvaluateConfig(harness_folder=str(tasks))
    assert scores(none) == harness_identity(none) == {}


def test_the_key_follows_the_tasks_files_and_whether_the_harness_is_there(
    tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = [harness_identity(config(tasks))]
    (tasks / "toy.jsonl").write_text("{}\n")
    seen.append(harness_identity(config(tasks)))
    monkeypatch.setattr(harness, "installed_version", lambda: "0.0")
    seen.append(harness_identity(config(tasks)))
    assert len({its["harness"] for its in seen}) == 3


def test_without_the_harness_the_night_says_what_to_install(
    tasks: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(harness, "installed_version", lambda: "")
    assert scores(config(tasks)) == {}
    assert "evaluate.harness_tasks (toy) not asked: lm_eval is not installed; pip install" in caplog.text
    assert "nightschool[harness]" in caplog.text


def test_a_folder_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(harness, "installed_version", lambda: "0.0")
    assert scores(config(tmp_path / "nowhere")) == {}
    assert f"evaluate.harness_folder ({tmp_path / 'nowhere'}) is no folder" in caplog.text


def test_a_harness_that_fails_costs_its_figures_alone(
    tasks: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(harness, "installed_version", lambda: "0.0")
    monkeypatch.setattr(harness, "PACKAGE", "no_such_module")
    assert scores(config(tasks), tasks) == {}
    assert "ended with code 1 and gave no figures" in caplog.text and "no_such_module" in caplog.text
    assert "gave no figure for toy" in caplog.text


def test_one_figure_of_each_task_counts() -> None:
    results = {
        "two": {"alias": "two", "acc,none": 0.5, "acc_stderr,none": 0.1, "acc_norm,none": 0.75, "sample_len": 4},
        "own": {"brevity,strict": 3, "brevity,loose": 4, "brevity_stderr,strict": "N/A"},
        "none": {"alias": "none", "sample_len": 4},
    }
    assert task_figures(results) == {"two": 0.75, "own": 3.0}


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("lm_eval"), reason="lm_eval is not installed")
def test_a_local_task_is_asked_without_any_hub(tasks: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nightschool")
    fresh = scores(config(tasks))
    assert fresh.keys() == {"eval/harness.toy"} and fresh["eval/harness.toy"] in (1 / 3, 2 / 3)
    export_folder(MODEL, small_tokenizer(), tmp_path / "model")
    assert scores(config(tasks, "toy", "missing_task"), tmp_path / "model") == {}
    assert "gave no figure for missing_task, toy" in caplog.text
