from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
import torch

from model.config.network import ModelConfig
from model.config.training import TrainConfig
from tasks.planning import compiling
from tasks.planning.compiling import CHOICE_FILE, MIN_SAVING, MIN_STAGE_SECONDS, CompileProbe, should_compile
from tests.model.tiny import tiny_config

HOUR = 3_600.0


def config(choice: Literal["auto", "always", "never"] = "auto") -> TrainConfig:
    return TrainConfig(compile_blocks=choice, precision="bf16")


def probe_finds(result: CompileProbe | Exception, monkeypatch: pytest.MonkeyPatch) -> list[ModelConfig]:
    """Replace the probe by one with this result; returns the list of models that are then probed."""
    probed = []

    def probe(model: ModelConfig, *_: object) -> CompileProbe:
        probed.append(model)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(compiling, "probe_compiling", probe)
    return probed


@pytest.mark.parametrize(("choice", "expected"), [("always", True), ("never", False)])
def test_what_the_recipe_says_is_not_probed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: Literal["always", "never"], expected: bool
) -> None:
    probed = probe_finds(CompileProbe(1.0, 0.5), monkeypatch)
    assert should_compile(tmp_path, "pretrain", tiny_config(), config(choice), 32, HOUR) == expected
    assert not probed


def test_a_short_stage_is_not_even_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probed = probe_finds(CompileProbe(1.0, 0.5), monkeypatch)
    assert not should_compile(tmp_path, "pretrain", tiny_config(), config(), 32, MIN_STAGE_SECONDS - 1)
    assert not probed


@pytest.mark.parametrize(
    ("seconds", "share", "expected"), [(60, 0.75, True), (60, 0.96, False), (60, 1.2, False), (400, 0.75, False)]
)
def test_a_long_stage_is_compiled_if_that_saves_well_more_than_it_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, share: float, expected: bool
) -> None:
    probed = probe_finds(CompileProbe(seconds, share), monkeypatch)
    assert (HOUR * (1 - share) > MIN_SAVING * seconds) == expected
    assert should_compile(tmp_path, "pretrain", tiny_config(), config(), 32, HOUR) == expected
    assert should_compile(tmp_path, "pretrain", tiny_config(), config(), 32, 0.0) == expected, "resumed"
    assert len(probed) == 1


def test_a_machine_without_a_compiler_trains_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe_finds(RuntimeError("no C++ compiler\nand so on"), monkeypatch)
    assert not should_compile(tmp_path, "pretrain", tiny_config(), config(), 32, HOUR)
    assert json.loads((tmp_path / CHOICE_FILE).read_text()) == {
        "compiles": False,
        "probe": None,
        "problem": "no C++ compiler",
    }


@pytest.mark.parametrize("choice", ["auto", "always"])
def test_a_mixture_on_a_cpu_without_units_for_bf16_is_not_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: Literal["auto", "always"]
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": False})
    monkeypatch.setattr(compiling, "best_device", lambda: torch.device("cpu"))
    probed = probe_finds(CompileProbe(1.0, 0.5), monkeypatch)
    short = TrainConfig(compile_blocks=choice)
    assert not should_compile(tmp_path, "pretrain", tiny_config(), short, 32, HOUR)
    assert not probed
    assert should_compile(tmp_path, "pretrain", tiny_config(dense=True), short, 32, HOUR)


def test_fp32_is_not_compiled_by_force() -> None:
    with pytest.raises(ValueError, match=r"compile_blocks \(always\) with precision \(fp32\)"):
        TrainConfig(compile_blocks="always", precision="fp32")
