"""What of a recipe's past goes, what stays and why: worked out before anything is touched."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG

from tasks.home.contents.pages import night_page_path
from tasks.home.notes import Note, night_notes, notes_in
from tasks.home.records import RECORD
from tasks.home.stage_table import STAGES
from tasks.home.trunk import Trunk, read_trunk
from tasks.pages.text import format_bytes, plural
from tasks.recipes.retention_config import RetentionConfig
from tasks.retention.needed import PARTIAL, HomeFolders, needed
from tasks.tracking.removal.runs import TrackedRun, TrackedVersion

DAY_SECONDS = 86_400
TRIALS = ("lr-search", "sweep")
"""Kinds of trials, whose notes begin with them."""
ORDER = {entry.name: place for place, entry in enumerate(STAGES)}


@dataclass(frozen=True)
class Tracked:
    """What the tracking store has of a recipe."""

    runs: Sequence[TrackedRun] = ()
    versions: Sequence[TrackedVersion] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a cleaning of one recipe deletes."""

    recipe: str
    home: Path
    kept: dict[str, str]
    """Names of stage folders that stay, with why."""
    folders: dict[str, str]
    """Names of those that go, with why, in the order in which they go."""
    notes: tuple[Path, ...] = ()
    runs: tuple[TrackedRun, ...] = ()
    versions: tuple[TrackedVersion, ...] = ()
    kept_versions: dict[int, str] = field(default_factory=dict)

    @property
    def places(self) -> list[Path]:
        """Everything on this machine's disk that goes."""
        of_runs = [run.folder for run in self.runs]
        return [*(self.home / "data" / name for name in self.folders), *self.notes, *filter(None, of_runs)]

    def as_text(self) -> str:
        """For people: each folder with its bytes, and why it goes; what stays, by reason."""
        lines = [f"{self.recipe} in {self.home}"]
        for name, why in self.folders.items():
            lines.append(f"  goes   {format_bytes(disk_bytes([self.home / 'data' / name])):>10}  {name}: {why}")
        if self.runs:
            size = format_bytes(disk_bytes(filter(None, (run.folder for run in self.runs))))
            lines.append(f"  goes   {size:>10}  {plural(len(self.runs), 'run')} in MLflow of earlier nights")
        if self.versions:
            told = ", ".join(str(its.version) for its in self.versions)
            lines.append(f"  goes               versions {told} of the registered model: old, and in no role")
        if self.notes:
            lines.append(f"  goes   {format_bytes(disk_bytes(self.notes)):>10}  {plural(len(self.notes), 'note')}")
        by_reason: dict[str, list[str]] = {}
        for name, why in self.kept.items():
            by_reason.setdefault(why.partition(", by ")[0], []).append(name)
        for why, names in by_reason.items():
            size = format_bytes(disk_bytes([self.home / "data" / name for name in names]))
            lines.append(f"  stays  {size:>10}  {plural(len(names), 'folder')}: {why}")
        lines += [f"  stays              version {number}: {why}" for number, why in self.kept_versions.items()]
        if not (self.folders or self.runs or self.versions or self.notes):
            lines.append("  nothing goes")
        return "\n".join(lines)


def disk_bytes(places: Iterable[Path], freed: bool = False) -> int:
    """Bytes of files below some places, one of several names counted once; with `freed` those alone that are nowhere
    else."""
    seen: dict[tuple[int, int], list[int]] = {}
    for stat in (stat for place in places for stat in stats(place)):
        entry = seen.setdefault((stat.st_dev, stat.st_ino), [stat.st_size, stat.st_nlink, 0])
        entry[2] += 1
    return sum(size for size, links, here in seen.values() if here >= links or not freed)


def stats(place: Path) -> Iterator[os.stat_result]:
    """Of a file, or of all files in a folder; one that goes meanwhile is passed over."""
    for folder, _, names in os.walk(place):
        for name in names:
            try:
                stat = os.lstat(Path(folder) / name)
            except FileNotFoundError:
                continue
            if S_ISREG(stat.st_mode):
                yield stat
    if place.is_file():
        yield place.lstat()


def last_touched(folder: Path) -> float:
    """When a folder was last worked in, in seconds since 1970; of a finished one, when it was finished."""
    record = folder / RECORD
    if record.exists():
        return record.stat().st_mtime
    return max([folder.stat().st_mtime, *(stat.st_mtime for stat in stats(folder))])


