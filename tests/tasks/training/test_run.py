"""Draining the loop: the same bits with and without an interruption, and stops that lose nothing."""

from __future__ import annotations

import dataclasses
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.tokens.packing import IGNORED
from model.training import checkpoint
from tasks.errors import Diverged, Interrupted, NightBusy
from tasks.home.contents.packed import open_packed
from tasks.tracking.tracker import DictTracker
from tasks.training import run as training
from tasks.training.curve import Curve
from tasks.training.validator import Validator
from tests.tasks.prepared import Prepared
from tests.tasks.rows import stage_record
from tests.tasks.training_runs import Killed, at_step, finished, interrupt, kill, run, train, weights

pytestmark = pytest.mark.usefixtures("without_prefect")


@pytest.mark.parametrize("compiled", ["never", pytest.param("always", marks=pytest.mark.slow)])
def test_an_interrupted_stage_goes_on_and_ends_with_the_same_bits(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: Any
) -> None:
    config = replace(prepared[0].pretrain, compile_blocks=compiled, precision="bf16")
    whole = run(tmp_path / "whole")
    outcome = train(whole, prepared, config)
    parts = run(tmp_path / "parts")
    with monkeypatch.context() as patch:
        at_step(5, interrupt, patch)
        with pytest.raises(Interrupted, match="step 5 of 12; the checkpoint is saved"):
            train(parts, prepared, config)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = train(parts, prepared, config)
    assert resumed.figures == outcome.figures
    first, second = weights(whole.folder), weights(parts.folder)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    curve = Curve(parts.logs / "curve.jsonl", until=10**9)
    assert [point["step"] for point in curve.points] == list(range(13))


def test_plan_and_outcome_stand_side_by_side(prepared: Prepared, tmp_path: Path) -> None:
    stage = run(tmp_path / "stage")
    train(stage, prepared)
    logged = {name: values[-1][1] for name, values in stage.tracker.logged_metrics.items()}
    assert logged["plan/steps"] == logged["outcome/steps"] == 12
    for name in ("seconds", "peak_memory_mb"):
        assert logged[f"outcome/{name}"] > 0
        assert logged[f"plan/{name}"] > 0


def test_a_killed_stage_repeats_the_steps_after_its_last_checkpoint(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = run(tmp_path / "whole"), run(tmp_path / "parts")
    train(whole, prepared)

    with monkeypatch.context() as patch:
        at_step(9, kill, patch)
        with pytest.raises(Killed):
            train(parts, prepared)
    assert [c.step for c in checkpoint.discover(parts.folder / "checkpoints")] == [3, 6]
    train(parts, prepared)
    assert all(
        torch.equal(a, b) for a, b in zip(weights(whole.folder).values(), weights(parts.folder).values(), strict=True)
    )


def test_a_checkpoint_of_another_configuration_is_not_resumed(prepared: Prepared, tmp_path: Path) -> None:
    stage = run(tmp_path / "stage")
    train(stage, prepared)
    other = dataclasses.replace(prepared[0].pretrain, seed=2)
    train(stage, prepared, other)
    fresh = run(tmp_path / "fresh")
    train(fresh, prepared, other)
    assert all(
        torch.equal(a, b) for a, b in zip(weights(stage.folder).values(), weights(fresh.folder).values(), strict=True)
    )


def test_validation_falls_and_everything_is_logged(prepared: Prepared, tmp_path: Path) -> None:
    stage = run(tmp_path / "stage")
    outcome = train(stage, prepared)
    tracker = stage.tracker
    assert isinstance(tracker, DictTracker)
    curve = tracker.logged_metrics["val/bpb"]
    assert [step for step, _ in curve] == [0, 4, 8, 12]
    assert curve[-1][1] < curve[0][1]
    assert {
        "train/loss", "train/loss_ema", "train/lr", "train/grad_norm", "train/clipped_share", "train/tokens_per_s",
        "train/data_wait_share", "train/tokens_seen", "moe/balance_loss", "moe/max_load_ratio", "moe/dead_experts",
        "val/loss", "val/bpb", "val/bpb.text",
    } <= tracker.logged_metrics.keys()  # fmt: skip
    assert len(tracker.logged_metrics) <= 40
    assert {"figures/loss.png", "figures/expert-load.png", "curves/curve.jsonl"} == set(tracker.logged_artifacts)
    assert outcome.figures["val/bpb"] == curve[-1][1]


def test_sft_starts_from_the_pretrained_weights(prepared: Prepared, tmp_path: Path) -> None:
    recipe, tokens = prepared
    before, after = run(tmp_path / "pretrain"), run(tmp_path / "sft")
    train(before, prepared)
    still = dataclasses.replace(
        recipe.sft, optim=dataclasses.replace(recipe.sft.optim, peak_lr=1e-12, weight_decay=0.0)
    )
    start = stage_record(before.folder)
    finished(training.prepare(after, "chat", tokens, recipe.model, still, start_from=start))
    for first, second in zip(weights(before.folder).values(), weights(after.folder).values(), strict=True):
        assert torch.allclose(first, second, atol=1e-9)


def test_sft_targets_are_the_assistants_words_only(prepared: Prepared) -> None:
    from tasks.home.contents.packed import open_segments

    _, tokens = prepared
    opened = open_packed(tokens, "chat", "train")
    packed = opened.rows(np.arange(opened.num_rows))
    share = (packed.labels != IGNORED).sum() / (packed.segment_ids != 0).sum()
    assert 0.05 < share < 0.9
    for row, start, length in open_segments(tokens, "chat", "train").select("row", "start", "length").iter_rows():
        assert (packed.labels[row, start : start + length] != IGNORED).any()


def test_divergence_is_a_message_with_its_own_exit_code(prepared: Prepared, tmp_path: Path) -> None:
    wild = dataclasses.replace(prepared[0].pretrain.optim, peak_lr=1e6, clip_norm=1e9)
    with pytest.raises(Diverged, match=r"pretrain: step \d+: loss .* lower optim.peak_lr") as stop:
        train(
            run(tmp_path / "stage"), prepared, dataclasses.replace(prepared[0].pretrain, optim=wild, precision="fp32")
        )
    assert stop.value.exit_code == 3


def test_the_validator_scores_the_same_rows_each_time(prepared: Prepared) -> None:
    recipe, tokens = prepared
    one, two = (Validator.open(tokens, "pretrain", recipe.pretrain) for _ in range(2))
    assert np.array_equal(one.tokens.input_ids, two.tokens.input_ids)
    assert one.tokens.num_rows == recipe.pretrain.eval_rows
    whole = open_packed(tokens, "pretrain", "val")
    assert {bytes(row) for row in one.tokens.input_ids} <= {
        bytes(row) for row in whole.rows(np.arange(whole.num_rows)).input_ids
    }
    covered = sum(mask.sum() for mask in one.source_of.values())
    assert covered == (one.tokens.segment_ids != 0).sum()


def test_a_training_that_was_overtaken_ends_at_its_next_step_and_saves_nothing(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = run(tmp_path / "stage")
    at_step(4, lambda: stage.night.journal.take_over("a person"), monkeypatch)
    with pytest.raises(NightBusy, match="overtaken"):
        train(stage, prepared)
    steps = [saved.step for saved in checkpoint.discover(stage.folder / "checkpoints")]
    assert steps and max(steps) <= 3
