"""What lies in the folder of a finished training stage, and how to load its model."""

from __future__ import annotations

import json
from pathlib import Path

from model.config.network import ModelConfig
from model.network.transformer import Transformer
from model.training import checkpoint

MODEL_CONFIG = "model.json"
CHECKPOINTS = "checkpoints"


def final_weights(folder: Path) -> Path:
    """The checkpoint folder of a finished training stage."""
    return checkpoint.discover(folder / CHECKPOINTS)[-1].path


def load_trained(folder: Path) -> Transformer:
    """The model of a finished training stage."""
    model = Transformer(ModelConfig(**json.loads((folder / MODEL_CONFIG).read_text())))
    checkpoint.load_weights(model, final_weights(folder))
    return model
