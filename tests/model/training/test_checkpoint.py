from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.config.training import TrainConfig
from model.network.transformer import Transformer
from model.optim.groups import build_optimizer
from model.training.checkpoint import CheckpointMismatch, discover, load_into, load_weights, save
from model.training.state import TrainState
from model.training.trainer import train
from tests.model.tiny import packed_rows, tiny_config, tiny_training

IDENTITY = "0123456789abcdef"
FILES = {"model.safetensors", "optimizer.safetensors", "meta.json"}


def fresh(config: TrainConfig, seed: int = 1) -> TrainState:
    model = Transformer(tiny_config(num_hidden_layers=1), seed=seed)
    return TrainState(model, build_optimizer(model, config.optim))


def train_until(state: TrainState, config: TrainConfig, number: int) -> TrainState:
    for step in train(state, packed_rows(), config):
        if step.number == number:
            break
    return state


def assert_same_bits(left: TrainState, right: TrainState) -> None:
    assert (left.step, left.tokens_seen) == (right.step, right.tokens_seen)
    ours, theirs = dict(left.model.named_parameters()), dict(right.model.named_parameters())
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
        moments, expected = left.optimizer.state[ours[name]], right.optimizer.state[theirs[name]]
        assert moments.keys() == expected.keys() == {"step", "exp_avg", "exp_avg_sq"}
        for key in moments:
            assert torch.equal(moments[key], expected[key]), f"{name}:{key}"


@pytest.fixture
def two_checkpoints(tmp_path: Path) -> Path:
    """A folder with checkpoints of steps 1 and 2."""
    config = tiny_training()
    state = fresh(config)
    for number in (1, 2):
        save(train_until(state, config, number), tmp_path, IDENTITY)
    return tmp_path


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_interrupted_run_gives_the_same_bits(tmp_path: Path, precision: str) -> None:
    config = tiny_training(precision=precision)
    straight = train_until(fresh(config), config, 6)
    for attempt in ("first", "second"):
        save(train_until(fresh(config), config, 3), tmp_path / attempt, IDENTITY)
        resumed = fresh(config, seed=99)
        load_into(resumed, discover(tmp_path / attempt)[-1], IDENTITY)
        assert resumed.step == 3
        assert_same_bits(train_until(resumed, config, 6), straight)


def test_a_checkpoint_replaces_whatever_the_state_held(two_checkpoints: Path) -> None:
    config = tiny_training()
    state = train_until(fresh(config, seed=99), config, 4)
    load_into(state, discover(two_checkpoints)[-1], IDENTITY)
    assert_same_bits(state, train_until(fresh(config), config, 2))


def test_saving_changes_nothing_in_the_state(tmp_path: Path) -> None:
    config = tiny_training()
    state = train_until(fresh(config), config, 2)
    save(state, tmp_path, IDENTITY)
    assert_same_bits(state, train_until(fresh(config), config, 2))


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", flip_byte),
        ("model.safetensors", truncate),
        ("model.safetensors", Path.unlink),
        ("optimizer.safetensors", flip_byte),
        ("optimizer.safetensors", truncate),
        ("optimizer.safetensors", Path.unlink),
        ("meta.json", truncate),
        ("meta.json", Path.unlink),
    ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    two_checkpoints: Path, name: str, damage: Callable[[Path], None]
) -> None:
    assert [checkpoint.step for checkpoint in discover(two_checkpoints)] == [1, 2]
    damage(two_checkpoints / "step-00000002" / name)
    assert [checkpoint.step for checkpoint in discover(two_checkpoints)] == [1]


def test_a_half_written_checkpoint_is_ignored_and_then_replaced(two_checkpoints: Path) -> None:
    half_written = two_checkpoints / ".step-00000003.tmp"
    shutil.copytree(two_checkpoints / "step-00000002", half_written)
    (half_written / "left over").touch()
    assert [checkpoint.step for checkpoint in discover(two_checkpoints)] == [1, 2]

    config = tiny_training()
    saved = save(train_until(fresh(config), config, 3), two_checkpoints, IDENTITY, keep=3)
    assert {path.name for path in saved.path.iterdir()} == FILES
    assert not half_written.exists()
    assert [checkpoint.step for checkpoint in discover(two_checkpoints)] == [1, 2, 3]


