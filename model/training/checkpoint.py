"""Checkpoints: atomic directories of safetensors with checksums, no pickle.

A checkpoint is `step-00000123/` with `model.safetensors`, `optimizer.safetensors` and, written last,
`meta.json`, which holds the step, the identity of the run and the SHA-256 of the other two. A directory
without a matching `meta.json` does not exist. Nothing random needs saving: batches are a function of the step.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.files import publish_folder, sha256_of
from model.training.state import TrainState


class CheckpointMismatch(RuntimeError):
    """A checkpoint belongs to another model, configuration or data."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    path: Path
    step: int
    identity: str


def step_name(step: int) -> str:
    return f"step-{step:08d}"


def save(state: TrainState, folder: Path, identity: str, keep: int = 2) -> Checkpoint:
    """Write `state` under `folder` and delete all but the newest `keep` checkpoints.

    `identity` is a digest of configuration and data; a checkpoint with another one is never resumed.
    """
    final = folder / step_name(state.step)
    beside = folder / f".{final.name}.tmp"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    save_file(dict(state.model.state_dict()), beside / "model.safetensors")
    save_file(optimizer_tensors(state), beside / "optimizer.safetensors")
    meta = {
        "step": state.step,
        "tokens_seen": state.tokens_seen,
        "identity": identity,
        "sha256": {name: sha256_of(beside / name) for name in ("model.safetensors", "optimizer.safetensors")},
    }
    (beside / "meta.json").write_text(json.dumps(meta, indent=1))
    publish_folder(beside, final)
    for old in discover(folder)[:-keep]:
        shutil.rmtree(old.path)
    return Checkpoint(final, state.step, identity)


def optimizer_tensors(state: TrainState) -> dict[str, Tensor]:
    """The optimizer's moments and step counts, under the names of the parameters they belong to."""
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    tensors = {}
    for parameter, moments in state.optimizer.state.items():
        for key, value in moments.items():
            tensors[f"{names[id(parameter)]}:{key}"] = value.detach().clone()
    return tensors


def discover(folder: Path) -> list[Checkpoint]:
    """Complete and undamaged checkpoints, oldest first."""
    complete = []
    for path in sorted(folder.glob("step-*")):
        try:
            meta = json.loads((path / "meta.json").read_text())
            undamaged = path.name == step_name(meta["step"])
            if undamaged and all(sha256_of(path / name) == digest for name, digest in meta["sha256"].items()):
                complete.append(Checkpoint(path, meta["step"], meta["identity"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # torn or damaged: the one before it counts
    return complete


def load_into(state: TrainState, checkpoint: Checkpoint, identity: str) -> None:
    """Restore model, optimizer and counters. Strict: a missing or unexpected tensor is an error."""
    if checkpoint.identity != identity:
        raise CheckpointMismatch(
            f"{checkpoint.path.name} was written by run {checkpoint.identity[:12]}, this is run {identity[:12]}; "
            "configuration or data changed, start the stage anew"
        )
    load_model_and_optimizer(state, checkpoint.path)
    meta = json.loads((checkpoint.path / "meta.json").read_text())
    state.step, state.tokens_seen = meta["step"], meta["tokens_seen"]


def load_model_and_optimizer(state: TrainState, checkpoint_folder: Path) -> None:
    """Weights and moments, for a training that goes on from another's; its own counters stay. Strict."""
    load_weights(state.model, checkpoint_folder)
    state.optimizer.state.clear()
    saved: dict[str, dict[str, Tensor]] = {}
    for name, tensor in load_file(checkpoint_folder / "optimizer.safetensors").items():
        owner, _, key = name.rpartition(":")
        saved.setdefault(owner, {})[key] = tensor
    for name, parameter in state.model.named_parameters():
        if name in saved:
            state.optimizer.state[parameter] = {k: value.to(parameter.device) for k, value in saved[name].items()}


def load_weights(model: torch.nn.Module, checkpoint_folder: Path) -> None:
    """Weights alone, for a stage that starts where another ended. Strict."""
    model.load_state_dict(load_file(checkpoint_folder / "model.safetensors"), strict=True)