def plan_for(home: Path, recipe: str, config: RetentionConfig, tracked: dict[str, Tracked]) -> Plan:
    """What goes of a recipe.

    tracked: of every recipe that has registered versions or notes here; what other recipes need stays.
    """
    notes, folders = night_notes(home), HomeFolders(home)
    mine = [note for note in notes if note.recipe == recipe]
    trunk = read_trunk(home, recipe)
    in_full = [note for note in notes if note.recipe != recipe] + mine[: config.nights]
    in_full += [
        note for note in mine[config.nights :] if trunk and note.content.get("key") == trunk.night
    ]  # the last one of its own
    its = tracked.get(recipe, Tracked())
    roles = {name: {v.version: role_of(v) for v in t.versions if v.roles} for name, t in tracked.items()}
    kept = needed(folders, notes, in_full, roles)
    kept_versions = {v.version: "one of the newest" for v in its.versions[: config.versions]} | roles.get(recipe, {})
    old = {name for note in mine[config.nights :] for name in note.stages.values()}
    since = mine[config.nights - 1].changed if len(mine) >= config.nights else 0.0
    before = min(since, time.time() - DAY_SECONDS * config.unfinished_days)

    def why(name: str) -> str:
        if name in old:
            return f"of a night before the newest {config.nights}"
        touched = last_touched(folders.data / name)
        if touched >= before or not mine:
            return ""
        days = (time.time() - touched) / DAY_SECONDS
        return f"{'unfinished' if name.endswith(PARTIAL) else 'named by no night'}, {days:,.1f} days old"

    going = {name: reason for name in (*folders.records, *folders.others) if name not in kept and (reason := why(name))}
    staying = kept | {n: "not old enough" for n in (*folders.records, *folders.others) if n not in kept | going}
    here = {run.id for run in its.runs}
    of_what_stays = {folders.records[name].run_id for name in kept}
    of_what_stays |= {version.run_id for version in its.versions if version.version in kept_versions}
    of_what_stays |= {n.run_id for n in notes if n.recipe != recipe or stays(n, kept_versions, trunk)}
    return Plan(
        recipe=recipe, home=home, kept=staying,
        folders={name: going[name] for name in sorted(going, key=stage_place, reverse=True)},
        notes=tuple(notes_that_go(home, recipe, config, mine, kept_versions, trunk)),
        runs=tuple(runs_that_go(its, config, of_what_stays)),
        versions=tuple(v for v in its.versions if v.version not in kept_versions and v.run_id in here),
        kept_versions=kept_versions,
    )  # fmt: skip


def notes_that_go(
    home: Path, recipe: str, config: RetentionConfig, mine: Sequence[Note], kept_versions: Mapping[int, str],
    trunk: Trunk | None,
) -> Iterator[Path]:  # fmt: skip
    """Notes and pages of old nights whose model neither waits nor is a version that stays, and of old trials."""
    trials = [n for n in notes_in(home / "trials") if n.recipe in {f"{kind}-{recipe}" for kind in TRIALS}]
    nights = [n for n in mine[config.tracked_nights :] if not stays(n, kept_versions, trunk)]
    for note in (*nights, *trials[config.tracked_nights :]):
        page = night_page_path(home, recipe, note.name.rpartition("@")[2])
        yield from (path for path in (note.path.with_suffix(".md"), page, note.path) if path.exists())


def stays(note: Note, kept_versions: Mapping[int, str], trunk: Trunk | None) -> bool:
    """Whether a note is needed however old it is: that of the trunk's night has the lineage of those to come."""
    return note.waits or note.version in kept_versions or bool(trunk and trunk.folder in note.stages.values())


def stage_place(name: str) -> int:
    """Of a folder's stage in the order of a night, whatever its branch: what is made from others goes before them."""
    called = name.partition("@")[0]
    return max((place for stage, place in ORDER.items() if called.endswith(stage)), default=-1)


def role_of(version: TrackedVersion) -> str:
    return f"{' and '.join(version.roles)}, version {version.version}"


def runs_that_go(its: Tracked, config: RetentionConfig, stay: set[str]) -> Iterator[TrackedRun]:
    """Runs that began before the newest nights and that nothing which stays was tracked in, the newest first.

    stay: ids of the runs that what stays was tracked in; their parents stay, too.
    """
    nights = [run.started for run in its.runs if run.kind == "night" and not run.marked]
    if len(nights) <= config.tracked_nights:
        return
    since = nights[config.tracked_nights - 1]
    children = {run.parent for run in its.runs if {run.id, run.asked_as} & stay}
    for run in its.runs:
        if run.started < since and not {run.id, run.asked_as} & (stay | children):
            yield run
