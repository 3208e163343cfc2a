"""Made-up runs: the same number is the same run, and the table tells how far forecasts of them were off."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.learning.forecasts import EVERY_STEPS, ROW_TOKENS, SHARES, as_run, asked_for, drawn, simply, table
from model.optim.schedule import learning_rate


def line(number: int) -> dict[str, Any]:
    """A run as the file has it, whose loss follows a power law of steps."""
    model, config = drawn(number)
    num_steps = config.num_steps(ROW_TOKENS)
    steps = np.append(np.arange(EVERY_STEPS, num_steps, EVERY_STEPS), num_steps)
    bpb = 1.5 + 2 * steps**-0.3 + 0.01 * np.random.default_rng(number).normal(size=len(steps))
    return {
        "asked": asked_for(number, "made up"), "active_parameters": model.active_parameters, "val_bytes": 100,
        "lr": [learning_rate(config.optim, step, num_steps) for step in range(num_steps)],
        "val_steps": steps.tolist(), "val_nats": np.outer(bpb * np.log(2), [40, 60]).tolist(),
    }  # fmt: skip


RUNS = [as_run(line(number)) for number in range(24)]


def test_runs_are_of_every_kind_and_the_same_for_a_number() -> None:
    assert drawn(3) == drawn(3)
    models, configs = zip(*(drawn(number) for number in range(56)), strict=True)
    assert {model.hidden_size for model in models} == {32, 48, 64, 96, 128}
    lengths = [config.num_steps(ROW_TOKENS) for config in configs]
    rates = [config.optim.peak_lr for config in configs]
    assert min(lengths) >= 150 and max(lengths) <= 600
    assert max(rates) / min(rates) > 6


def test_the_table_has_a_line_for_each_share_and_knows_made_up_runs_well() -> None:
    head, _, _, _, *lines = table(RUNS).splitlines()
    assert head.startswith("24 runs of 1")
    rows = [[cell.strip() for cell in each.strip("|").split("|")] for each in lines]
    assert [row[0] for row in rows] == [f"{share:.0%}" for share in SHARES]
    assert all(float(row[1]) < 0.02 for row in rows)
    assert all(0.6 <= float(row[3].rstrip("%")) / 100 <= 1 for row in rows)


def test_the_simple_forecast_is_the_last_score_less_the_usual_gain() -> None:
    past, run = RUNS[:3], RUNS[3]
    gains = sorted(each.until(0.5).val_bpb[-1] - each.val_bpb[-1] for each in past)
    assert simply(past, run, 0.5) == run.until(0.5).val_bpb[-1] - gains[1]
    assert simply(past, run, 0.0) == sorted(each.val_bpb[-1] for each in past)[1]
