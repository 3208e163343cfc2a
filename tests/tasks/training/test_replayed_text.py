"""Fine-tuning that reads text of pretraining, too: which rows, told as such, and the same after a kill."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.tokens.packing import ShardedTokens
from model.training import checkpoint
from model.training.batches import batch_of_rows, batch_of_step
from tasks.errors import Interrupted
from tasks.home.contents.packed import digest_of_kind, open_packed, open_segments
from tasks.home.contents.pretrained import reading_of, replayed_of
from tasks.home.records import StageRecord
from tasks.recipes.sft_config import SftConfig
from tasks.training import run as training
from tasks.training.start import open_rows
from tasks.training.training_run import TrainingRun
from tests.tasks.prepared import Prepared
from tests.tasks.rows import stage_record
from tests.tasks.training_runs import at_step, finished, interrupt, run, train, weights

pytestmark = pytest.mark.usefixtures("without_prefect")
SHARE, STEPS, BATCH_ROWS = 0.375, 8, 4


@pytest.fixture
def pretrained(prepared: Prepared, tmp_path: Path) -> StageRecord:
    stage = run(tmp_path / "pretrain")
    outcome = train(stage, prepared)
    return stage_record(stage.folder, stage="pretrain", counts=dict(outcome.counts), config={"train": {}})


def begin(folder: Path, prepared: Prepared, pretrained: StageRecord, **changes: Any) -> TrainingRun:
    recipe, tokens = prepared
    config = replace(recipe.sft, replay_share=SHARE, **changes)
    return training.prepare(run(folder), "chat", tokens, recipe.model, config, start_from=pretrained)


def test_every_step_reads_its_share_of_text_and_what_was_read_adds_up(
    prepared: Prepared, pretrained: StageRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, packed = prepared
    read: Counter[bytes] = Counter()

    def noted(rows: Any, numbers: np.ndarray) -> Any:
        batch = batch_of_rows(rows, numbers)
        read.update(row.numpy().tobytes() for row in batch.ids_BT)
        return batch

    monkeypatch.setattr("model.training.batches.batch_of_rows", noted)
    outcome = finished(begin(tmp_path / "sft", prepared, pretrained))
    record = stage_record(tmp_path / "sft", stage="sft", counts=dict(outcome.counts), config={"train": {}})
    chat, text = (open_packed(packed, kind, "train") for kind in ("chat", "pretrain"))
    again, digest = replayed_of(record) or pytest.fail("no text was read")
    assert digest == digest_of_kind(packed, "pretrain")
    for rows, reading, share in ((chat, reading_of(record, 0), 1 - SHARE), (text, again, SHARE)):
        ids = rows.rows(np.arange(rows.num_rows)).input_ids.astype(np.int64)
        times = reading.times_read()
        assert times.sum() == share * STEPS * BATCH_ROWS
        for row in range(rows.num_rows):
            assert read.pop(ids[row].tobytes(), 0) == times[row]
    assert not read, "nothing else was read"
    assert not replayed_of(pretrained)


def test_a_stage_that_was_broken_off_goes_on_with_the_same_bits(
    prepared: Prepared, pretrained: StageRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(begin(tmp_path / "whole", prepared, pretrained))
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_step(5, interrupt, patch)
        finished(begin(tmp_path / "parts", prepared, pretrained))
    finished(begin(tmp_path / "parts", prepared, pretrained))
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    [same, _] = [checkpoint.discover(tmp_path / name / "checkpoints")[-1].identity for name in ("whole", "parts")]
    other = begin(tmp_path / "other", prepared, pretrained, optim=prepared[0].sft.optim)
    assert other.start.identity == same
    none = training.prepare(run(tmp_path / "none"), "chat", prepared[1], prepared[0].model, prepared[0].sft, pretrained)
    assert none.start.identity != same


def test_two_ranks_read_what_one_does(prepared: Prepared, pretrained: StageRecord, tmp_path: Path) -> None:
    one, two = (
        begin(
            tmp_path / f"{ranks}", prepared, pretrained, num_ranks=ranks, micro_batch_rows=4 // ranks,
            precision="fp32",  # in bf16, which `auto` is on some CPUs, sums in another order differ by more
        )
        for ranks in (1, 2)
    )  # fmt: skip
    for started in (one, two):
        finished(started)
    first, second = weights(tmp_path / "1"), weights(tmp_path / "2")
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)


def test_without_conversations_there_is_nothing_to_replay_beside(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the first batch says what is missing, as it does without replay."""
    recipe, packed = prepared

    def opened(tokens: StageRecord, kind: str, side: str) -> ShardedTokens:
        rows = open_packed(tokens, kind, side)
        return ShardedTokens((rows.rows(np.array([], dtype=int)),), "") if kind == "chat" else rows

    monkeypatch.setattr("tasks.training.start.open_packed", opened)
    rows, replay = open_rows(packed, "chat", replace(recipe.sft, replay_share=SHARE))
    with pytest.raises(ValueError, match="the training side has no packed rows"):
        batch_of_step(rows, BATCH_ROWS, 1, 0, replay=replay)


def test_text_alone_is_no_fine_tuning() -> None:
    with pytest.raises(ValueError, match=r"replay_share \(1\) leaves no row of a conversation"):
        SftConfig(replay_share=1)


def test_segments_of_text_lie_behind_those_of_conversations(prepared: Prepared, pretrained: StageRecord) -> None:
    """So that the first rows are the stage's own, as in every other stage."""
    packed = prepared[1]
    rows = begin(pretrained.path.parent / "sft", prepared, pretrained).tokens
    chat = open_packed(packed, "chat", "train")
    first = np.arange(chat.num_rows)
    assert np.array_equal(rows.rows(first).input_ids, chat.rows(first).input_ids)
    assert open_segments(packed, "chat", "train")["row"].max() == chat.num_rows - 1
