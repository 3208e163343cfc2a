"""What one more expert changes at the moment it comes: nothing for those whom the cloned one did not serve."""

from __future__ import annotations

import numpy as np
import torch

from model.config.optim import OptimConfig
from model.network.transformer import Transformer
from model.optim.groups import build_optimizer
from model.training.batches import Batch, batch_of_rows
from model.training.state import TrainState
from model.training.surgery import expert_load, grow
from tests.model.tiny import packed_rows, tiny_config

OPTIM = OptimConfig()


@torch.no_grad()
def grown_apart(model: Transformer, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Difference of each token's logits (N,), and which tokens the busiest expert of the last layer had served (N,)."""
    load_LE = expert_load(model, [batch])
    grown = grow(TrainState(model, build_optimizer(model, OPTIM)), load_LE, OPTIM, noise_std=0.0).model
    assert grown.config.num_experts == model.config.num_experts + 1
    one, other = (m(batch.ids_BT, batch.segment_BT).flatten(0, 1) for m in (model, grown))
    _, routing = model.hidden(batch.ids_BT, batch.segment_BT)
    return (one - other).abs().amax(dim=-1), (routing[-1].experts_NK == load_LE[-1].argmax()).any(dim=-1)


def rows(count: int) -> Batch:
    return batch_of_rows(packed_rows(count), np.arange(count))


def test_tokens_of_other_experts_are_computed_as_before() -> None:
    apart, served = grown_apart(Transformer(tiny_config(num_hidden_layers=1, num_experts=6)), rows(6))
    assert 0 < served.sum() < len(served)
    assert apart[~served].max() < 1e-4
    assert apart[served].max() > 1e-2, "a clone takes the place of the second choice"


def test_with_one_expert_a_token_nothing_changes_at_all() -> None:
    apart, served = grown_apart(Transformer(tiny_config(num_experts_per_tok=1, minimind_compatible=True)), rows(6))
    assert served.any()
    assert apart.max() < 1e-4
