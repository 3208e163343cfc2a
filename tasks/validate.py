"""Raw jsonl → rows that are good. Every line ends as kept, duplicate or quarantined, and the three add up."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from schemas.chat import TURNS, check_chat
from schemas.jsonl import Fault, Line, parse, read_chunks
from schemas.pretrain import check_pretrain
from schemas.report import Checked, FailureReport
from tasks.artifacts import StageRecord
from tasks.errors import NightStopped
from tasks.figures import row_length_histogram
from tasks.recipe import ValidateConfig
from tasks.sources import SourceFile, resolve
from tasks.stage import Night, Outcome, StageRun, run_stage

CONTENT = {"pretrain": pl.Schema({"text": pl.String}), "chat": pl.Schema({"conversations": TURNS})}
"""Payload columns of the tables, by kind of source."""
CHECKS = {"pretrain": check_pretrain, "chat": check_chat}
QUARANTINE, REPORT = "quarantine.jsonl", "report.json"


def normalised(text: str) -> str:
    """Text as duplicates are compared: composed characters, white space runs as one blank."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def row_id(content: Mapping[str, Any]) -> str:
    """Name of a row: hash of its normalised text, 32 hex digits. A conversation's text is its turns, joined."""
    text = content["text"] if "text" in content else "\n".join(turn["content"] for turn in content["conversations"])
    return hashlib.blake2b(normalised(text).encode(), digest_size=16).hexdigest()


