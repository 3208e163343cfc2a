"""How well the end of a training is foreseen: real runs of the trainer, each forecast from those it has no part in.

    python -m benchmarks.learning.forecasts --runs runs.jsonl --work FOLDER [--count 56]
    python -m benchmarks.learning.forecasts --runs runs.jsonl --report

Runs differ in size, peak rate, length and schedule; text, rows of a batch and validation documents are the same. A run
that the file holds already is not made again. The table leaves out a fold of runs at a time, forecasts these from the
others before the start and after 10, 25 and 50 % of the steps, and says how far P50 was off and how often the end lay
between P10 and P90.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.learning.scoring import Chunks, nats_of, plain_rows
from benchmarks.learning.text import prepare, recipe_of
from data.tokens.shards import open_shards
from model.config.network import ModelConfig
from model.config.optim import OptimConfig
from model.config.training import TrainConfig
from model.dynamics.forecast import Forecaster, Run, features_of
from model.files import append_line
from model.training.state import TrainState
from model.training.trainer import train
from tasks.planning.machine import keep_freed_memory

ROOT = Path(__file__).resolve().parent.parent.parent
ROW_TOKENS, BATCH_ROWS = 256, 2
EVERY_STEPS = 10
"""Between validations."""
HELD_OUT_TOKENS = 4_000
"""Targets of each validation."""
WORK_BUDGET = 1.2e12
"""FLOPs of the longest run, a minute of a core, unless it has 200 steps or fewer."""

SHARES, FOLDS = (0.0, 0.1, 0.25, 0.5), 8


def drawn(number: int) -> tuple[ModelConfig, TrainConfig]:
    """Model and training of run `number`: each choice drawn on its own, the same for a number always."""
    rng = np.random.default_rng([20261130, number])
    width, layers, experts = (int(rng.choice(of)) for of in ((32, 48, 64, 96, 128), (2, 3, 4), (4, 6, 8)))
    model = ModelConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 16, num_key_value_heads=width // 16,
        head_dim=16, num_experts=experts, moe_intermediate_size=3 * width // 2, initializer_range=0.05,
    )  # fmt: skip
    peak_lr = float(np.round(1e-3 * 8 ** rng.uniform(), 6))
    most = WORK_BUDGET / (model.train_flops_per_token(ROW_TOKENS) * BATCH_ROWS * ROW_TOKENS)
    steps = round(150 * (min(600.0, max(200.0, most)) / 150) ** rng.uniform())
    optim = OptimConfig(peak_lr=peak_lr, stable_share=float(rng.choice([0.0, 0.25, 0.5, 0.75])))
    return model, TrainConfig(
        num_tokens=steps * BATCH_ROWS * ROW_TOKENS, batch_rows=BATCH_ROWS, micro_batch_rows=BATCH_ROWS, seed=number + 1,
        checkpoint_every_steps=10**9, optim=optim,
    )  # fmt: skip


def make_run(number: int, folder: Path) -> dict[str, Any]:
    """Train run `number` on the prepared text of `folder`; what each step and each validation gave."""
    model, config = drawn(number)
    tokens = open_shards(folder / "packed", "pretrain", "train", "forecasts")
    held_out = Chunks.load(folder / "val.npz").head(HELD_OUT_TOKENS)
    num_steps, began = config.num_steps(ROW_TOKENS), time.process_time()
    state = TrainState.create(model, config, tokens_per_step=BATCH_ROWS * ROW_TOKENS)
    run: dict[str, Any] = {"lr": [], "loss": [], "balance": [], "val_steps": [], "val_nats": []}
    for step in train(state, tokens, config):
        for name, value in (("lr", step.lr), ("loss", step.loss), ("balance", step.balance_loss)):
            run[name].append(float(f"{value:.6g}"))
        if step.number % EVERY_STEPS == 0 or step.number == num_steps:
            nats = nats_of(plain_rows(held_out), state.model, state.model)
            run["val_steps"].append(step.number)
            run["val_nats"].append(np.round(nats, 3).tolist())
    return run | {
        "parameters": model.total_parameters, "active_parameters": model.active_parameters,
        "val_bytes": int(held_out.label_bytes.sum()), "cpu_seconds": round(time.process_time() - began, 1),
    }  # fmt: skip


def asked_for(number: int, text: str) -> dict[str, Any]:
    """What a run is: its number, the text, and all of its configuration."""
    model, config = drawn(number)
    return {"number": number, "text": text, "model": asdict(model), "train": asdict(config)}


def read_runs(path: Path) -> list[dict[str, Any]]:
    """The runs of a file, none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def make_runs(path: Path, numbers: range, work: Path) -> None:
    """Append those of the numbered runs that the file lacks, each when it is done."""
    folder = prepare(replace(recipe_of([], ROW_TOKENS), name="forecasts"), work)
    done = [run["asked"] for run in read_runs(path)]
    for number in numbers:
        # As JSON has it: a tuple of the configuration comes back as a list.
        asked = json.loads(json.dumps(asked_for(number, folder.name)))
        if asked in done:
            continue
        run = make_run(number, folder)
        append_line(path, {"asked": asked, **run})
        print(f"run {number}: {len(run['loss'])} steps, {run['cpu_seconds']} s", file=sys.stderr, flush=True)


