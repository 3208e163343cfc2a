"""The plan says what will be executed, and what it would cost otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config.network import ModelConfig
from model.config.training import ExpertChange, TrainConfig
from model.training.state import TrainState
from model.training.trainer import train
from tasks.planning import cost, plan
from tasks.planning.cost import plan_stage
from tasks.planning.plan import alternatives, disk_bytes, duration, plan_text
from tasks.planning.probe import seconds_per_token
from tasks.recipes.recipe import recipe_from
from tests.model.tiny import SLOTS, packed_rows, tiny_config, tiny_training
from tests.tasks.recipes.test_recipe import CONTENT


@pytest.mark.parametrize("micro_batch_rows", [1, 2, 4])
@pytest.mark.parametrize("num_tokens", [1, 500, 700])
def test_the_planned_steps_are_the_executed_ones(num_tokens: int, micro_batch_rows: int) -> None:
    config = tiny_training(num_tokens=num_tokens, micro_batch_rows=micro_batch_rows)
    executed = list(train(TrainState.create(tiny_config(), config), packed_rows(), config))
    assert plan_stage(tiny_config(), config, SLOTS).steps == len(executed)


def test_ranks_change_no_step_and_share_the_time_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    one = tiny_training(batch_rows=8, micro_batch_rows=2)
    two = replace(one, num_ranks=2)
    assert seconds_per_token(tiny_config(), two, SLOTS) > 0
    monkeypatch.setattr(cost, "seconds_per_token", lambda *_: 0.25)
    assert plan_stage(tiny_config(), two, SLOTS) == plan_stage(tiny_config(), one, SLOTS)
    monkeypatch.setattr(cost, "best_device", lambda: torch.device("cuda"))
    on_gpus = plan_stage(tiny_config(), two, SLOTS)
    assert on_gpus.steps == plan_stage(tiny_config(), one, SLOTS).steps
    assert on_gpus.seconds == plan_stage(tiny_config(), one, SLOTS).seconds / 2


def test_time_is_that_of_all_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "seconds_per_token", lambda *_: 0.25)
    config = tiny_training(num_tokens=10 * 4 * SLOTS)
    assert plan_stage(tiny_config(), config, SLOTS).seconds == 10 * 4 * SLOTS * 0.25


CHANGES = (
    ExpertChange(kind="upcycle", at_share=0.2),
    ExpertChange(kind="prune", at_share=0.5, num_experts_before=16),
    ExpertChange(kind="grow", at_share=1.0, num_experts_before=3),
)


def test_each_phase_is_probed_for_its_share_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, probed = {1: 1.0, 16: 10.0, 3: 100.0}, []

    def probe(model: ModelConfig, config: TrainConfig, tokens: int) -> float:
        probed.append((model.num_experts, config.num_steps(tokens)))
        return seconds[model.num_experts]

    monkeypatch.setattr(cost, "seconds_per_token", probe)
    config = tiny_training(num_tokens=10 * 4 * SLOTS, expert_changes=CHANGES)
    planned = plan_stage(tiny_config(), config, SLOTS)
    assert planned.steps == 10
    assert planned.seconds == (2 * 1.0 + 3 * 10.0 + 5 * 100.0) * 4 * SLOTS
    assert probed == [(1, 2), (16, 3), (3, 5)]


def test_memory_is_that_of_the_largest_phase_or_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "seconds_per_token", lambda *_: 0.0)
    model, config = ModelConfig(), tiny_training()
    large = replace(model, num_experts=16)
    pruned = tiny_training(expert_changes=(ExpertChange(kind="prune", at_share=0.5, num_experts_before=16),))
    peak = plan_stage(model, pruned, SLOTS).peak_memory_bytes
    assert peak >= plan_stage(large, config, SLOTS).peak_memory_bytes
    assert peak > 12 * (large.total_parameters + model.total_parameters)


def test_a_probe_measures_and_leaves_time_for_the_rest() -> None:
    assert seconds_per_token(tiny_config(), tiny_training(), SLOTS) > 0


def test_more_parameters_rows_or_slots_take_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "seconds_per_token", lambda *_: 0.0)
    model, config = ModelConfig(), TrainConfig()
    base = plan_stage(model, config, 512).peak_memory_bytes
    assert base > 16 * model.total_parameters
    for other in (
        plan_stage(replace(model, num_experts=8), config, 512),
        plan_stage(model, replace(config, batch_rows=32, micro_batch_rows=32), 512),
        plan_stage(model, config, 1024),
    ):
        assert other.peak_memory_bytes > base


@settings(max_examples=100)
@given(st.sampled_from([2, 4, 6, 8, 12]), st.integers(1, 3), st.booleans())
def test_alternatives_cost_a_token_the_same_parameters(experts: int, top_k: int, dense: bool) -> None:
    if top_k > experts:
        return
    model = tiny_config(num_experts=experts, num_experts_per_tok=top_k, norm_topk_prob=top_k > 1, dense=dense)
    found = dict(alternatives(model))
    assert bool(found) != dense
    for other in found.values():
        router = model.num_hidden_layers * model.hidden_size * (0 if other.dense else other.num_experts)
        ours = model.num_hidden_layers * model.hidden_size * model.num_experts
        assert other.active_parameters - router == model.active_parameters - ours


@pytest.mark.parametrize("twin", [False, True])
def test_the_plan_holds_every_training_and_the_sum_of_their_times(twin: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "seconds_per_token", lambda model, *_: 0.5 if model.dense else 1.0)
    monkeypatch.setattr(plan, "time_shares", lambda model, other, *_: (0.4, 0.6) if other.dense else (0.9, 1.1))
    recipe = recipe_from(
        CONTENT
        | {"twin": twin, "pretrain": {"num_tokens": 16 * 512 * 3, "start": "scratch"}}
        | {"sft": {"num_tokens": 16 * 512, "replay_share": 0.25}}
    )
    text = plan_text(recipe)
    stages = [line.split()[0] for line in text.splitlines() if " of 8,192 tokens, " in line]
    assert stages == ["pretrain", "sft", *(["twin-pretrain", "twin-sft"] if twin else [])]
    replayed = [line.split()[0] for line in text.splitlines() if ", 25% of the rows text of pretraining, " in line]
    assert replayed == [stage for stage in stages if stage.endswith("sft")]
    seconds = 16 * 512 * 4 * (1.5 if twin else 1.0)
    assert f"{duration(seconds)} of training on this machine" in text
    assert ("its dense twin:" in text) != twin
    assert ("0.40 to 0.60 of the time a token" in text) != twin
    more = disk_bytes(recipe) - disk_bytes(replace(recipe, twin=False))
    assert more == (replace(recipe.model, dense=True).total_parameters * 12 * 4 if twin else 0)


def test_half_the_experts_is_no_choice_where_a_token_needs_them_all() -> None:
    assert list(dict(alternatives(tiny_config(num_experts=2)))) == ["its dense twin"]
    assert len(dict(alternatives(tiny_config(num_experts=4)))) == 2
