"""The memory that is planned is what training then needs, in a process of its own."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from model.config.network import ModelConfig
from model.config.training import TrainConfig
from model.network.transformer import Transformer
from model.precision import autocast
from model.training.batches import Batch
from model.training.state import TrainState
from model.training.trainer import train_step
from tasks.planning import cost
from tasks.planning.machine import held_memory_bytes, keep_freed_memory, peak_memory_bytes
from tasks.planning.memory import kept_bytes_per_token

TOKENS = 256


def kept_bytes(model: Transformer, ids: torch.Tensor, precision: str) -> int:
    """Every tensor that autograd saves, but for weights and their copies in bf16, which no token has a part in."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    attention = model.layers[0].self_attn
    together = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
    shapes = {tuple(sorted(p.shape)) for p in [*model.parameters(), together]}
    found: dict[int, tuple[torch.UntypedStorage, torch.Size]] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage, tensor.shape
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), autocast(ids.device, precision):
        model.hidden(ids, torch.ones_like(ids))
    return sum(storage.nbytes() for storage, shape in found.values() if tuple(sorted(shape)) not in shapes)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"dense": True}, {"num_experts_per_tok": 4}, {"num_shared_experts": 1}, {"num_attention_heads": 8},
     {"hidden_size": 512}, {"moe_intermediate_size": 1024}, {"num_hidden_layers": 1}],
)  # fmt: skip
def test_what_is_kept_of_a_token_is_what_autograd_keeps(changes: dict[str, int], precision: str) -> None:
    model = Transformer(ModelConfig(**{"num_hidden_layers": 2, "vocab_size": 300} | changes))
    ids = torch.randint(0, 300, (4, TOKENS), generator=torch.Generator().manual_seed(0))
    planned = ids.numel() * kept_bytes_per_token(model.config, TOKENS, precision)
    assert planned == pytest.approx(kept_bytes(model, ids, precision), rel=0.15)


def planned_and_actual(model: ModelConfig, config: TrainConfig) -> tuple[int, int]:
    """Bytes at the peak, of two steps on random ids."""
    torch.set_num_threads(1)
    keep_freed_memory()
    cost.seconds_per_token = lambda *_: 0.0  # the probe is training too, and would be measured with it
    planned = cost.plan_stage(model, config, TOKENS, held_memory_bytes()).peak_memory_bytes
    state = TrainState.create(model, config, torch.device("cpu"), config.batch_rows * TOKENS)
    ids = torch.randint(0, model.vocab_size, (config.batch_rows, TOKENS), generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        train_step(state, Batch(ids, ids, torch.ones_like(ids)), config, num_steps=1_000)
    return planned, peak_memory_bytes()


@pytest.mark.skipif(torch.cuda.is_available(), reason="counts main memory")
@pytest.mark.parametrize("changes", [{}, {"dense": True}])
def test_the_planned_memory_is_the_actual_one(changes: dict[str, int]) -> None:
    model, config = ModelConfig(**changes), TrainConfig(batch_rows=8, micro_batch_rows=8)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        planned, actual = fresh.submit(planned_and_actual, model, config).result()
    assert planned == pytest.approx(actual, rel=0.15)
