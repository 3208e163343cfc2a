"""What a training is at a step: model, optimizer, counters; and the error of a loss that is not finite."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from model.config.network import ModelConfig
from model.config.training import TrainConfig
from model.network.transformer import Transformer
from model.optim.groups import build_optimizer


class NonFiniteLoss(RuntimeError):
    """The loss or the gradient is not finite; the weights are those of the last good step."""

    def __init__(self, message: str, nats_BT: np.ndarray) -> None:
        """`nats_BT`: loss of each slot of the step's batch, (rows, slots), 0 where there is no target."""
        super().__init__(message)
        self.nats_BT = nats_BT
        self.rows_B: np.ndarray = np.arange(len(nats_BT))
        """Numbers of the packed rows; their places in the batch where it was not drawn from packed rows."""


@dataclass
class TrainState:
    """All that changes during training; `model.training.checkpoint` saves and loads exactly this."""

    model: Transformer
    optimizer: torch.optim.Optimizer
    step: int = 0
    """Optimizer steps done."""
    tokens_seen: int = 0
    """Real tokens seen, padding excluded."""

    @classmethod
    def create(
        cls,
        model_config: ModelConfig,
        config: TrainConfig,
        device: torch.device | None = None,
        tokens_per_step: int = 0,
    ) -> TrainState:
        """Fresh weights of `model_config` from the seed of `config`, on `device` (CPU by default), an empty optimizer.

        `tokens_per_step` as in `build_optimizer`, with its ValueError.
        """
        model = Transformer(model_config, seed=config.seed).to(device or torch.device("cpu"))
        return cls(model, build_optimizer(model, config.optim, tokens_per_step))
