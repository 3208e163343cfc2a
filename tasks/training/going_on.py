"""What a training goes on from: pretraining from an earlier night, fine-tuning from pretraining; their weights, the
budget of a night, and the order of new and old rows."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.config.network import ModelConfig
from model.config.training import TrainConfig
from model.files import write_json
from model.tokens.order import Replay, TextReplay, TrunkReplay, mixed
from model.tokens.packing import ShardedTokens
from model.training import checkpoint
from tasks.errors import NightStopped
from tasks.home.contents.pretrained import digest_of_rows, read_noted, reading_of
from tasks.home.records import StageRecord
from tasks.home.trunk import Start
from tasks.pages.text import plural
from tasks.planning.cost import night_slots
from tasks.planning.machine import held_memory_bytes
from tasks.recipes.pretrain_config import PretrainConfig
from tasks.stage import StageRun
from tasks.training.trained import final_weights

NIGHT_STEPS = "night-steps.json"
"""In a stage's logs: the steps that a budget in minutes came to, so that a night that is resumed makes as many."""
log = logging.getLogger("nightschool")


@dataclass(frozen=True)
class GoingOn:
    """What a training stage goes on with."""

    config: TrainConfig
    """How tonight trains."""
    weights: Path | None = None
    """Folder of the checkpoint it begins with; None for weights from the seed."""
    with_moments: bool = False
    """Whether the optimizer's moments come from it, too."""
    digest: str = ""
    """Of the stage that made it."""
    pretrained: StageRecord | None = None
    """That stage, if tonight's fine-tunes its model."""
    replay: Replay | None = None
    earlier_positions: int = 0
    """Packed rows that the weights have read so far, counted each time, of whatever data."""
    nights: int = 1
    """That the weights will have been through."""


def going_on(run: StageRun, start: Start, tokens: ShardedTokens, model: ModelConfig, config: PretrainConfig) -> GoingOn:
    """How a pretraining stage begins. Raises NightStopped if what it would begin with is gone.

    start: as the night decided; tokens: tonight's packed rows; model, config: the recipe's.
    """
    if start.how == "scratch":
        return GoingOn(config)
    parent = start.record(run.night.home)
    saved = checkpoint.discover(parent.path / start.checkpoint)[-1:] if parent else []
    if parent is None or not saved:
        raise NightStopped(
            f"{run.stage}: {start.parent}/{start.checkpoint}, which this night goes on from, is gone or damaged in "
            f"{run.night.home / 'data'}; restore {start.parent}, or remove it: then the night begins from scratch"
        )
    warm = start.how == "trunk"
    tonight = config.going_on(budget_tokens(run, config, model, tokens.sequence_length_tokens, warm), warm)
    replay = replay_of(parent, start, tokens, tonight, config)
    log.info("%-11s %s", run.stage, how_it_goes_on(start, replay, tokens))
    nights = read_noted(parent.path)["nights"] + 1
    return GoingOn(
        tonight, saved[-1].path, warm, parent.digest, replay=replay, earlier_positions=replay.salt, nights=nights
    )


def fine_tuning(run: StageRun, pretrained: StageRecord, config: TrainConfig, text: TextReplay | None) -> GoingOn:
    """How a stage begins with the last weights of another, and with what `text` of that it mixes its own rows."""
    if text:
        log.info("%-11s %.0f%% of the rows of its steps are text of pretraining", run.stage, 100 * text.share)
    return GoingOn(config, final_weights(pretrained.path), digest=pretrained.digest, pretrained=pretrained, replay=text)


def budget_tokens(run: StageRun, config: PretrainConfig, model: ModelConfig, row_length_tokens: int, warm: bool) -> int:
    """Token slots of a night that goes on; a budget in minutes is measured once, so that a night that is resumed has
    the same."""
    noted, per_step = run.logs / NIGHT_STEPS, config.batch_rows * row_length_tokens
    if config.night_minutes is None:
        return night_slots(model, config, row_length_tokens, warm)
    if not noted.exists():
        slots = night_slots(model, config, row_length_tokens, warm, held_memory_bytes())
        write_json(noted, {"steps": slots // per_step})
    steps: int = json.loads(noted.read_text(encoding="utf-8"))["steps"]
    return steps * per_step


def replay_of(
    parent: StageRecord, start: Start, tokens: ShardedTokens, tonight: TrainConfig, config: PretrainConfig
) -> TrunkReplay:
    """The order of tonight's rows.

    Where tonight's rows do not begin with those that the parent had, as the data was made anew, none of them counts as
    read.
    """
    noted = read_noted(parent.path)
    steps = noted["branch_step"] if start.checkpoint == "trunk" else noted["num_steps"]
    positions = noted["earlier_positions"] + steps * noted["batch_rows"]
    before = np.zeros(tokens.num_rows, dtype=np.uint32)
    known = int(noted["num_rows"])
    if known <= tokens.num_rows and digest_of_rows(tokens, known) == noted["rows_digest"]:
        before[:known] = reading_of(parent, known, steps).times_read()
    else:
        log.warning("the data was made anew since %s: all of its rows count as new", parent.path.name)
    num_positions = tonight.num_steps(tokens.sequence_length_tokens) * tonight.batch_rows
    share = mixed(config.replay_share, config.new_rows_epochs, before, num_positions)
    return TrunkReplay(before, share, positions)


def how_it_goes_on(start: Start, replay: TrunkReplay, tokens: ShardedTokens) -> str:
    """For people: from where, and on which rows."""
    return (
        f"{start.reason}; new to it are {len(replay.fresh):,} of {plural(tokens.num_rows, 'packed row')}, and "
        f"{replay.share:.0%} of what is read tonight was read before"
    )
