from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from model.config.network import ExpertPath
from model.config.training import TrainConfig
from tasks.planning import expert_path
from tasks.planning.expert_path import CHOICE_FILE, choose_expert_path
from tests.model.tiny import tiny_config

CONFIG = TrainConfig(batch_rows=2, micro_batch_rows=2)


@pytest.mark.parametrize("path", ["grouped", "loop"])
def test_what_the_recipe_says_is_not_probed(tmp_path: Path, path: ExpertPath) -> None:
    model = tiny_config(expert_path=path)
    assert choose_expert_path(tmp_path, "pretrain", model, CONFIG, 32) == model
    assert (
        choose_expert_path(tmp_path, "pretrain", dense := tiny_config(dense=True, expert_path="auto"), CONFIG, 32)
        == dense
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("loop", "expected"), [(0.5, "loop"), (2.0, "grouped")])
def test_a_stage_keeps_the_path_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: float, expected: ExpertPath
) -> None:
    model = tiny_config(expert_path="auto")
    monkeypatch.setattr(expert_path, "expert_seconds", lambda *_: {"grouped": 1.0, "loop": loop})
    wanted = replace(model, expert_path=expected)
    assert choose_expert_path(tmp_path, "pretrain", model, CONFIG, 32) == wanted
    monkeypatch.setattr(expert_path, "expert_seconds", lambda *_: {"grouped": 1.0, "loop": 1 / loop})
    assert choose_expert_path(tmp_path, "pretrain", model, CONFIG, 32) == wanted, "resumed"


def test_a_real_probe_chooses_one_of_the_paths(tmp_path: Path) -> None:
    model = choose_expert_path(tmp_path, "pretrain", tiny_config(expert_path="auto"), CONFIG, 32)
    assert model.expert_path in ("grouped", "loop")
    assert json.loads((tmp_path / CHOICE_FILE).read_text())["expert_path"] == model.expert_path
