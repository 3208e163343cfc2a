"""Raw jsonl → rows that are good. Every line ends as valid or quarantined, file by file, and the two add up."""

from __future__ import annotations

import itertools
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from data.rows.folding import Parts, bad_lines_of, fold_parts, take_parts
from data.rows.parts import Part
from data.rows.scan import ScanJob, ScanRules, scan
from data.rows.statistics import Statistics
from data.workers import run_jobs
from schemas.guesses import likely_setting
from schemas.jsonl import FILE_RULES
from tasks.errors import NightStopped
from tasks.home.code import code_version
from tasks.home.contents.bad_lines import (
    cures_of_formats,
    held,
    left_out,
    lines_by_file,
    other_shapes,
    raw_lines,
    rules_broken,
)
from tasks.home.contents.validated import PARTS, REPORT, ScannedPiece, read_pieces, write_pieces
from tasks.home.digests import digest_of
from tasks.home.links import link_files
from tasks.home.records import StageRecord
from tasks.pages.figures import row_length_histogram
from tasks.pages.text import plural
from tasks.recipes.recipe import Recipe
from tasks.recipes.stage_configs import SourceConfig, ValidateConfig
from tasks.sources.resolve import LocatedPiece
from tasks.stage import Night, Outcome, StageRun, stage

log = logging.getLogger("nightschool")
QUARANTINE_SHOWN_BYTES = 8 << 20
"""How much of tonight's quarantine goes to MLflow; all of it lies beside the parts."""
FILES_SHOWN = 5
"""Of a source of which nothing is left."""
SCANNERS = ("data.rows.scan", "tasks.sources.tables")
"""The modules whose code decides what becomes of a line: the second writes a table as lines."""


def rules_of(recipe: Recipe) -> ScanRules:
    return ScanRules(
        max_line_bytes=recipe.validate.max_line_bytes,
        filters=recipe.validate.filters,
        near_duplicates=recipe.deduplicate.near_threshold is not None,
    )


def scan_key(located: LocatedPiece, rules: ScanRules) -> str:
    """Digest of a piece and of all that decides what becomes of its lines."""
    source = located.source
    return digest_of(
        {
            "piece": located.piece,
            "shape": [source.kind, source.format, source.domain, source.merge_turns],
            "rules": rules,
            "code": [code_version(module) for module in SCANNERS],
        }
    )


def link_parts(newest: StageRecord | None, numbers: Mapping[int, int], folder: Path) -> dict[str, str]:
    """Link earlier parts, given as old and new numbers; returns the files' digests."""
    if newest is None:
        return {}
    (folder / PARTS).mkdir()
    stems = take_parts(Parts.read(newest.path / PARTS), numbers, folder / PARTS)

    def renamed(name: str) -> str | None:
        old, _, suffix = name.removeprefix(f"{PARTS}/").partition(".")
        return f"{PARTS}/{stems[old]}.{suffix}" if name.startswith(f"{PARTS}/") and old in stems else None

    return link_files(newest, folder, renamed)


def shown_quarantine(run: StageRun, pieces: Sequence[ScannedPiece]) -> Path:
    """The first of tonight's quarantined lines in one file, for people."""
    shown = run.logs / "quarantine.jsonl"
    with shown.open("wb") as stream:
        for piece in pieces:
            left = QUARANTINE_SHOWN_BYTES - stream.tell()
            lines = bad_lines_of(Part(run.folder / PARTS, piece.number)).read(max(0, left))
            stream.write(lines[: lines.rfind(b"\n") + 1])
    return shown


def lengths_of(pieces: Sequence[ScannedPiece]) -> dict[str, tuple[int, ...]]:
    """Valid rows of each source by the power of two of their bytes."""
    by_source: dict[str, Statistics] = {}
    for piece in pieces:
        found = Statistics.from_dict(piece.scanned.statistics)
        by_source[piece.source] = by_source.get(piece.source, Statistics()).merge(found)
    return {source: statistics.total.histograms["bytes"] for source, statistics in by_source.items()}


def scan_pieces(
    keyed: Sequence[tuple[LocatedPiece, str]], rules: ScanRules, folder: Path, first_number: int
) -> list[ScannedPiece]:
    """Scan pieces, given with their scan keys, by `rules` into parts of `folder`, numbered from `first_number`."""
    (folder / PARTS).mkdir(exist_ok=True)
    jobs = [
        ScanJob(
            piece=located.piece, path=located.path, kind=located.source.kind, format=located.source.format,
            merge_turns=located.source.merge_turns, domain=located.source.domain, rules=rules,
            part=Part(folder / PARTS, first_number + index),
        )
        for index, (located, _) in enumerate(keyed)
    ]  # fmt: skip
    num_bytes = sum(located.num_bytes for located, _ in keyed)
    return [
        ScannedPiece(piece=job.piece, number=job.part.number, kind=job.kind, scan_key=key, scanned=scanned)
        for job, (_, key), scanned in zip(jobs, keyed, run_jobs(scan, jobs, num_bytes), strict=True)
    ]


