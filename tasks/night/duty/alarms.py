"""What a person should hear of a night's end: the outcome itself, and what the nights before say beside it."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from tasks.home.journal import Journal
from tasks.home.lines import now
from tasks.home.outcomes import NightOutcome, outcomes
from tasks.pages.text import format_bytes, one_line
from tasks.recipes.alarm_config import AlarmConfig
from tasks.services.endings import TOLD
from tasks.services.notices import NIGHT, Notice, report, tell

ALARM = "alarm"
"""The event of a line in the journal: something was told."""
LASTING = ("disk", "gate")
"""Kinds that hold for many nights in a row, and are told again after some days alone."""
log = logging.getLogger("nightschool")


def sound_alarms(
    journal: Journal,
    outcome: NightOutcome,
    config: AlarmConfig,
    minimum_detectable_bpb: float | None = None,
    error: BaseException | None = None,
) -> list[Notice]:
    """Report a night's end to Prefect, and tell a person what is to be told; returns that. Never raises.

    journal: of the night's home; the outcome is noted in it already.
    config: the recipe's `alarms`.
    minimum_detectable_bpb: of tonight's decision, the smallest gain that the gate can tell from chance.
    error: what ended the night, where something did: its flow tells it to nobody again.
    """
    due: list[Notice] = []
    try:
        report(f"{NIGHT}{outcome.ending}", outcome.recipe, dataclasses.asdict(outcome))
        entries, free = journal.entries(), shutil.disk_usage(journal.home).free
        found = alarms_of(outcomes(entries, outcome.recipe), free, config, minimum_detectable_bpb)
        due += [alarm for alarm in found if is_due(alarm, entries, datetime.fromisoformat(now()), config.repeat_days)]
        for alarm in due:
            tell(alarm)
            if error is not None:
                setattr(error, TOLD, True)
            journal.note(event=ALARM, recipe=alarm.recipe, kind=alarm.kind, told=alarm.text)
    except Exception as problem:  # a disk, or a line of another release: no night fails for its alarms
        log.warning("who is to be told of the night's end could not be found out: %s", one_line(problem))
    return due


def alarms_of(
    nights: Sequence[NightOutcome],
    free_bytes: int,
    config: AlarmConfig,
    minimum_detectable_bpb: float | None = None,
) -> list[Notice]:
    """What the last of a recipe's nights, in order of time, gives reason to tell. Nothing for no night.

    free_bytes: of the disk that the home lies on.
    minimum_detectable_bpb: the smallest gain that the gate can tell from chance; None where nothing was compared.
    """
    if not nights:
        return []
    last = nights[-1]
    told = f"Night {last.recipe} {last.day}"
    found = []

    def add(kind: str, title: str, text: str) -> None:
        found.append(Notice(kind=kind, recipe=last.recipe, title=f"{told}: {title}", text=text))

    if last.ending in ("failed", "diverged", "stopped", "refused"):
        add(last.ending, last.ending, last.reason)
    if last.went_back:
        add("went-back", "the trunk went back", f"The trunk went back to the champion's: {last.went_back}")
    if disk := why_disk_is_short(nights, free_bytes, config):
        add("disk", "the disk will not last", disk)
    if gate := why_nothing_can_pass(nights, config, minimum_detectable_bpb) or why_limits_refuse_all(nights, config):
        add("gate", "the gate cannot pass", gate)
    return found


def why_disk_is_short(nights: Sequence[NightOutcome], free_bytes: int, config: AlarmConfig) -> str:
    """That the free space ends within `disk_days` at the growth of the last nights; empty if it does not.

    Nights are put in the journal's order. Where the clock went back between the first and the last of them there is no
    growth a day, and what a night took stands for a day.
    """
    sized = [night for night in nights if night.home_bytes is not None][-config.growth_nights :]
    if len(sized) < 2:
        return ""
    first, last = sized[0], sized[-1]
    grown = (last.home_bytes or 0) - (first.home_bytes or 0)
    elapsed = datetime.fromisoformat(last.at) - datetime.fromisoformat(first.at)
    days = elapsed / timedelta(days=1)
    a_day = grown / days if days > 0 else grown / (len(sized) - 1)
    if a_day <= 0 or free_bytes / a_day >= config.disk_days:
        return ""
    growth, daily, free = format_bytes(grown), format_bytes(round(a_day)), format_bytes(free_bytes)
    return (
        f"The disk is full in {free_bytes / a_day:.1f} days: the home grew by {growth} in {len(sized)} nights, {daily} "
        f"a day, and {free} are free; alarms.disk_days is {config.disk_days:g}. Make room, or keep less: "
        "python -m flows clean --dry-run says what could go"
    )


def why_nothing_can_pass(
    nights: Sequence[NightOutcome], config: AlarmConfig, minimum_detectable_bpb: float | None
) -> str:
    """That no gain so far was large enough for the gate to see; empty if one was, or if too few were compared."""
    gains = [-night.difference_bpb for night in nights if night.difference_bpb is not None]
    if minimum_detectable_bpb is None or len(gains) < config.gate_nights:
        return ""
    best = max(gains)
    if best >= minimum_detectable_bpb:
        return ""
    return (
        f"The gate sees gains of {minimum_detectable_bpb:.4f} bits per byte and more; the largest of {len(gains)} "
        f"compared nights was {best:.4f}. No such model is ever promoted: more validation text "
        "(split.val_bytes_per_slice) or more training a night would change that"
    )


def why_limits_refuse_all(nights: Sequence[NightOutcome], config: AlarmConfig) -> str:
    """That limits refused every one of the last models although it is better; empty if they did not."""
    last = [night for night in nights if night.difference_bpb is not None][-config.gate_nights :]
    better = [night for night in last if night.ending == "refused" and (night.upper_bpb or 0.0) < 0]
    if len(better) < config.gate_nights:
        return ""
    gained = max(-(night.difference_bpb or 0.0) for night in better)
    return (
        f"The last {len(better)} models that were compared are better than the champion, by {gained:.4f} bits per byte "
        f"at most, and limits refused every one, the last of them since: {better[-1].reason}. The champion may owe its "
        "figure to chance: raise the limit in `promote`, or accept what is lost: "
        f"python -m flows promote {better[-1].recipe} {better[-1].version}"
    )


def is_due(alarm: Notice, entries: Iterable[Mapping[str, Any]], at: datetime, repeat_days: float) -> bool:
    """Whether an alarm is to be told now: at once, unless it is about what lasts and was told lately.

    entries: lines of the journal. A line from later than `at`, as the clock went back, was lately.
    """
    if alarm.kind not in LASTING:
        return True
    told = [
        datetime.fromisoformat(str(entry["at"]))
        for entry in entries
        if (entry.get("event"), entry.get("recipe"), entry.get("kind")) == (ALARM, alarm.recipe, alarm.kind)
    ]
    return not told or at - told[-1] >= timedelta(days=repeat_days)
