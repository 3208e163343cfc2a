"""What a training stage begins with, and how its experts change: the same on every rank, from the same few facts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model.config.network import ModelConfig
from model.config.phases import Phase, phase_after, phases
from model.config.training import TrainConfig
from model.network.transformer import compile_blocks
from model.tokens.packing import ShardedTokens
from model.training import checkpoint
from model.training.checkpoint import Checkpoint
from model.training.state import TrainState
from model.training.surgery import begin_phase
from tasks.home.records import StageRecord
from tasks.planning.machine import best_device
from tasks.training.validator import Validator


@dataclass(frozen=True, kw_only=True)
class Start:
    """Small and plain, so that it passes between processes."""

    stage: str
    kind: str
    tokens: StageRecord
    model: ModelConfig
    """The one that is handed out, with its expert path settled."""
    config: TrainConfig
    compiled: bool
    """Whether blocks go through torch.compile."""
    identity: str
    saved: Checkpoint | None
    """Where the stage goes on, if it was broken off."""
    weights: Path | None
    """Folder of the checkpoint whose weights it begins with, if it goes on nowhere."""

    def phases(self, num_steps: int) -> list[Phase]:
        return phases(self.model, self.config.expert_changes, num_steps)

    def state(self, tokens: ShardedTokens) -> TrainState:
        """On this process's device, loaded."""
        length = tokens.sequence_length_tokens
        found = self.phases(self.config.num_steps(length))
        begins_as = phase_after(found, self.saved.step if self.saved else 0).model
        state = TrainState.create(begins_as, self.config, best_device(), self.config.batch_rows * length)
        if self.saved:
            checkpoint.load_into(state, self.saved, self.identity)
        elif self.weights:
            checkpoint.load_weights(state.model, self.weights)
        return self.ready(state)

    def change(self, state: TrainState, phase: Phase, validator: Validator) -> None:
        """Begin a phase between two steps; the loop goes on with the new model and optimizer, which it takes from
        `state` at each step. A function of the arguments alone, so every rank makes the same change."""
        slots = self.config.batch_rows * validator.tokens.sequence_length_tokens
        batches = validator.batches(self.config.micro_batch_rows, best_device())
        begun = self.ready(begin_phase(state, phase, batches, self.config, slots))
        state.model, state.optimizer = begun.model, begun.optimizer

    def ready(self, state: TrainState) -> TrainState:
        """Its model compiled, if the stage compiles."""
        if self.compiled:
            compile_blocks(state.model)
        return state
