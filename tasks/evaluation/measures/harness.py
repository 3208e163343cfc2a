"""A model in lm-evaluation-harness, on tasks whose data lies in a folder here."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from model.files import sha256_of
from tasks.pages.text import one_line
from tasks.recipes.stage_configs import EvaluateConfig
from tasks.settings import child_environment

if TYPE_CHECKING:
    from model.network.transformer import Transformer

log = logging.getLogger("nightschool")

PACKAGE, EXTRA = "lm_eval", "nightschool[harness]"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
METRICS = ("acc_norm", "acc", "exact_match", "f1", "bleu", "bits_per_byte", "word_perplexity")
"""Which of a task's metrics becomes its figure: the first of these, else the first there is."""
WORDS = 300
"""Characters of what the harness said last that a warning repeats."""


def installed_version() -> str:
    """Of the harness; empty where it is not installed."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return ""


def folder_of(config: EvaluateConfig) -> Path:
    """Where the tasks' files lie."""
    return Path(config.harness_folder).expanduser()


def harness_identity(config: EvaluateConfig) -> dict[str, str]:
    """What decides the harness's figures beside the model, for a stage's key; nothing where no task is asked for."""
    if not config.harness_tasks:
        return {}
    folder, digest = folder_of(config), hashlib.sha256(installed_version().encode())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {sha256_of(path)}\n".encode())
    return {"harness": digest.hexdigest()}


def harness_scores(
    model: Transformer, tokenizer: Tokenizer, export: Path | None, config: EvaluateConfig
) -> dict[str, float]:  # fmt: skip
    """`eval/harness.<task>` of each task; empty, with a warning that says why, where the harness gives none.

    model, tokenizer: what is exported for the harness where there is no `export` of it yet.
    config: names of the tasks and where their files lie. The harness runs in that folder, so that its tasks name their
        data from there, as a process of its own that may ask no hub.
    """
    if not config.harness_tasks:
        return {}
    asked = f"evaluate.harness_tasks ({', '.join(config.harness_tasks)})"
    if not installed_version():
        log.warning("%s not asked: %s is not installed; pip install -c constraints.txt '%s'", asked, PACKAGE, EXTRA)
        return {}
    if not folder_of(config).is_dir():
        log.warning("%s not asked: evaluate.harness_folder (%s) is no folder", asked, config.harness_folder)
        return {}
    with TemporaryDirectory() as scratch:
        if export is None:
            from model.exchange.export import export_folder  # torch takes seconds to import

            export = Path(scratch, "model")
            export_folder(model, tokenizer, export)
        results = run_harness(export.resolve(), Path(scratch, "results"), config)
    figures = {f"eval/harness.{task}": value for task, value in task_figures(results).items()}
    if missing := sorted(set(config.harness_tasks) - {name.removeprefix("eval/harness.") for name in figures}):
        log.warning("lm-evaluation-harness gave no figure for %s", ", ".join(missing))
    return figures


def run_harness(export: Path, results: Path, config: EvaluateConfig) -> Mapping[str, Any]:
    """What the harness measured, by task; empty, with a warning, where it fails."""
    command = [
        sys.executable, "-m", PACKAGE, "run", "--model", "hf", "--model_args", f"pretrained={export},dtype=float32",
        "--tasks", ",".join(config.harness_tasks), "--include_path", ".", "--output_path", str(results),
        "--batch_size", "8", "--device", "cpu",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=folder_of(config), env=child_environment(**OFFLINE), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    written = sorted(results.rglob("results_*.json"))
    if done.returncode or not written:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it said nothing")
        log.warning(
            "lm-evaluation-harness ended with code %d and gave no figures: %s", done.returncode, one_line(last, WORDS)
        )
        return {}
    return dict(json.loads(written[-1].read_text(encoding="utf-8"))["results"])


def task_figures(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """One figure of each task that has a number, its keys being `metric,filter`."""
    figures = {}
    for task, found in results.items():
        values: dict[str, float] = {}
        for name, value in found.items():
            metric, comma, _ = name.partition(",")
            if comma and not metric.endswith("_stderr") and isinstance(value, int | float):
                values.setdefault(metric, float(value))
        if values:
            figures[task] = values[next((metric for metric in METRICS if metric in values), next(iter(values)))]
    return figures
