"""A stage over two processes: the same bits however it was broken off, and no process that stays or is waited for."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.config.training import ExpertChange, TrainConfig
from tasks.errors import Diverged, Interrupted, NightStopped
from tasks.planning.cost import StagePlan
from tasks.training import processes as ranks
from tasks.training import run as training
from tasks.training.start import TrainingStart
from tasks.training.trained import final_weights
from tests.killed import outliving
from tests.tasks.prepared import Prepared
from tests.tasks.training_runs import at_step, interrupt, run, train

pytestmark = pytest.mark.usefixtures("without_prefect", "without_plan")


@pytest.fixture
def without_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan measures how fast this machine is, in seconds that these tests do not need."""
    monkeypatch.setattr(training, "plan_stage", lambda *_: StagePlan(0, 0.0, 0))


def two_ranks(prepared: Prepared) -> TrainConfig:
    """One micro-batch each, and an expert more in the middle."""
    grow = ExpertChange(kind="grow", at_share=7 / 12, num_experts_before=3)
    return dataclasses.replace(prepared[0].pretrain, num_ranks=2, expert_changes=(grow,))


def start_of(prepared: Prepared, weights: Path | None = None) -> TrainingStart:
    recipe, tokens = prepared
    return TrainingStart(
        stage="pretrain", kind="pretrain", tokens=tokens, model=recipe.model, config=two_ranks(prepared),
        compile_blocks=False, identity="identity", resume_from=None, initial_weights=weights,
    )  # fmt: skip


def tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(final_weights(folder) / f"{name}.safetensors")


def signal_others(number: signal.Signals) -> None:
    for process in multiprocessing.active_children():
        os.kill(process.pid or 0, number)


def test_two_ranks_train_as_one_process_and_go_on_with_the_same_bits(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, one, whole, parts = two_ranks(prepared), *(run(tmp_path / name) for name in ("one", "whole", "parts"))
    train(one, prepared, dataclasses.replace(config, num_ranks=1, micro_batch_rows=4))
    outcome = train(whole, prepared, config)

    def stop_all() -> None:
        """As a terminal does, which asks every process."""
        signal_others(signal.SIGINT)
        signal_others(signal.SIGTERM)
        interrupt()

    with monkeypatch.context() as patch:
        at_step(5, stop_all, patch)
        with pytest.raises(Interrupted, match="step 5 of 12; the checkpoint is saved"):
            train(parts, prepared, config)
    assert not multiprocessing.active_children()
    resumed = train(parts, prepared, config)
    assert resumed.figures == outcome.figures
    for name in ("model", "optimizer"):
        first, second = tensors(whole.folder, name), tensors(parts.folder, name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    curves = [training.Curve(stage.logs / "curve.jsonl", until=99) for stage in (one, whole, parts)]
    assert [point["step"] for point in curves[2].points] == list(range(13))
    for key in ("train/loss", "train/tokens_seen", "val/bpb", "change/bpb_after"):
        of_one, of_whole, of_parts = (curve.values(key) for curve in curves)
        assert of_parts == of_whole
        assert np.allclose(of_whole, of_one, rtol=5e-3)
    assert not multiprocessing.active_children()


def test_a_rank_that_is_killed_stops_the_stage_with_its_name(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(4, lambda: signal_others(signal.SIGKILL), monkeypatch)
    stage = run(tmp_path / "stage")
    with pytest.raises(NightStopped, match=r"pretrain: rank 1 of 2 was ended by SIGKILL.*run the same again"):
        train(stage, prepared, two_ranks(prepared))
    assert [path.name for path in (stage.folder / "checkpoints").iterdir()] == ["step-00000003"]
    assert not multiprocessing.active_children()


def test_a_rank_that_fails_is_named_with_its_error_and_threads_are_given_back(
    prepared: Prepared, tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    start = start_of(prepared, weights=tmp_path / "nowhere")
    with (
        pytest.raises(NightStopped, match=r"rank 1 of 2 ended with code 1: \w*(Not|No)\w*.*rank-1\.log"),
        ranks.rank_processes(start, tmp_path),
    ):
        raise AssertionError("nobody to train with")
    assert "Traceback" in (tmp_path / "ranks" / "rank-1.log").read_text()
    assert torch.get_num_threads() == threads
    assert not multiprocessing.active_children()


def test_a_rank_that_is_lost_and_lives_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that broke says nothing of a time that nobody waited."""
    monkeypatch.setattr(ranks, "EXIT_CODE_SECONDS", 0.0)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=theirs.recv, daemon=True)
    process.start()
    lost = ranks.RankLost("rank 0 of 2 lost another:\n Connection closed by peer")
    other = ranks.RankProcess(1, process, ours, Path("rank-1.log"))
    try:
        told = ranks.lost_rank([other], 2, lost)
    finally:
        other.end()
    assert told == "one of 2 ranks was lost and has not ended: rank 0 of 2 lost another: Connection closed by peer"


def test_more_ranks_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "best_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    ranks.require_devices(1)
    with pytest.raises(NightStopped, match=r"num_ranks \(2\) is more than the 1 GPUs"):
        ranks.require_devices(2)


@pytest.mark.slow
def test_divergence_ends_all_ranks_with_the_message_of_one(prepared: Prepared, tmp_path: Path) -> None:
    wild = dataclasses.replace(prepared[0].pretrain.optim, peak_lr=1e6, clip_norm=1e9)
    config = dataclasses.replace(two_ranks(prepared), optim=wild, precision="fp32")
    with pytest.raises(Diverged, match=r"pretrain: step \d+: loss .* lower optim.peak_lr"):
        train(run(tmp_path / "stage"), prepared, config)
    assert not multiprocessing.active_children()


def lead(line: Connection, start: TrainingStart, logs: Path) -> None:
    """Be rank 0, send the process id of rank 1, and train nothing."""
    with ranks.rank_processes(start, logs):
        (other,) = multiprocessing.active_children()
        line.send([other.pid])
        line.recv()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a rank learns of the end of rank 0 from the next sum")
def test_ranks_do_not_outlive_a_rank_0_that_is_killed(prepared: Prepared, tmp_path: Path) -> None:
    assert not outliving(lead, start_of(prepared), tmp_path)