def stop_if_a_source_is_lost(pieces: Sequence[ScannedPiece], sources: Sequence[SourceConfig], folder: Path) -> None:
    """Raise NightStopped if a source has no valid row, with its commonest fault and what may cure it."""
    for source in sources:
        mine = [piece for piece in pieces if piece.source == source.name]
        lines: Counter[str] = sum(lines_by_file(mine).values(), Counter())
        if lines["valid"]:
            continue
        if not held(lines):
            blank = f", {plural(lines['blank'], 'blank line')} alone" if lines["blank"] else ""
            raise NightStopped(
                f"source {source.name}: there is no row in {source.location}{blank}; nothing was trained"
            )
        broken = rules_broken(mine)
        told = of_files(mine) if broken.keys() <= set(FILE_RULES) else of_lines(mine, source, broken, folder)
        raise NightStopped(
            f"source {source.name}: {told}\n"
            f"Nothing was trained, the champion is untouched. All lines, with file, line and reason: {folder}"
        )


def of_files(pieces: Sequence[ScannedPiece]) -> str:
    """Why no row could be read in the files of a source, each of which is something else."""
    reasons = [f"{label}: {reason}" for label, reason in left_out(pieces)]
    more = [f"and {len(reasons) - FILES_SHOWN} more"] if len(reasons) > FILES_SHOWN else []
    return "\n  ".join(["no row could be read", *reasons[:FILES_SHOWN], *more])


def of_lines(
    pieces: Sequence[ScannedPiece], source: SourceConfig, broken: Mapping[str, Mapping[str, Any]], folder: Path
) -> str:
    """What is wrong with the lines of a source, all of which are bad, and what may cure it."""
    (rule, found), *others = broken.items()
    number = sum(each["count"] for each in broken.values())
    if number == 1:
        told = f"its one line is no valid row: it breaks the rule {rule}"
    elif not others:
        told = f"none of its {plural(number, 'line')} is a valid row, all break the rule {rule}"
    else:
        more = f"and {plural(len(others), 'other rule')}"
        breaks = "breaks" if found["count"] == 1 else "break"
        told = f"none of its {plural(number, 'line')} is a valid row. "
        told += f"{found['count']:,} of them {breaks} the rule {rule}, {more}"
    part = next(piece for piece in pieces if rule in piece.scanned.rules)
    cure = likely_setting(next(raw_lines(part, folder, rule)), source.kind, source.format)
    if len(sum(other_shapes(pieces, [source], folder).values(), Counter())) > 1:
        cure = "\n".join(cures_of_formats(pieces, [source], folder))
    return f"{told}, e.g. {found['examples'][0]}\n{cure or 'Repair the data, or leave the source out.'}"


def bad_of(lines: Counter[str]) -> str:
    """How many of the lines are bad, in words."""
    bad = lines["quarantined"]
    return f"{bad:,} of {plural(held(lines), 'line')} {'is' if bad == 1 else 'are'} bad"


def stop_if_too_bad(
    by_file: Mapping[str, Counter[str]], broken: Mapping[str, Mapping[str, Any]], config: ValidateConfig, where: Path,
    cures: Callable[[], Sequence[str]] = tuple,
) -> None:  # fmt: skip
    """Raise NightStopped if the bad share of a file or of all is over its limit, or nothing is left.

    `cures`: asked for sentences to say beside it.
    """
    total: Counter[str] = sum(by_file.values(), Counter())
    worst = [
        f"{rule['count']:>8,}  {name}  e.g. {rule['examples'][0]}" for name, rule in itertools.islice(broken.items(), 6)
    ]

    def ending() -> str:
        return "\n".join([*cures(), *worst, f"All of them, with file, line and reason: {where}"])

    def share(lines: Counter[str]) -> float:
        return lines["quarantined"] / max(1, held(lines))

    if share(total) > config.max_bad_share:
        raise NightStopped(
            f"{bad_of(total)}: {share(total):.1%}, the limit is "
            f"{config.max_bad_share:.1%} (validate.max_bad_share). Nothing was trained, the champion is untouched.\n"
            f"{ending()}"
        )
    for label, lines in by_file.items():
        if held(lines) >= config.min_lines_to_judge and share(lines) > config.max_bad_share_per_file:
            raise NightStopped(
                f"{label}: {bad_of(lines)}: {share(lines):.1%}, the limit "
                f"for one file is {config.max_bad_share_per_file:.1%} (validate.max_bad_share_per_file). Repair it or "
                f"leave it out; nothing was trained.\n{ending()}"
            )
    if not total["valid"]:
        raise NightStopped(f"none of {plural(total['read'], 'line')} is valid; see {where}\n{ending()}")


