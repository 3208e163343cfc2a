"""A training that goes on from a trunk: the same bits as one that was never parted, and as one that was broken off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.optim.groups import set_learning_rate
from model.tokens.order import rows_of_step
from model.training import checkpoint
from model.training.batches import batch_of_rows
from model.training.state import TrainState
from model.training.trainer import accumulate_gradients, clip_gradients
from tasks.errors import Interrupted, NightStopped
from tasks.home.contents.packed import open_packed
from tasks.home.contents.pretrained import TRUNK, read_noted, reading_of
from tasks.home.contents.story import told_events
from tasks.home.journal import Journal
from tasks.home.records import StageRecord
from tasks.home.trunk import FROM_SCRATCH, Start
from tasks.recipes.pretrain_config import PretrainConfig, PretrainOptimConfig
from tasks.stage import StageRun
from tasks.training import run as training
from tasks.training.training_run import TrainingRun
from tests.tasks.prepared import Prepared
from tests.tasks.rows import stage_record
from tests.tasks.training_runs import Killed, at_step, finished, interrupt, kill, run, weights

pytestmark = pytest.mark.usefixtures("without_prefect")
STEPS, BRANCH = 12, 7
"""Of the tiny recipe's pretraining: half of it at the peak after a warm-up of a twentieth."""