@dataclass
class Counts:
    """Fates of the lines of one file."""

    read: int = 0
    kept: int = 0
    duplicate: int = 0
    quarantined: int = 0

    def __iadd__(self, other: Counts) -> Counts:
        for name in dataclasses.asdict(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    @property
    def bad_share(self) -> float:
        return self.quarantined / max(1, self.read)


class TableWriter:
    """Good rows of one kind, written chunk by chunk to `<kind>.parquet`."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._provenance = pl.Schema(
            {"row_id": pl.String, "source": pl.String, "file": pl.String, "line": pl.Int64, "byte_offset": pl.Int64}
        )
        self.schema = pl.Schema({**self._provenance, **CONTENT[kind]})
        self._writer = pq.ParquetWriter(folder / f"{kind}.parquet", self._arrow([]).schema)

    def _arrow(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        return pl.DataFrame(rows, schema=self.schema, orient="row").to_arrow()

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            self._writer.write_table(self._arrow(rows))

    def close(self) -> None:
        self._writer.close()


@dataclass
class Validation:
    """State of a pass over all files: what was seen, and where things go."""

    folder: Path
    config: ValidateConfig
    quarantine: TextIO
    report: FailureReport = field(default_factory=FailureReport)
    seen: dict[str, set[str]] = field(default_factory=lambda: {kind: set() for kind in CHECKS})
    lengths: dict[str, list[int]] = field(default_factory=dict)
    """UTF-8 bytes of each kept row, by source."""

    def reject(self, file: SourceFile, line: Line, fault: Fault) -> None:
        self.report.add(file.label, line.number, fault)
        row = {
            "file": file.label, "line": line.number, "byte_offset": line.byte_offset, "rule": fault.rule,
            "detail": fault.detail, "raw": line.excerpt(),
        }  # fmt: skip
        self.quarantine.write(json.dumps(row, ensure_ascii=False) + "\n")

    def chunk(self, file: SourceFile, lines: Sequence[Line], table: TableWriter) -> Counts:
        """Parse, check, deduplicate and write one chunk."""
        counts = Counts(read=len(lines))
        parsed: list[tuple[Line, dict[str, object]]] = []
        rejected: list[tuple[Line, Fault]] = []
        for line in lines:
            row = parse(line)
            if isinstance(row, Fault):
                rejected.append((line, row))
            else:
                parsed.append((line, row))
        checked: Checked = CHECKS[file.source.kind]([row for _, row in parsed])
        rejected += [(parsed[index][0], fault) for index, fault in checked.faults.items()]
        for line, fault in sorted(rejected, key=lambda item: item[0].number):
            self.reject(file, line, fault)
        counts.quarantined = len(rejected)
        kept = []
        for content in checked.good.iter_rows(named=True):
            line = parsed[content.pop("row")][0]
            identity = row_id(content)
            if identity in self.seen[file.source.kind]:
                counts.duplicate += 1
                continue
            self.seen[file.source.kind].add(identity)
            self.lengths.setdefault(file.source.name, []).append(len(line.data))
            kept.append(
                {"row_id": identity, "source": file.source.name, "file": file.label, "line": line.number,
                 "byte_offset": line.byte_offset, **content}
            )  # fmt: skip
        counts.kept = len(kept)
        table.write(kept)
        return counts


def validate_files(
    files: Sequence[SourceFile], config: ValidateConfig, folder: Path
) -> tuple[dict[str, Counts], Validation]:
    """Check every line of every file; returns the counts of each file. Their law is asserted."""
    tables = {kind: TableWriter(folder, kind) for kind in CHECKS}
    by_file: dict[str, Counts] = {}
    with (folder / QUARANTINE).open("w", encoding="utf-8") as quarantine:
        validation = Validation(folder, config, quarantine)
        for file in files:
            counts = by_file.setdefault(file.label, Counts())
            for lines in read_chunks(file.path, config.max_line_bytes):
                counts += validation.chunk(file, lines, tables[file.source.kind])
            if counts.read != counts.kept + counts.duplicate + counts.quarantined:
                raise AssertionError(f"{file.label}: {counts} does not add up")
    for table in tables.values():
        table.close()
    return by_file, validation


def stop_if_too_bad(total: Counts, report: FailureReport, config: ValidateConfig, quarantine: Path) -> None:
    """Raise NightStopped if the bad share is over the limit or nothing is left."""
    if total.bad_share > config.max_bad_share:
        raise NightStopped(
            f"{total.quarantined:,} of {total.read:,} lines are bad: {total.bad_share:.1%}, the limit is "
            f"{config.max_bad_share:.1%} (validate.max_bad_share). Nothing was trained, the champion is untouched.\n"
            f"{report.as_text(max_rules=6)}\nAll of them, with file, line and reason: {quarantine}"
        )
    if total.kept == 0:
        raise NightStopped(f"none of {total.read:,} lines was kept; see {quarantine}")


@task(name="validate", cache_policy=NO_CACHE, persist_result=False)
def validate(night: Night) -> StageRecord:
    """Validate tonight's raw files."""
    files = resolve(night.recipe.sources, night.home)
    config = night.recipe.validate

    def work(run: StageRun) -> Outcome:
        by_file, validation = validate_files(files, config, run.folder)
        total = Counts()
        for counts in by_file.values():
            total += counts
        report = {
            "files": {label: dataclasses.asdict(counts) for label, counts in by_file.items()},
            "total": dataclasses.asdict(total),
            "rules": validation.report.as_dict(),
        }
        (run.folder / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
        run.tracker.artifact(run.folder / REPORT, "quarantine")
        run.tracker.artifact(run.folder / QUARANTINE, "quarantine")
        run.tracker.artifact(row_length_histogram(validation.lengths, run.logs / "row-lengths.png"), "figures")
        show_in_prefect(by_file)
        stop_if_too_bad(total, validation.report, config, run.folder / QUARANTINE)
        return Outcome(
            counts=dataclasses.asdict(total),
            headline=f"{total.read:,} lines = {total.kept:,} kept + {total.duplicate:,} duplicate "
            f"+ {total.quarantined:,} quarantined",
            figures={"data/bad_share": total.bad_share},
        )

    return run_stage(
        night,
        "validate",
        inputs={f"{file.label}#{number}": file.digest for number, file in enumerate(files)},
        config={"validate": config, "sources": [(s.name, s.kind) for s in night.recipe.sources]},
        code=("tasks.validate", "schemas"),
        work=work,
    )


def show_in_prefect(by_file: Mapping[str, Counts]) -> None:
    rows = [{"file": label, **dataclasses.asdict(counts)} for label, counts in by_file.items()]
    create_table_artifact(rows, key="lines-by-file", description="Fates of tonight's raw lines")
