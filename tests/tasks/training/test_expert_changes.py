"""A stage that changes its model's experts: what is logged, exported and kept, and the same bits however it ran."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.config.network import ModelConfig
from model.config.phases import phases
from model.config.training import ExpertChange
from model.training import checkpoint
from tasks.errors import Interrupted, NightStopped
from tasks.planning import cost, plan
from tasks.recipes.recipe import recipe_from
from tasks.training import run as training
from tasks.training.trained import CHECKPOINTS, MODEL_CONFIG, final_weights, load_trained
from tasks.training.validator import Validator
from tests.tasks.prepared import Prepared
from tests.tasks.rows import stage_record
from tests.tasks.training_runs import Killed, at_step, finished, interrupt, kill, run, train, weights
from tests.tiny_recipe import tiny_content, write_sources

pytestmark = pytest.mark.usefixtures("without_prefect")
BEFORE = {"upcycle": None, "grow": 2, "prune": 8, "merge": 8}
CHAIN = (
    ExpertChange(kind="upcycle", at_share=2 / 12),
    ExpertChange(kind="grow", at_share=5 / 12, num_experts_before=3),
    ExpertChange(kind="merge", at_share=7 / 12, num_experts_before=6),
    ExpertChange(kind="prune", at_share=1.0, num_experts_before=5),
)
EXPERTS = {0: 0, 1: 0, 2: 3, 3: 3, 4: 3, 5: 6, 6: 6, 7: 5, 8: 5, 9: 5, 10: 5, 11: 5, 12: 4}
"""Steps done, and how many experts the model then has; 0 is dense."""


def with_changes(prepared: Prepared, *changes: ExpertChange, optimizer: str = "adamw") -> Prepared:
    recipe, tokens = prepared
    optim = dataclasses.replace(recipe.pretrain.optim, name=optimizer)
    pretrain = dataclasses.replace(recipe.pretrain, expert_changes=changes, optim=optim, start="scratch")
    return dataclasses.replace(recipe, pretrain=pretrain), tokens


def experts_in(folder: Path) -> int:
    """Experts of a checkpoint's model, 0 if it is dense."""
    gate = load_file(folder / "model.safetensors").get("layers.0.mlp.gate.weight", torch.zeros(0))
    return len(gate)


