from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.learning.scoring import Chunks
from benchmarks.training import accuracy
from benchmarks.training.accuracy import bits_after, verdict
from benchmarks.training.shapes import Shape
from model.config.training import TrainConfig
from model.training.batches import Batch
from model.training.state import TrainState
from model.training.trainer import StepMetrics
from tests.model.tiny import packed_rows, tiny_config

Step = Callable[[TrainState, Batch, TrainConfig, int], StepMetrics]


def test_equal_steps_differ_by_their_precision_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, float]] = []
    monkeypatch.setattr(accuracy, "train_step", recording(accuracy.train_step, seen))
    rows = packed_rows(4)
    flat = np.maximum(rows.labels, 3).ravel().astype(np.int64)
    lengths = np.full(4, rows.sequence_length_tokens)
    chunks = Chunks(rows.input_ids.ravel().astype(np.int64), flat, np.ones(len(flat)), lengths, np.ones(4, dtype=bool))
    shape = Shape("tiny", tiny_config(), 4, rows.sequence_length_tokens)
    bf16, again, fp32 = (bits_after(shape, rows, chunks, 3, 1, precision) for precision in ("bf16", "bf16", "fp32"))
    assert bf16 == again != fp32
    assert bf16 == pytest.approx(fp32, rel=0.02)
    assert [precision for precision, _ in seen] == ["bf16"] * 6 + ["fp32"] * 3
    assert seen[0][1] == pytest.approx(seen[6][1], rel=0.01), "another start or another batch"


def recording(train_step: Step, seen: list[tuple[str, float]]) -> Step:
    def step(state: TrainState, batch: Batch, config: TrainConfig, num_steps: int) -> StepMetrics:
        metrics = train_step(state, batch, config, num_steps)
        seen.append((config.precision, metrics.loss))
        return metrics

    return step


@pytest.mark.parametrize(("bf16", "expected"), [(2.003, "met"), (1.997, "met"), (2.005, "missed"), (1.995, "missed")])
def test_the_mean_over_seeds_is_judged(bf16: float, expected: str) -> None:
    line = verdict([(bf16, 2.0), (bf16, 2.0)], 10, 512)
    assert line.split()[0] == expected
    assert f"{bf16 / 2 - 1:+.2%}" in line
