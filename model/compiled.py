"""Blocks of the transformer through torch.compile: fewer passes over memory, for minutes of compiling."""

from __future__ import annotations

from model.transformer import Transformer


def compile_blocks(model: Transformer) -> None:
    """Compile each block at its first training step. Evaluation runs blocks as they are written, see `evaluating`."""
    for block in model.layers:
        block.compile(dynamic=False)