def test_no_checkpoint_is_found_where_there_is_no_folder(tmp_path: Path) -> None:
    assert discover(tmp_path / "nowhere") == []


def test_another_identity_is_refused_before_anything_is_loaded(two_checkpoints: Path) -> None:
    config = tiny_training()
    state = train_until(fresh(config, seed=7), config, 1)
    with pytest.raises(CheckpointMismatch, match="step-00000002 was written by run 0123456789ab, this is run ffff"):
        load_into(state, discover(two_checkpoints)[-1], "ffff")
    assert_same_bits(state, train_until(fresh(config, seed=7), config, 1))


@pytest.mark.parametrize("keep", [1, 2])
def test_only_the_newest_checkpoints_are_kept(tmp_path: Path, keep: int) -> None:
    config = tiny_training()
    state = fresh(config)
    for number in range(1, 5):
        save(train_until(state, config, number), tmp_path, IDENTITY, keep=keep)
    kept = [f"step-{number:08d}" for number in range(5 - keep, 5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
    assert [checkpoint.path.name for checkpoint in discover(tmp_path)] == kept


def test_a_damaged_checkpoint_does_not_count_as_kept(two_checkpoints: Path) -> None:
    flip_byte(two_checkpoints / "step-00000002" / "model.safetensors")
    config = tiny_training()
    save(train_until(fresh(config), config, 3), two_checkpoints, IDENTITY, keep=2)
    assert [checkpoint.step for checkpoint in discover(two_checkpoints)] == [1, 3]


def test_a_step_saved_again_takes_the_place_of_the_first(two_checkpoints: Path) -> None:
    config = tiny_training()
    other = train_until(fresh(config, seed=5), config, 2)
    save(other, two_checkpoints, "other")
    last = discover(two_checkpoints)[-1]
    assert (last.step, last.identity) == (2, "other")
    loaded = fresh(config)
    load_into(loaded, last, "other")
    assert_same_bits(loaded, other)


def test_a_checkpoint_is_safetensors_and_json_without_pickle(two_checkpoints: Path) -> None:
    last = discover(two_checkpoints)[-1].path
    assert {path.name for path in last.rglob("*")} == FILES
    meta = json.loads((last / "meta.json").read_text())
    assert (meta["step"], meta["identity"]) == (2, IDENTITY)
    names = {name for name, _ in fresh(tiny_training()).model.named_parameters()}
    assert load_file(last / "model.safetensors").keys() == names
    moments = {f"{name}:{key}" for name in names for key in ("step", "exp_avg", "exp_avg_sq")}
    assert load_file(last / "optimizer.safetensors").keys() == moments


def test_weights_alone_start_the_next_stage(two_checkpoints: Path) -> None:
    model = Transformer(tiny_config(num_hidden_layers=1), seed=8)
    load_weights(model, two_checkpoints / "step-00000002")
    trained = train_until(fresh(tiny_training()), tiny_training(), 2).model
    assert all(torch.equal(weight, trained.state_dict()[name]) for name, weight in model.state_dict().items())


def test_a_model_of_another_shape_is_refused(two_checkpoints: Path) -> None:
    last = discover(two_checkpoints)[-1]
    deeper = Transformer(tiny_config(num_hidden_layers=2))
    with pytest.raises(RuntimeError, match=r"layers\.1\.self_attn\.q_proj\.weight"):
        load_weights(deeper, last.path)
    with pytest.raises(RuntimeError, match=r"layers\.1\.self_attn\.q_proj\.weight"):
        load_into(TrainState(deeper, build_optimizer(deeper, tiny_training().optim)), last, IDENTITY)
