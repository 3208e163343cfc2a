"""Raw jsonl → rows that are good. Every line ends as valid or quarantined, file by file, and the two add up."""

from __future__ import annotations

import itertools
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from data.rows.parts import Part
from data.rows.scan import ScanJob, ScanRules, scan
from data.rows.statistics import Statistics
from data.workers import run_jobs
from schemas.guesses import likely_setting
from schemas.jsonl import FILE_RULES
from schemas.report import EXAMPLES_PER_RULE
from tasks.errors import NightStopped
from tasks.home.code import code_version
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

    def renamed(name: str) -> str | None:
        old, _, suffix = name.removeprefix(f"{PARTS}/").partition(".")
        new = numbers.get(int(old)) if name.startswith(f"{PARTS}/") else None
        return None if new is None else f"{PARTS}/{new:05d}.{suffix}"

    return link_files(newest, folder, renamed)


def shown_quarantine(run: StageRun, pieces: Sequence[ScannedPiece]) -> Path:
    """The first of tonight's quarantined lines in one file, for people."""
    shown = run.logs / "quarantine.jsonl"
    with shown.open("wb") as stream:
        for piece in pieces:
            left = QUARANTINE_SHOWN_BYTES - stream.tell()
            lines = Part(run.folder / PARTS, piece.number).path("quarantine.jsonl").read_bytes()[: max(0, left)]
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


def lines_by_file(pieces: Sequence[ScannedPiece]) -> dict[str, Counter[str]]:
    """Lines of each file by what became of them, and conversations in which turns were merged."""
    counts: dict[str, Counter[str]] = {}
    for piece in pieces:
        names = ("read", "valid", "quarantined", "blank", "merged")
        lines = {name: getattr(piece.scanned, name) for name in names}
        counts.setdefault(piece.label, Counter()).update(lines)
    return counts


def rules_broken(pieces: Sequence[ScannedPiece]) -> dict[str, dict[str, Any]]:
    """Quarantined lines by rule, most frequent first, with a few examples."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for piece in pieces:
        for rule, found in piece.scanned.rules.items():
            counts[rule] += found["count"]
            shown = examples.setdefault(rule, [])
            shown += found["examples"][: EXAMPLES_PER_RULE - len(shown)]
    return {rule: {"count": count, "examples": examples[rule]} for rule, count in counts.most_common()}


def held(lines: Counter[str]) -> int:
    """Lines that hold something."""
    return lines["read"] - lines["blank"]


def left_out(pieces: Sequence[ScannedPiece]) -> list[tuple[str, str]]:
    """(file, reason) of files that are something else, or break off: one bad line stands for all of such a file."""
    return [
        (piece.label, example.removeprefix(piece.label).partition(" ")[2])
        for piece in pieces
        for rule in FILE_RULES
        for example in piece.scanned.rules.get(rule, {"examples": []})["examples"]
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
        (rule, found), *others = rules_broken(mine).items()
        part = next(Part(folder, piece.number) for piece in mine if rule in piece.scanned.rules)
        with part.path("quarantine.jsonl").open("rb") as stream:
            raw = next(bad["raw"] for bad in map(orjson.loads, stream) if bad["rule"] == rule)
        cure = likely_setting(raw, source.kind, source.format) or "Repair the data, or leave the source out."
        more = f", and {len(others)} other rule{'s' * (len(others) > 1)}" if others else ""
        raise NightStopped(
            f"source {source.name}: none of its {plural(held(lines), 'line')} is a valid row. {found['count']:,} of "
            f"them {'breaks' if found['count'] == 1 else 'break'} the rule {rule}{more}, "
            f"e.g. {found['examples'][0]}\n{cure}\n"
            f"Nothing was trained, the champion is untouched. All lines, with file, line and reason: {folder}"
        )


def bad_of(lines: Counter[str]) -> str:
    """How many of the lines are bad, in words."""
    bad = lines["quarantined"]
    return f"{bad:,} of {plural(held(lines), 'line')} {'is' if bad == 1 else 'are'} bad"


def stop_if_too_bad(
    by_file: Mapping[str, Counter[str]], broken: Mapping[str, Mapping[str, Any]], config: ValidateConfig, where: Path
) -> None:
    """Raise NightStopped if the bad share of a file or of all is over its limit, or nothing is left."""
    total: Counter[str] = sum(by_file.values(), Counter())
    worst = [
        f"{rule['count']:>8,}  {name}  e.g. {rule['examples'][0]}" for name, rule in itertools.islice(broken.items(), 6)
    ]
    ending = "\n".join([*worst, f"All of them, with file, line and reason: {where}"])

    def share(lines: Counter[str]) -> float:
        return lines["quarantined"] / max(1, held(lines))

    if share(total) > config.max_bad_share:
        raise NightStopped(
            f"{bad_of(total)}: {share(total):.1%}, the limit is "
            f"{config.max_bad_share:.1%} (validate.max_bad_share). Nothing was trained, the champion is untouched.\n"
            f"{ending}"
        )
    for label, lines in by_file.items():
        if held(lines) >= config.min_lines_to_judge and share(lines) > config.max_bad_share_per_file:
            raise NightStopped(
                f"{label}: {bad_of(lines)}: {share(lines):.1%}, the limit "
                f"for one file is {config.max_bad_share_per_file:.1%} (validate.max_bad_share_per_file). Repair it or "
                f"leave it out; nothing was trained.\n{ending}"
            )
    if not total["valid"]:
        raise NightStopped(f"none of {plural(total['read'], 'line')} is valid; see {where}\n{ending}")


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
    stop_if_too_bad(by_file, broken, run.recipe.validate, run.folder / PARTS)
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
