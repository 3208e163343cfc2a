"""A trained and evaluated model → the champion on the same rows, a registered version and a decision."""

from __future__ import annotations

import logging

from tasks.errors import Interrupted, NightBusy, NightStopped, StoreAway
from tasks.home.journal import KEY_CHARACTERS
from tasks.home.notes import note_path
from tasks.home.records import StageRecord
from tasks.night.candidate import Candidate, give_up, waiting_candidates
from tasks.night.conclusion import conclude_waiting
from tasks.night.incumbent import incumbent_of
from tasks.stage import Night
from tasks.stages.evaluate import evaluate
from tasks.stages.register import register

log = logging.getLogger("nightschool")


def judge_model(candidate: Candidate) -> StageRecord | StoreAway:
    """evaluate the champion → register. If the model registry does not answer, says so and decides nothing."""
    night, model, scored_champion = candidate.night, candidate.model, None
    try:
        incumbent = incumbent_of(night)
        champion = incumbent.champion
        if champion and champion.digest != model.digest and not incumbent.obstacle:
            scored_champion = evaluate(night, champion, candidate.rows, candidate.tokens, label="champion")
        return register(
            night, model, candidate.tokens, candidate.scored, champion, scored_champion, candidate.data,
            incumbent.obstacle,
        )  # fmt: skip
    except StoreAway as away:
        log.warning("registration waits: %s", away)
        return away


def judge_waiting_models(night: Night) -> None:
    """Judge the models of earlier nights whose model registry did not answer, oldest first, until it fails again.

    One that is refused, by its export say, is given up: it must not end this night and all that come.
    """
    for candidate in waiting_candidates(night):
        earlier = candidate.night
        log.info("night %s %s waited for the model registry", earlier.recipe.name, earlier.key[:KEY_CHARACTERS])
        try:
            registered = judge_model(candidate)
        except (Interrupted, NightBusy):
            raise
        except NightStopped as refused:
            give_up(note_path(earlier.home, earlier.recipe.name, earlier.key), refused)
            continue
        if isinstance(registered, StoreAway):
            return
        conclude_waiting(candidate, registered)
