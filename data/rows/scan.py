"""A piece of raw jsonl → rows that are good, lines that are not, and counts that add up. Runs in a worker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import polars as pl

from data.rows.keys import row_ids
from data.rows.parts import FACTS_DTYPE, Part, PartWriter, Scanned, content_column, named_by, spoken_of, texts_of
from data.rows.piece import Piece
from data.rows.sketch import SKETCH_BYTES, sketches_of
from data.rows.statistics import Statistics, measure
from schemas.adapters import Format, check_rows
from schemas.domain import DOMAINS, Domain, classify
from schemas.files.reader import read_chunks
from schemas.filters import FilterConfig, faults_of_texts
from schemas.jsonl import BLANK, Chunk, Fault, excerpt, parse_chunk
from schemas.report import FailureReport

PRIVATE_RULES = ("filter_personal_data",)
"""Rules whose lines are not copied into the quarantine: file, line and offset show where to look."""


@dataclass(frozen=True, kw_only=True)
class ScanRules:
    """What decides whether a line is kept, and what is noted of it."""

    max_line_bytes: int
    filters: FilterConfig
    near_duplicates: bool
    """Whether sketches are wanted; without, they are left empty."""


@dataclass(frozen=True, kw_only=True)
class ScanJob:
    """One piece and where its part goes."""

    piece: Piece
    path: Path
    """The file of the piece on this machine, a table's as jsonl."""
    kind: str
    """One of data.rows.parts.KINDS."""
    format: Format
    merge_turns: bool
    """Whether turns of one role in a row are one turn."""
    domain: Domain | None
    """What the source declares all its rows to be about; None: each row is classified."""
    rules: ScanRules
    part: Part


def scan(job: ScanJob) -> Scanned:
    """Read, check and classify every line of a piece; write the part."""
    piece, report, statistics = job.piece, FailureReport(), Statistics()
    read = valid = blank = merged = num_bytes = 0
    quarantine_path = job.part.path("quarantine.jsonl")
    with PartWriter(job.part, job.kind) as writer, quarantine_path.open("w", encoding="utf-8") as quarantine:
        chunks = read_chunks(job.path, job.rules.max_line_bytes, piece.start, piece.end, piece.first_line)
        for chunk in chunks:
            checked = check_chunk(chunk, job.kind, job.format, job.merge_turns, job.rules.filters)
            content, lines = checked.content, checked.places
            faults, num_blank = without_blank(checked.faults)
            texts = texts_of(content)
            domains = domains_of(texts, job)
            facts = facts_of(chunk, lines, texts, domains)
            sketches = (
                sketches_of(spoken_of(content))
                if job.rules.near_duplicates
                else np.zeros((len(lines), SKETCH_BYTES), dtype=np.uint8)
            )
            writer.write(content, row_ids(named_by(content)), sketches, facts)
            reject(chunk, faults, piece.label, quarantine, report)
            turns = content.list.len() if job.kind == "chat" else None
            statistics = statistics.merge(measure(texts, turns, domains))
            read, valid = read + len(chunk.lines), valid + len(lines)
            blank += num_blank
            merged += checked.merged
            num_bytes += int(facts["num_bytes"].sum())
    quarantined = sum(report.counts.values())
    if read != valid + quarantined + blank:
        raise AssertionError(
            f"{piece.label}: {read} lines read; {valid} valid, {quarantined} quarantined, {blank} blank do not add up"
        )
    return Scanned(
        read=read, valid=valid, quarantined=quarantined, blank=blank, num_bytes=num_bytes, merged=merged,
        rules=report.as_dict(), statistics=statistics.as_dict(),
    )  # fmt: skip


@dataclass(frozen=True)
class CheckedChunk:
    """The N good lines of a chunk, and why the others are not."""

    content: pl.Series
    """(N,) of CONTENT"""
    places: np.ndarray
    """(N,) int64, ascending: where in the chunk they are."""
    faults: dict[int, Fault]
    """Of every other line, by its place."""
    merged: int
    """Good conversations in which several turns of a role were made one."""


def check_chunk(chunk: Chunk, kind: str, row_format: Format, merge_turns: bool, filters: FilterConfig) -> CheckedChunk:
    """Parse the lines of a chunk, check them as rows of `kind` (pretrain or chat) in `row_format`, apply `filters`."""
    rows, faults = parse_chunk(chunk)
    parsed = [index for index, row in enumerate(rows) if row is not None and index not in faults]
    checked = check_rows([row for index in parsed if (row := rows[index]) is not None], kind, row_format, merge_turns)
    places = np.array(parsed, dtype=np.int64)
    faults |= {parsed[index]: fault for index, fault in checked.faults.items()}
    content = checked.good[content_column(kind)]
    kept = places[checked.good["row"].to_numpy()] if len(content) else np.zeros(0, dtype=np.int64)
    if filters.active and len(content):
        filtered = faults_of_texts(texts_of(content), filters)
        faults |= {int(kept[index]): fault for index, fault in filtered.items()}
        stays = np.ones(len(kept), dtype=bool)
        stays[list(filtered)] = False
        content, kept = content.filter(pl.Series(stays)), kept[stays]
    merged = np.isin(places[sorted(checked.merged)], kept).sum()
    return CheckedChunk(content, kept, faults, int(merged))


def without_blank(faults: dict[int, Fault]) -> tuple[dict[int, Fault], int]:
    """The faults of lines that hold something, and how many hold nothing."""
    bad = {index: fault for index, fault in faults.items() if fault.rule != BLANK}
    return bad, len(faults) - len(bad)


def domains_of(texts: pl.Series, job: ScanJob) -> pl.Series:
    """Codes of the rows' domains: what the source declares, a chat row's own, else by rules."""
    declared = job.domain or ("chat" if job.kind == "chat" else None)
    if declared is None:
        return classify(texts)
    return pl.Series(np.full(len(texts), DOMAINS.index(declared), dtype=np.uint8))


def facts_of(chunk: Chunk, places: np.ndarray, texts: pl.Series, domains: pl.Series) -> np.ndarray:
    facts = np.zeros(len(places), dtype=FACTS_DTYPE)
    facts["byte_offset"] = np.asarray(chunk.offsets, dtype=np.uint64)[places]
    facts["line"] = chunk.first_line + places
    facts["num_bytes"] = texts.str.len_bytes().to_numpy()
    facts["domain"] = domains.to_numpy()
    return facts


def reject(chunk: Chunk, faults: dict[int, Fault], label: str, quarantine: TextIO, report: FailureReport) -> None:
    """Write the lines that are not kept, in order, and count them."""
    for index in sorted(faults):
        line, fault = chunk.first_line + index, faults[index]
        report.add(label, line, fault)
        row = {"file": label, "line": line, "byte_offset": int(chunk.offsets[index]), **asdict(fault)}
        raw = "" if fault.rule in PRIVATE_RULES else excerpt(chunk.lines[index])
        quarantine.write(json.dumps(row | {"raw": raw}, ensure_ascii=False) + "\n")


def merged(scans: Sequence[Scanned]) -> Statistics:
    """Statistics of several pieces together."""
    statistics = Statistics()
    for one in scans:
        statistics = statistics.merge(Statistics.from_dict(one.statistics))
    return statistics
