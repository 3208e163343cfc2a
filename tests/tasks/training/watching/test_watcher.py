"""Watchers decide whether a stage goes on; a roll back leaves the bits and the curve of a stage without one."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.config.training import ExpertChange
from model.parallel.ranks import Ranks
from model.training import checkpoint
from model.training.state import NonFiniteLoss
from model.training.trainer import StepMetrics
from tasks.errors import Diverged, Interrupted
from tasks.planning.cost import StagePlan
from tasks.stage import StageRun
from tasks.tracking.tracker import DictTracker
from tasks.training import run as training
from tasks.training.training_run import TrainingRun
from tasks.training.watching.watcher import (
    GO_ON,
    MOST_ROLLBACKS,
    Action,
    StopRequest,
    Verdict,
    Watcher,
    after_non_finite,
    after_step,
)
from tests.tasks.prepared import Prepared
from tests.tasks.training.test_meters import STEP
from tests.tasks.training_runs import finished, run, train, weights

pytestmark = pytest.mark.usefixtures("without_prefect", "without_plan")
TIMES = ("train/tokens_per_s", "train/data_wait_share")
"""What two runs of the same steps do not have in common."""

LOSS_IS_NAN = NonFiniteLoss("loss nan", np.zeros((4, 16)))
VALIDATED = {"val/loss", "val/bpb", "val/bpb.text", "change/bpb_before", "change/bpb_after"}


@pytest.fixture
def without_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan takes seconds to measure how fast this machine is."""
    monkeypatch.setattr(training, "plan_stage", lambda *_: StagePlan(0, 0.0, 0))


class Judge(Watcher):
    """Answers at one step, as often as asked to, and keeps what it has seen."""

    def __init__(self, step: int, action: Action, times: int = 1) -> None:
        self.step, self.verdict, self.left = step, Verdict(action, "the loss looks odd"), times
        self.steps: list[int] = []
        self.validations: list[int] = []

    def after_step(self, step: StepMetrics, metrics: Mapping[str, float]) -> Verdict:
        assert metrics["train/loss"] == step.loss
        measured = set(step.as_metrics())
        by_group = {name for name in metrics if name.startswith(("loss.", "targets."))}
        assert by_group
        assert set(metrics) - by_group <= measured | VALIDATED, "nothing may be decided by what is in no stage's key"
        self.steps.append(step.number)
        if step.number == self.step and self.left:
            self.left -= 1
            return self.verdict
        return GO_ON

    def after_validation(self, step_number: int, metrics: Mapping[str, float]) -> Verdict:
        assert "val/bpb" in metrics
        assert "train/loss" not in metrics
        self.validations.append(step_number)
        return GO_ON


class OnValidation(Watcher):
    """Gives one verdict on every validation."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict

    def after_validation(self, step_number: int, metrics: Mapping[str, float]) -> Verdict:
        return self.verdict


class OnNonFinite(Watcher):
    """Gives one verdict on every loss that is not finite."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict

    def after_non_finite(self, step_number: int, error: NonFiniteLoss) -> Verdict:
        return self.verdict


def prepare(stage: StageRun, prepared: Prepared) -> TrainingRun:
    recipe, tokens = prepared
    return training.prepare(stage, "pretrain", tokens, recipe.model, recipe.pretrain)


def drained(stage: StageRun, prepared: Prepared, *watchers: Watcher) -> None:
    finished(prepare(stage, prepared), *watchers)