@pytest.mark.parametrize("kind", BEFORE)
def test_a_change_is_scored_told_and_handed_on(
    prepared: Prepared, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    change = ExpertChange(kind=kind, at_share=5 / 12, num_experts_before=BEFORE[kind])
    recipe, tokens = changing = with_changes(prepared, change)
    stage = run(tmp_path / "pretrain")
    with caplog.at_level(logging.INFO, logger="nightschool"):
        outcome = train(stage, changing)
    logged = stage.tracker.logged_metrics
    assert [step for step, _ in logged["val/bpb"]] == [0, 4, 5, 8, 12]
    ((before_at, before), (after_at, after)) = (*logged["change/bpb_before"], *logged["change/bpb_after"])
    assert (before_at, after_at) == (5, 5)
    assert dict(logged["val/bpb"])[5] == after
    if kind == "upcycle":
        assert after == pytest.approx(before, rel=2e-3)
    else:
        assert after != before
        assert after == pytest.approx(before, rel=0.1)
    assert {"change/bpb_before": before, "change/bpb_after": after}.items() <= outcome.figures.items()
    summary = f"{kind} from {BEFORE[kind] or 'a dense model'} to 4 experts at step 5: "
    assert f"{summary}{before:.3f} → {after:.3f}" in outcome.headline
    assert f"{summary}validation {before:.4f} → {after:.4f} bits per byte" in caplog.text
    assert outcome.counts == {
        "steps": 12, "tokens_seen": outcome.counts["tokens_seen"], "parameters": recipe.model.total_parameters
    }  # fmt: skip
    assert (logged["plan/steps"], logged["outcome/steps"]) == ([(0, 12)], [(12, 12)])
    assert len(logged) <= 40
    assert "figures/expert-load.png" in stage.tracker.logged_artifacts
    assert ModelConfig(**json.loads((stage.folder / MODEL_CONFIG).read_text())) == recipe.model
    assert load_trained(stage.folder).config == recipe.model
    chat = run(tmp_path / "sft")
    finished(training.prepare(chat, "chat", tokens, recipe.model, recipe.sft, start_from=stage_record(stage.folder)))
    start = chat.tracker.logged_metrics["val/loss"][0]
    assert start[0] == 0
    assert start[1] < np.log(recipe.model.vocab_size)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_breaking_off_around_changes_leaves_the_same_bits(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    changing = with_changes(prepared, *CHAIN, optimizer=optimizer)
    whole, parts = run(tmp_path / "whole"), run(tmp_path / "parts")
    outcome = train(whole, changing)
    checkpoints = parts.folder / CHECKPOINTS

    def broken_off(error: type[BaseException], patched: dict[str, Any] | None = None) -> list[int]:
        """Try the stage until it breaks; the steps of the checkpoints there are then."""
        with monkeypatch.context() as patch:
            for where, what in (patched or {}).items():
                patch.setattr(training, where, what)
            with pytest.raises(error):
                train(parts, changing)
        found = checkpoint.discover(checkpoints)
        assert [experts_in(c.path) for c in found] == [EXPERTS[c.step] for c in found]
        return [c.step for c in found]

    with monkeypatch.context() as patch:
        at_step(5, kill, patch)
        assert broken_off(Killed) == [2, 3], "before the change"
    with monkeypatch.context() as patch:
        at_step(5, interrupt, patch)
        assert broken_off(Interrupted) == [3, 5], "with the change, asked to stop"
    with monkeypatch.context() as patch:
        patch.setattr(Validator, "batches", lambda *_: kill())
        assert broken_off(Killed) == [5, 6], "in the change"
    with monkeypatch.context() as patch:
        at_step(9, kill, patch)
        assert broken_off(Killed) == [6, 7], "after the change"
    assert broken_off(Killed, {"finish": lambda *_: kill()}) == [12], "with nothing left but the end"
    resumed = train(parts, changing)
    assert resumed.figures == outcome.figures
    assert [c.step for c in checkpoint.discover(checkpoints)] == [12]
    for name in ("model", "optimizer"):
        first, second = (load_file(final_weights(of.folder) / f"{name}.safetensors") for of in (whole, parts))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    curve = training.Curve(parts.logs / "curve.jsonl", until=10**9)
    assert [point["step"] for point in curve.points] == list(range(13))
    assert resumed.headline.split("; ")[1:] == outcome.headline.split("; ")[1:]
    assert [summary.split(" at")[0] for summary in resumed.headline.split("; ")[1:]] == [
        "upcycle from a dense model to 3 experts", "grow from 3 to 6 experts", "merge from 6 to 5 experts",
        "prune from 5 to 4 experts",
    ]  # fmt: skip
    assert experts_in(final_weights(parts.folder)) == 4


def test_an_empty_tuple_of_changes_is_a_stage_as_ever(prepared: Prepared, tmp_path: Path) -> None:
    stage = run(tmp_path / "stage")
    outcome = train(stage, with_changes(prepared))
    assert not [name for name in stage.tracker.logged_metrics if name.startswith("change/")]
    assert ";" not in outcome.headline
    assert len(weights(stage.folder)["layers.0.mlp.gate.weight"]) == 4


def test_impossible_changes_are_refused_with_everything_else_at_once(tmp_path: Path) -> None:
    content = tiny_content(write_sources(tmp_path))
    content["model"] |= {"gate": "sigmoid", "norm_topk_prob": False}
    content["pretrain"]["expert_changes"] = [
        {"kind": "grow", "at_share": 0.5, "num_experts_before": 1},
        {"kind": "upcycle", "at_share": 0.5},
        {"kind": "prune", "at_share": 0.9, "num_experts_before": 4},
    ]
    content["sft"]["expert_changes"] = [{"kind": "prune", "at_share": 0.5, "num_experts_before": 8}]
    with pytest.raises(NightStopped) as stop:
        recipe_from(content)
    for part in (
        "model.gate (sigmoid)",
        "pretrain.expert_changes.0 (grow): before it, ModelConfig: num_experts_per_tok (2)",
        "pretrain.expert_changes.1 (upcycle): must be the first change",
        "pretrain.expert_changes.1 (upcycle): norm_topk_prob (false)",
        "pretrain.expert_changes.2 (prune): num_experts_before (4) must be above the 4 after it",
        "pretrain.expert_changes.1 (upcycle) falls on step 6 of 12",
        "sft.expert_changes (1): experts change in pretraining alone",
        "pretrain.expert_changes at_share (0.9) with start (trunk): the trunk is kept where the decay begins, at 0.55",
    ):
        assert part in str(stop.value), stop.value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "split", "at_share": 0.5}, "pretrain.expert_changes.0.kind"),
        ({"kind": "prune", "at_share": 0.0, "num_experts_before": 8}, "at_share (0.0)"),
        ({"kind": "prune", "at_share": 0.5}, "num_experts_before (None) must be a number with prune"),
        ({"kind": "prune", "at_share": 0.5, "experts": 8}, "pretrain.expert_changes.0.experts"),
    ],
)
def test_a_malformed_change_is_told_its_field(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    content = tiny_content(write_sources(tmp_path))
    content["pretrain"]["expert_changes"] = [change]
    with pytest.raises(NightStopped) as stop:
        recipe_from(content)
    assert message in str(stop.value)


def test_the_plan_names_the_changes_and_keeps_room_for_the_largest(
    prepared: Prepared, brief_probes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "seconds_per_token", lambda *_: 1e-3)
    recipe, _ = with_changes(prepared, *CHAIN)
    lines = plan.plan_text(recipe).splitlines()
    changes = [line.split("  ")[-1].strip() for line in lines if line.startswith("change ")]
    assert changes == [str(phase) for phase in phases(recipe.model, CHAIN, 12)[1:]]
    assert f"{recipe.model.total_parameters:,} parameters" in lines[0]
    assert "12 steps" in next(line for line in lines if line.startswith("pretrain "))
    larger = dataclasses.replace(recipe.model, num_experts=6).total_parameters - recipe.model.total_parameters
    kept = recipe.pretrain.keep_checkpoints
    one_size, _ = with_changes(prepared)
    assert plan.disk_bytes(recipe) - plan.disk_bytes(one_size) == 12 * kept * larger
    assert plan.disk_bytes(prepared[0]) - plan.disk_bytes(one_size) == 12 * recipe.model.total_parameters, "the trunk"


def test_changes_are_set_like_any_other_value(prepared: Prepared) -> None:
    change = {"kind": "prune", "at_share": 0.5, "num_experts_before": 8}
    recipe = prepared[0].with_overrides({"pretrain.expert_changes": [change]})
    assert recipe.pretrain.expert_changes == (ExpertChange(**change),)
    earlier = recipe.with_overrides({"pretrain.expert_changes.0.at_share": 0.25})
    assert earlier.pretrain.expert_changes[0].at_share == 0.25