def as_run(line: dict[str, Any]) -> Run:
    """What a forecast may know of a run of the file."""
    train_config = line["asked"]["train"]
    features = features_of(
        line["active_parameters"],
        train_config["num_tokens"],
        train_config["optim"]["peak_lr"],
        train_config["optim"]["stable_share"],
    )
    bpb = np.array(line["val_nats"]).sum(axis=1) / np.log(2) / line["val_bytes"]
    return Run(features, np.array(line["lr"]), np.array(line["val_steps"]), bpb)


def simply(past: Sequence[Run], run: Run, share: float) -> float:
    """The forecast to beat: the last score so far less the median of what past runs gained from there on; before the
    start the median of their ends."""
    if not share:
        return float(np.median([each.val_bpb[-1] for each in past]))
    gains = [each.until(share).val_bpb[-1] - each.val_bpb[-1] for each in past]
    return float(run.until(share).val_bpb[-1] - np.median(gains))


def tested(runs: Sequence[Run], share: float, folds: int) -> dict[str, float]:
    """Errors and coverage at a share of the steps, each run forecast from those of the other folds."""
    errors, simple, inside, widths = [], [], [], []
    for fold in range(folds):
        past = [run for number, run in enumerate(runs) if number % folds != fold]
        forecaster = Forecaster.fit(past, share)
        for run in runs[fold::folds]:
            made, end = forecaster.forecast(run), float(run.val_bpb[-1])
            errors.append(abs(made.p50 - end))
            simple.append(abs(simply(past, run, share) - end))
            inside.append(made.p10 <= end <= made.p90)
            widths.append(made.p90 - made.p10)
    return {
        "error": float(np.median(errors)), "worst": max(errors), "coverage": float(np.mean(inside)),
        "width": float(np.median(widths)), "simple": float(np.median(simple)),
    }  # fmt: skip


def table(runs: Sequence[Run], folds: int = FOLDS) -> str:
    """A line for each share of the steps, bits per byte."""
    ends, lengths = [run.val_bpb[-1] for run in runs], [run.num_steps for run in runs]
    lines = [
        f"{len(runs)} runs of {min(lengths)} to {max(lengths)} steps, which end at {min(ends):.3f} to {max(ends):.3f} "
        f"bits per byte; {folds} folds",
        "",
        "| steps done | median error of P50 | largest | in P10 to P90 | median width | median error, simple forecast |",
        "|---|---|---|---|---|---|",
    ]
    for share in SHARES:
        row = tested(runs, share, folds)
        lines.append(
            f"| {share:.0%} | {row['error']:.4f} | {row['worst']:.4f} | {row['coverage']:.0%} | {row['width']:.4f} | "
            f"{row['simple']:.4f} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="JSON lines; a run that is there is not made again")
    parser.add_argument("--work", type=Path, default=ROOT / "store" / "bench-learn", help="folder of prepared text")
    parser.add_argument("--first", type=int, default=0, help="number of the first run; for a second process")
    parser.add_argument("--count", type=int, default=56)
    parser.add_argument("--report", action="store_true", help="the table of what is there, without making runs")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    if not given.report:
        keep_freed_memory()
        make_runs(given.runs, range(given.first, given.first + given.count), given.work)
    print(table([as_run(line) for line in sorted(read_runs(given.runs), key=lambda line: line["asked"]["number"])]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