@dataclass(frozen=True)
class Tonight:
    """Tonight's pieces beside those that the recipe's last validation knew."""

    newest: StageRecord | None
    """The last validation."""
    known: list[ScannedPiece]
    """Its pieces that are there tonight, too, and are scanned by the same rules."""
    grows: bool
    """Whether all of its pieces are: then tonight's validation has its parts and more."""
    fresh: dict[str, LocatedPiece]
    """Pieces that must be scanned, by the key of their scan."""
    keys: dict[str, str]
    """The keys of all scans by file and number."""

    @classmethod
    def of(cls, night: Night) -> Tonight:
        newest = night.journal.newest("validate", night.recipe.name)
        tonight = {scan_key(piece, rules_of(night.recipe)): piece for piece in night.raw.pieces}
        earlier = {p.scan_key: p for p in read_pieces(newest.path)} if newest else {}
        known = [piece for key, piece in earlier.items() if key in tonight]
        return cls(
            newest,
            known,
            grows=newest is not None and len(known) == len(earlier),
            fresh={key: piece for key, piece in tonight.items() if key not in earlier},
            keys={f"{located.piece.label}#{number}": key for number, (key, located) in enumerate(tonight.items())},
        )


def pieces_tonight(night: Night) -> dict[str, str]:
    """The keys of tonight's scans, and the digest of the validation that this one grows from."""
    tonight = Tonight.of(night)
    if tonight.newest and tonight.grows:
        return {**tonight.keys, "base": tonight.newest.digest} if tonight.fresh else dict(tonight.newest.inputs)
    return {**tonight.keys, "base": ""}


@stage(config=lambda recipe: {"validate": recipe.validate}, inputs=pieces_tonight, grows=True)
def validate(run: StageRun) -> Outcome:
    """Validate tonight's raw files; pieces that an earlier night validated by the same rules are linked."""
    tonight, night = Tonight.of(run.night), run.night
    kept = [replace(piece, number=number) for number, piece in enumerate(tonight.known)]
    old = tonight.known if tonight.grows else kept
    numbers = {before.number: after.number for before, after in zip(tonight.known, old, strict=True)}
    linked = link_parts(tonight.newest, numbers, run.folder)
    new = scan_pieces([(p, key) for key, p in tonight.fresh.items()], rules_of(run.recipe), run.folder, len(old))
    pieces = [*old, *new]
    write_pieces(run.folder, pieces)
    by_file, broken = lines_by_file(pieces), rules_broken(pieces)
    total: Counter[str] = sum(by_file.values(), Counter())
    set_aside = [*night.raw.set_aside, *left_out(pieces)]
    for label, reason in left_out(pieces):
        log.warning("left out  %s: %s", label, reason)
    report = {"files": by_file, "total": total, "rules": broken, "set_aside": set_aside}
    (run.folder / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    run.tracker.artifact(run.folder / REPORT, "quarantine")
    run.tracker.artifact(shown_quarantine(run, new), "quarantine")
    run.tracker.artifact(row_length_histogram(lengths_of(pieces), run.logs / "row-lengths.png"), "figures")
    stop_if_a_source_is_lost(pieces, run.recipe.sources, run.folder / PARTS)
    cures = partial(cures_of_formats, pieces, run.recipe.sources, run.folder / PARTS)
    stop_if_too_bad(by_file, broken, run.recipe.validate, run.folder / PARTS, cures)
    fold_parts(run.folder / PARTS, {piece.number: piece.kind for piece in pieces}, [piece.number for piece in new])
    grown = f", {sum(p.scanned.read for p in new):,} of them new" if old else ""
    blank = f" + {total['blank']:,} blank" if total["blank"] else ""
    merged = f"; turns of one role in a row merged in {total['merged']:,}" if total["merged"] else ""
    told = f"; {len(set_aside):,} left out, the first is {set_aside[0][0]}" if set_aside else ""
    names = ("read", "valid", "quarantined", "blank", "merged")
    return Outcome(
        counts={name: total[name] for name in names} | {"fresh_pieces": len(new)},
        headline=f"{plural(total['read'], 'line')} = {total['valid']:,} valid + {total['quarantined']:,} quarantined"
        f"{blank}{grown}{merged}{told}",
        figures={"data/bad_share": total["quarantined"] / max(1, held(total))},
        linked=linked,
    )
