"""How a night ended, as a line of the journal: from its stages where it came to its end, else from what ended it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from data.sides.slices import read_slices, validation_version
from tasks.home.contents.validated import read_pieces
from tasks.home.journal import KEY_CHARACTERS
from tasks.home.lines import now
from tasks.home.outcomes import NightOutcome, outcomes, verdict
from tasks.night.candidate import Candidate
from tasks.night.failure import how_it_ended, reason_of
from tasks.stage import Night


def broken_off(recipe: str, night: Night | None, error: BaseException, home: Path) -> NightOutcome:
    """A night that did not come to its end; None of one that was not opened."""
    at = now()
    return NightOutcome(
        recipe=recipe, key=night.key[:KEY_CHARACTERS] if night else "", day=(night.day if night else "") or at[:10],
        at=at, ending=how_it_ended(error), reason=reason_of(error), run_id=night.run_id if night else "",
        home_bytes=disk_of(home), seconds=seconds_of(night) if night else None,
    )  # fmt: skip


def seconds_of(night: Night) -> float | None:
    """Since this run of a night was opened; None of one that is concluded by a later one."""
    return round(time.monotonic() - night.opened_at, 1) if night.opened_at else None


def concluded(candidate: Candidate, decision: Mapping[str, object], went_back: str) -> NightOutcome:
    """A night that came to its end.

    decision: what the register stage noted, without a version where it waits for the registry.
    went_back: why the trunk went back, where it did.
    """
    night, scored = candidate.night, candidate.scored
    slices, key, fresh, seconds = read_slices(scored.path), night.key[:KEY_CHARACTERS], None, None
    if night.opened_at:
        fresh, seconds = new_bytes(night, candidate), seconds_of(night)
    elif noted := [o for o in outcomes(night.journal.entries(), night.recipe.name) if o.key == key]:
        fresh, seconds = noted[-1].new_bytes, noted[-1].seconds  # decided on later: only the night itself could tell

    def number(name: str) -> float | None:
        value = decision.get(name)
        return float(value) if isinstance(value, int | float) else None

    version = decision["version"]
    return NightOutcome(
        recipe=night.recipe.name, key=key, day=night.day, at=now(), ending=verdict(decision),
        reason=str(decision["reason"]), run_id=night.run_id, version=version if isinstance(version, int) else None,
        bits_per_byte=scored.figures.get("val/bpb"), difference_bpb=number("difference_bpb"),
        lower_bpb=number("lower_bpb"), upper_bpb=number("upper_bpb"),
        validation=str(validation_version(slices)) if slices else "",
        rows=sum(candidate.rows.counts[f"{kind}_train"] for kind in ("pretrain", "chat")),
        new_bytes=fresh, home_bytes=disk_of(night.home), seconds=seconds, went_back=went_back,
    )  # fmt: skip


def new_bytes(night: Night, candidate: Candidate) -> int:
    """Raw bytes of the pieces that were not in the data before tonight's."""
    validated = candidate.record_of("validate")
    fresh = validated.counts.get("fresh_pieces", 0)
    new = {scanned.piece.digest for scanned in read_pieces(validated.path)[-fresh:]} if fresh else set()
    return sum(located.num_bytes for located in night.raw.pieces if located.piece.digest in new)


def disk_of(home: Path) -> int:
    """Bytes on the disk below a folder, each file once however many links it has."""
    seen, total, folders = set[tuple[int, int]](), 0, [str(home)]
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except OSError:
            continue  # gone since it was listed
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks * 512
    return total
