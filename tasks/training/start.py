"""What a training stage begins with, and how its experts change: the same on every rank, from the same few values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.config.network import ModelConfig
from model.config.phases import Phase, phase_after, phases
from model.config.training import TrainConfig
from model.network.transformer import compile_blocks
from model.tokens.order import Replay, TextReplay
from model.tokens.packing import ShardedTokens
from model.training import checkpoint
from model.training.checkpoint import Checkpoint
from model.training.state import TrainState
from model.training.surgery import begin_phase
from tasks.home.contents.packed import open_packed, with_text
from tasks.home.records import StageRecord
from tasks.planning.machine import best_device
from tasks.recipes.sft_config import SftConfig
from tasks.training.validator import Validator


@dataclass(frozen=True, kw_only=True)
class TrainingStart:
    """Small and picklable, so that it passes between processes."""

    stage: str
    """For messages."""
    kind: str
    """Which packed rows it trains on."""
    tokens: StageRecord
    model: ModelConfig
    """The model at the end of the stage, with its expert path chosen."""
    config: TrainConfig
    compile_blocks: bool
    """Whether the transformer's blocks go through torch.compile."""
    identity: str
    """Digest of configuration and data; checkpoints with another one belong to other trainings."""
    resume_from: Checkpoint | None
    """Where an interrupted stage goes on."""
    initial_weights: Path | None
    """Folder of the checkpoint whose weights it begins with unless it resumes; None for weights from the seed."""
    with_moments: bool = False
    """Whether it begins with the optimizer's moments of that checkpoint, too."""
    replay: Replay | None = None
    """How rows that are new to its weights mix with others; None for epochs of all rows."""

    def phases(self, num_steps: int) -> list[Phase]:
        """The phases of `num_steps` optimizer steps, in order; one if the experts never change."""
        return phases(self.model, self.config.expert_changes, num_steps)

    def create_state(self, tokens: ShardedTokens) -> TrainState:
        """The training state at `resume_from`, or at step 0, on this process's device.

        Raises CheckpointMismatch if the checkpoint has another identity.
        """
        row_length_tokens = tokens.sequence_length_tokens
        steps_done = self.resume_from.step if self.resume_from else 0
        first_phase = phase_after(self.phases(self.config.num_steps(row_length_tokens)), steps_done)
        tokens_per_step = self.config.batch_rows * row_length_tokens
        state = TrainState.create(first_phase.model, self.config, best_device(), tokens_per_step)
        if self.resume_from:
            checkpoint.load_into(state, self.resume_from, self.identity)
        elif self.initial_weights and self.with_moments:
            checkpoint.load_model_and_optimizer(state, self.initial_weights)
        elif self.initial_weights:
            checkpoint.load_weights(state.model, self.initial_weights)
        return self._compiled(state)

    def change_experts(self, state: TrainState, phase: Phase, validator: Validator) -> None:
        """Begin `phase` between two steps: replace the model and optimizer in `state`, which the loop reads every step.

        A function of the arguments alone, so every rank makes the same change.
        """
        tokens_per_step = self.config.batch_rows * validator.tokens.sequence_length_tokens
        batches = validator.batches(self.config.micro_batch_rows, best_device())
        changed = self._compiled(begin_phase(state, phase, batches, self.config, tokens_per_step))
        state.model, state.optimizer = changed.model, changed.optimizer

    def _compiled(self, state: TrainState) -> TrainState:
        """The state, its blocks compiled in place if the stage compiles."""
        if self.compile_blocks:
            compile_blocks(state.model)
        return state


def open_rows(tokens: StageRecord, kind: str, config: TrainConfig) -> tuple[ShardedTokens, TextReplay | None]:
    """The packed rows that a stage trains on, memory-mapped; for fine-tuning that replays text, that text behind them
    and how both mix.

    Without rows of its own the stage has nothing to replay beside, and its first batch says that there are none.
    """
    own = open_packed(tokens, kind, "train")
    share = config.replay_share if isinstance(config, SftConfig) else 0.0
    if not share or not own.num_rows:
        return own, None
    both = with_text(own, tokens)
    return both, TextReplay(own.num_rows, both.num_rows - own.num_rows, share)


def phase_beginning_at(stage_phases: Sequence[Phase], step: int) -> Phase | None:
    """The phase that begins once `step` optimizer steps are done, if one does."""
    phase = phase_after(stage_phases, step)
    return phase if phase.first_step == step else None