@pytest.fixture(scope="module")
def first_night(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> StageRecord:
    """A pretrain stage from scratch in a home; to be read only."""
    from tests.tasks.conftest import silence_prefect

    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        silence_prefect(patch)
        outcome = finished(begin(stage_in(home, "pretrain@first"), prepared, FROM_SCRATCH))
    folder = home / "data" / "pretrain@first"
    config = {"model": vars(prepared[0].model), "train": {**vars(prepared[0].pretrain), "optim": {"name": "adamw"}}}
    record = stage_record(folder, stage="pretrain", digest="first", counts=dict(outcome.counts), config=config)
    record.write(folder)
    return record


def stage_in(home: Path, name: str) -> StageRun:
    started = run(home / "data" / name)
    night = SimpleNamespace(home=home, recipe=SimpleNamespace(name="tiny"), journal=Journal(home), token=0)
    return replace(started, night=night)


def begin(stage: StageRun, prepared: Prepared, start: Start, **changes: Any) -> TrainingRun:
    recipe, tokens = prepared
    config = replace(recipe.pretrain, precision="fp32", **changes)
    return training.prepare(stage, "pretrain", tokens, recipe.model, config, trunk=start)


def on_from(first: StageRecord, how: Any = "trunk", of: Any = "trunk") -> Start:
    return Start(how=how, parent=first.path.name, checkpoint=of, reason="goes on")


def second_stage(first: StageRecord, tmp_path: Path, name: str = "second") -> StageRun:
    """In a home of its own that holds the first night's folder."""
    home = tmp_path / "home"
    if not (home / "data").exists():
        (home / "data").mkdir(parents=True)
        (home / "data" / first.path.name).symlink_to(first.path)
    return stage_in(home, f"pretrain@{name}")


def trunk_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.discover(folder / TRUNK)[-1].path / "model.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_trunk_is_the_state_before_the_decay(first_night: StageRecord, prepared: Prepared) -> None:
    noted = read_noted(first_night.path)
    assert (noted["branch_step"], noted["num_steps"], noted["nights"]) == (BRANCH, STEPS, 1)
    [saved] = checkpoint.discover(first_night.path / TRUNK)
    assert saved.step == BRANCH
    assert [(event["step"], event["kind"]) for event in told_events(first_night.path)] == [(BRANCH, "branch")]
    assert not same(trunk_of(first_night.path), weights(first_night.path))


def test_going_on_is_one_training_at_the_peak_rate(
    first_night: StageRecord, prepared: Prepared, tmp_path: Path
) -> None:
    """The second night's trunk is that of a loop, written out, which goes on where the first night's trunk was."""
    stage = second_stage(first_night, tmp_path)
    second = begin(stage, prepared, on_from(first_night), replay_share=0.5)
    finished(second)
    recipe, packed = prepared
    tokens, config = open_packed(packed, "pretrain", "train"), recipe.pretrain
    state = TrainState.create(second.start.model, config)
    checkpoint.load_model_and_optimizer(state, checkpoint.discover(first_night.path / TRUNK)[-1].path)
    assert second.branch_step == BRANCH
    for step in range(BRANCH):
        rows = rows_of_step(tokens.num_rows, config.batch_rows, config.seed, step, second.start.replay)
        accumulate_gradients(state.model, batch_of_rows(tokens, rows), replace(config, precision="fp32"))
        clip_gradients(state.model, config.optim.clip_norm)
        set_learning_rate(state.optimizer, config.optim.peak_lr)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
    assert same(trunk_of(stage.folder), dict(state.model.state_dict()))


def test_a_night_that_was_broken_off_goes_on_with_the_same_bits(
    first_night: StageRecord, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = (second_stage(first_night, tmp_path, name) for name in ("whole", "parts"))
    finished(begin(whole, prepared, on_from(first_night)))
    for step in (5, 9):  # before the trunk is kept, and after
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            at_step(step, interrupt, patch)
            finished(begin(parts, prepared, on_from(first_night)))
    finished(begin(parts, prepared, on_from(first_night)))
    assert same(weights(whole.folder), weights(parts.folder))
    assert same(trunk_of(whole.folder), trunk_of(parts.folder))


def test_a_kill_at_a_checkpoint_of_the_step_where_it_branches_loses_no_trunk(
    first_night: StageRecord, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, save = second_stage(first_night, tmp_path), checkpoint.save

    def save_and_die(state: TrainState, *arguments: Any, **named: Any) -> None:
        save(state, *arguments, **named)
        if state.step == BRANCH:
            kill()

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("tasks.training.training_run.checkpoint.save", save_and_die)
        finished(begin(stage, prepared, on_from(first_night), checkpoint_every_steps=BRANCH))
    finished(begin(stage, prepared, on_from(first_night), checkpoint_every_steps=BRANCH))
    assert [saved.step for saved in checkpoint.discover(stage.folder / TRUNK)] == [BRANCH]


def test_a_stage_of_few_steps_has_a_trunk_too(prepared: Prepared, tmp_path: Path) -> None:
    optim = replace(prepared[0].pretrain.optim, stable_share=0.2)
    short = begin(stage_in(tmp_path, "pretrain@short"), prepared, FROM_SCRATCH, num_tokens=64 * 4, optim=optim)
    assert (short.num_steps, short.branch_step) == (1, 1)


def test_new_rows_are_those_that_the_trunk_has_not_read_and_what_was_read_adds_up(
    first_night: StageRecord, prepared: Prepared, tmp_path: Path
) -> None:
    tokens = open_packed(prepared[1], "pretrain", "train")
    batch_rows, seed = prepared[0].pretrain.batch_rows, prepared[0].pretrain.seed
    by_trunk = {r for s in range(BRANCH) for r in rows_of_step(tokens.num_rows, batch_rows, seed, s).tolist()}
    stage = second_stage(first_night, tmp_path)
    second = begin(stage, prepared, on_from(first_night), replay_share=0.25)
    replay = second.start.replay
    assert replay is not None
    assert set(replay.replayed.tolist()) == by_trunk
    finished(second)
    record = stage_record(stage.folder, stage="pretrain", counts={"steps": STEPS}, config={"train": {}})
    times = np.zeros(tokens.num_rows, dtype=int)
    for step in range(BRANCH):
        np.add.at(times, rows_of_step(tokens.num_rows, batch_rows, seed, step), 1)
    for step in range(STEPS):
        np.add.at(times, rows_of_step(tokens.num_rows, batch_rows, seed, step, replay), 1)
    assert reading_of(record, tokens.num_rows).times_read().tolist() == times.tolist()
    assert read_noted(stage.folder)["nights"] == 2


def test_the_champions_cooled_weights_are_warmed_up_again(
    first_night: StageRecord, prepared: Prepared, tmp_path: Path
) -> None:
    stage = second_stage(first_night, tmp_path)
    second = begin(stage, prepared, on_from(first_night, "weights", "checkpoints"))
    assert same(dict(second.state.model.state_dict()), weights(first_night.path))
    assert not second.state.optimizer.state, "its moments are its own"
    assert second.start.config.optim == prepared[0].pretrain.optim, "with the warm-up"


def test_a_budget_in_minutes_becomes_steps_once(first_night: StageRecord, prepared: Prepared, tmp_path: Path) -> None:
    stage = second_stage(first_night, tmp_path)
    begun = begin(stage, prepared, on_from(first_night), night_minutes=0.01)
    again = begin(stage, prepared, on_from(first_night), night_minutes=0.01)
    assert begun.num_steps == again.num_steps > 0
    assert begun.start.identity == again.start.identity


def test_a_trunk_that_is_gone_is_told_with_its_cure(
    first_night: StageRecord, prepared: Prepared, tmp_path: Path
) -> None:
    stage = second_stage(first_night, tmp_path)
    gone = Start(how="trunk", parent="pretrain@gone", reason="goes on")
    with pytest.raises(NightStopped, match="pretrain@gone/trunk, which this night goes on from, is gone"):
        begin(stage, prepared, gone)


def test_a_trunk_needs_a_stretch_at_the_peak() -> None:
    with pytest.raises(ValueError, match=r"start \(trunk\) with optim.stable_share \(0\)"):
        PretrainConfig(optim=PretrainOptimConfig(stable_share=0.0))
    assert PretrainConfig().optim.stable_share == 0.75
    with pytest.raises(ValueError, match=r"night_tokens \(5\) and night_minutes \(1\) are two budgets"):
        PretrainConfig(start="scratch", night_tokens=5, night_minutes=1)
