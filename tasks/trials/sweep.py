"""Short pretrainings side by side: every combination of a few settings, on the same tokens."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from model.files import write_json
from tasks.errors import Diverged
from tasks.home.records import StageRecord
from tasks.home.stage_table import entry_of
from tasks.recipes.overrides import as_argument
from tasks.stage import Night, declared
from tasks.trials.plan import Pace, Setting, Sweep, Variant, changed, settings_of, variants
from tasks.trials.trial import SWEEP, trial_note

log = logging.getLogger("nightschool")
AS_IT_IS = "the recipe as it is"


@dataclass(frozen=True)
class Tried:
    """What became of a variant."""

    variant: Variant
    record: StageRecord | None
    diverged: str = ""
    """Why it has no record."""

    @property
    def bpb(self) -> float:
        """Validation bits per byte; infinite if the training diverged, in its last step at the latest."""
        bpb = self.record.figures["val/bpb"] if self.record else math.inf
        return bpb if math.isfinite(bpb) else math.inf


def branch_of(night: Night, variant: Variant) -> Night:
    """The branch of a sweep that trains one variant; its tracking run carries what is special about it."""
    short = variant.recipe.pretrain
    changes = {**variant.values, "pretrain.seed": short.seed, "pretrain.num_tokens": short.num_tokens}
    texts = {key: as_argument(value) for key, value in changes.items()}
    return replace(night, branch=SWEEP, changes=texts, recipe=variant.recipe)


def try_settings(night: Night, sweep: Sweep, tokens: StageRecord) -> Iterator[Tried]:
    """Train every setting, and in each further rung the best of the last one again, longer; the recipe as it is stays
    as long as it ends, for the others to be compared with."""
    settings = going = settings_of(night.recipe, sweep)
    pace = noted_pace(night, settings) if sweep.equal == "seconds" else None
    for rung in range(sweep.rungs):
        tried, trainings = [], variants(night.recipe, sweep, going, rung, pace)
        for number, variant in enumerate(trainings, start=1):
            said = " ".join([*(variant.pairs or (AS_IT_IS,)), f"seed {variant.seed}"])
            log.info("sweep       rung %d  %d/%d  %s", rung + 1, number, len(trainings), said)
            tried.append(try_variant(night, variant, tokens))
            yield tried[-1]
        ended = sorted((one for one in tried if math.isfinite(one.bpb)), key=lambda one: one.bpb)
        best = [one.variant.values for one in ended]
        kept = sweep.kept(len(settings), rung + 1)
        going = best[:kept] if {} in best[:kept] or {} not in best else [*best[: kept - 1], {}]


def try_variant(night: Night, variant: Variant, tokens: StageRecord) -> Tried:
    """Train it through the stage that every night has; that it diverges is a result.

    One that does leaves no record, so it is noted beside the sweep, and the same sweep does not try it again.
    """
    note = trial_note(night, SWEEP)
    content = json.loads(note.read_text(encoding="utf-8"))
    diverged = content.get("diverged", {})
    if variant.key in diverged:
        return Tried(variant, None, diverged[variant.key])
    try:
        return Tried(variant, declared(entry_of("pretrain"))(branch_of(night, variant), tokens))
    except Diverged as error:
        log.info("sweep       diverged: %s", error)
        write_json(note, content | {"diverged": diverged | {variant.key: str(error)}})
        return Tried(variant, None, str(error))


def noted_pace(night: Night, settings: Sequence[Setting]) -> Pace:
    """How fast the recipe and its settings train; noted, so that the same sweep trains the same when run again."""
    note = trial_note(night, SWEEP)
    content = json.loads(note.read_text(encoding="utf-8"))
    pace = Pace(content.get("seconds_per_token", {}))
    for setting in [{}, *settings]:
        pace(changed(night.recipe, setting))
    write_json(note, content | {"seconds_per_token": pace.known})
    return pace


def plain_sweep(sweep: Sweep) -> dict[str, str]:
    """The sweep as parameters of a tracking run."""
    return {f"sweep.{name}": as_argument(value) for name, value in asdict(sweep).items()}