def points(stage: StageRun) -> list[dict[str, float]]:
    lines = (stage.logs / "curve.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in TIMES} for line in lines]


def require_same(first: StageRun, second: StageRun) -> None:
    """The same weights to the bit, the same files, and the same curve but for times."""
    one, two = weights(first.folder), weights(second.folder)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert points(first) == points(second)
    assert [point["step"] for point in points(second)] == list(range(13))
    assert [c.step for c in checkpoint.discover(second.folder / "checkpoints")] == [12]


@pytest.mark.parametrize(
    ("step", "restored"), [(2, 0), (3, 0), (8, 6), (12, 9)], ids=["start", "unsaved", "middle", "last"]
)
def test_a_roll_back_ends_with_the_bits_and_the_curve_of_an_uninterrupted_stage(
    prepared: Prepared, tmp_path: Path, step: int, restored: int
) -> None:
    whole, back, judge = run(tmp_path / "whole"), run(tmp_path / "back"), Judge(step, Action.ROLL_BACK)
    train(whole, prepared)
    drained(back, prepared, judge)
    require_same(whole, back)
    assert judge.steps == [*range(1, step + 1), *range(restored + 1, 13)]
    assert isinstance(back.tracker, DictTracker)
    assert back.tracker.went_back == [restored]


def test_a_roll_back_over_a_change_of_experts_makes_the_change_again(prepared: Prepared, tmp_path: Path) -> None:
    recipe, tokens = prepared
    changes = (
        ExpertChange(kind="upcycle", at_share=4 / 12),
        ExpertChange(kind="grow", at_share=8 / 12, num_experts_before=3),
    )
    changing = replace(recipe, pretrain=replace(recipe.pretrain, expert_changes=changes, start="scratch")), tokens
    whole, back = run(tmp_path / "whole"), run(tmp_path / "back")
    train(whole, changing)
    drained(back, changing, Judge(4, Action.ROLL_BACK), Judge(8, Action.ROLL_BACK))
    require_same(whole, back)


def test_a_roll_back_after_a_resume_leaves_the_same_bits(prepared: Prepared, tmp_path: Path) -> None:
    whole, parts = run(tmp_path / "whole"), run(tmp_path / "parts")
    train(whole, prepared)
    with pytest.raises(Interrupted, match="pretrain: the loss looks odd at step 5 of 12; the checkpoint is saved"):
        drained(parts, prepared, Judge(5, Action.STOP))
    drained(parts, prepared, Judge(6, Action.ROLL_BACK))
    require_same(whole, parts)


def test_the_first_watcher_that_does_not_go_on_decides_and_all_see_everything(
    prepared: Prepared, tmp_path: Path
) -> None:
    stage, requested = run(tmp_path / "stage"), threading.Event()
    requested.set()
    first, second = Judge(1, Action.ROLL_BACK), Judge(0, Action.FAIL)
    with pytest.raises(Interrupted, match="pretrain: stopped as requested at step 1 of 12"):
        drained(stage, prepared, first, second, StopRequest(requested))
    assert first.steps == second.steps == [1, 1], "rolled back first, stopped after it"
    later = Judge(0, Action.FAIL)
    drained(stage, prepared, later)
    assert later.steps == list(range(2, 13))
    assert later.validations == [4, 8, 12]


def test_a_request_to_stop_after_the_last_step_has_nothing_to_stop(prepared: Prepared, tmp_path: Path) -> None:
    stage = run(tmp_path / "stage")
    drained(stage, prepared, Judge(12, Action.STOP))
    assert [point["step"] for point in points(stage)] == list(range(13))


def test_a_watcher_that_asks_for_the_same_again_ends_the_stage(prepared: Prepared, tmp_path: Path) -> None:
    stage, judge = run(tmp_path / "stage"), Judge(5, Action.ROLL_BACK, times=100)
    with pytest.raises(
        Diverged,
        match=r"pretrain: the loss looks odd at step 5, again after 3 roll backs to step 3; lower optim.peak_lr",
    ):
        drained(stage, prepared, judge)
    assert judge.steps == [1, 2, 3, *[4, 5] * (1 + MOST_ROLLBACKS)]
    assert [c.step for c in checkpoint.discover(stage.folder / "checkpoints")] == [3]


def test_a_failing_verdict_saves_nothing(prepared: Prepared, tmp_path: Path) -> None:
    stage = run(tmp_path / "stage")
    with pytest.raises(Diverged, match=r"pretrain: the loss looks odd$"):
        drained(stage, prepared, Judge(6, Action.FAIL))
    assert [c.step for c in checkpoint.discover(stage.folder / "checkpoints")] == [3]


class NoGroup:
    """Of ranks that never sum."""

    def allreduce(self, *_: object) -> None:
        raise AssertionError


def test_several_ranks_cannot_roll_back(prepared: Prepared, tmp_path: Path) -> None:
    started = prepare(run(tmp_path / "stage"), prepared)
    ranks = Ranks(0, 2, group=NoGroup())
    with pytest.raises(Diverged, match="at step 5; 2 ranks cannot roll back together: set num_ranks to 1"):
        training.roll_back(started, ranks, Counter(), step=5, reason="the loss looks odd")


def test_a_loss_that_is_not_finite_can_be_rolled_back(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, back, loop, failed = run(tmp_path / "whole"), run(tmp_path / "back"), training.train, list[int]()
    train(whole, prepared)

    def failing_once(*arguments: object) -> Iterator[StepMetrics]:
        for step in loop(*arguments):
            yield step
            if step.number == 7 and not failed:
                failed.append(8)
                raise LOSS_IS_NAN

    monkeypatch.setattr(training, "train", failing_once)
    drained(back, prepared, OnNonFinite(Verdict(Action.ROLL_BACK, "the loss is not finite")))
    assert failed
    require_same(whole, back)


def test_without_a_decision_a_loss_that_is_not_finite_fails() -> None:
    for verdict in (GO_ON, Verdict(Action.STOP, "stop")):
        failed = after_non_finite([OnNonFinite(verdict)], 3, LOSS_IS_NAN)
        assert failed == Verdict(Action.FAIL, "loss nan")
    back = Verdict(Action.ROLL_BACK, "back")
    assert after_non_finite([OnNonFinite(GO_ON), OnNonFinite(back)], 3, LOSS_IS_NAN) == back


def test_a_validation_is_judged_where_there_was_one() -> None:
    stop = Verdict(Action.STOP, "no progress")
    assert after_step([OnValidation(stop)], STEP, {}, {}) == GO_ON
    assert after_step([OnValidation(stop)], STEP, {}, {"val/bpb": 1.0}) == stop
