"""Short pretrainings side by side: every combination of a few settings, on the same tokens."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

from model.files import write_json
from tasks.errors import Diverged
from tasks.home.records import StageRecord
from tasks.home.stage_table import entry_of
from tasks.recipes.overrides import as_argument
from tasks.stage import Night, declared
from tasks.trials.plan import Sweep, Variant, variants
from tasks.trials.trial import SWEEP, trial_note

log = logging.getLogger("nightschool")


@dataclass(frozen=True)
class Tried:
    """What became of a variant."""

    variant: Variant
    record: StageRecord | None
    diverged: str = ""
    """Why it has no record."""


def branch_of(night: Night, variant: Variant) -> Night:
    """The branch of a sweep that trains one variant; its tracking run carries what is special about it."""
    short = variant.recipe.pretrain
    changes = {**variant.values, "pretrain.seed": short.seed, "pretrain.num_tokens": short.num_tokens}
    texts = {key: as_argument(value) for key, value in changes.items()}
    return replace(night, branch=SWEEP, changes=texts, recipe=variant.recipe)


def try_variants(night: Night, sweep: Sweep, tokens: StageRecord) -> Iterator[Tried]:
    """Train one variant after the other, through the stage that every night has; one that diverges is a result.

    Such a one leaves no record, so it is noted beside the sweep, and the same sweep does not try it again.
    """
    note = trial_note(night, SWEEP)
    trainings = variants(night.recipe, sweep)
    for number, variant in enumerate(trainings, start=1):
        log.info("sweep       %d/%d  %s  seed %d", number, len(trainings), " ".join(variant.pairs), variant.seed)
        content = json.loads(note.read_text(encoding="utf-8"))
        diverged = content.get("diverged", {})
        if variant.key in diverged:
            yield Tried(variant, None, diverged[variant.key])
            continue
        try:
            yield Tried(variant, declared(entry_of("pretrain"))(branch_of(night, variant), tokens))
        except Diverged as error:
            log.info("sweep       diverged: %s", error)
            write_json(note, content | {"diverged": diverged | {variant.key: str(error)}})
            yield Tried(variant, None, str(error))


def plain_sweep(sweep: Sweep) -> dict[str, str]:
    """The sweep as parameters of a tracking run."""
    return {"sweep.over": as_argument(sweep.over), "sweep.share": str(sweep.share), "sweep.seeds": str(sweep.seeds)}
