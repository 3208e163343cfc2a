"""The memory that a plan foretells is what training then takes, in a process of its own."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from model.batches import Batch
from model.config import ModelConfig, TrainConfig
from model.trainer import TrainState, train_step
from tasks import plan
from tasks.machine import held_memory_bytes, keep_freed_memory, peak_memory_bytes

TOKENS = 256


def foretold_and_taken(model: ModelConfig, config: TrainConfig) -> tuple[int, int]:
    """Bytes at the peak, of two steps on random ids."""
    torch.set_num_threads(1)
    keep_freed_memory()
    plan.seconds_per_token = lambda *_: 0.0  # the probe is training too, and would be measured with it
    foretold = plan.plan_stage(model, config, TOKENS, held_memory_bytes()).peak_memory_bytes
    state = TrainState.create(model, config, torch.device("cpu"), config.batch_rows * TOKENS)
    ids = torch.randint(0, model.vocab_size, (config.batch_rows, TOKENS), generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        train_step(state, Batch(ids, ids, torch.ones_like(ids)), config, num_steps=1_000)
    return foretold, peak_memory_bytes()


@pytest.mark.skipif(torch.cuda.is_available(), reason="counts main memory")
@pytest.mark.parametrize("changes", [{}, {"num_experts": 16}, {"dense": True}])
def test_the_foretold_memory_is_the_taken_one(changes: dict[str, int]) -> None:
    model, config = ModelConfig(**changes), TrainConfig(batch_rows=8, micro_batch_rows=8)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        foretold, taken = fresh.submit(foretold_and_taken, model, config).result()
    assert foretold == pytest.approx(taken, rel=0.15)
