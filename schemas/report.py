"""Failures, collected from pandera and reported: grouped, counted, bounded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pandera.polars as pa
import polars as pl
from pandera.errors import SchemaErrors

from schemas.jsonl import Fault

EXAMPLES_PER_RULE = 5


@dataclass(frozen=True)
class Checked:
    """Rows of a chunk after the schemas: what is good, and why the others are not."""

    good: pl.DataFrame
    """Good rows; column `row` is the index in the chunk."""
    faults: dict[int, Fault]
    """First fault of each bad row, by index in the chunk."""
    merged: frozenset[int] = frozenset()
    """Good rows in which several turns of a role were made one."""


def faults_of(model: type[pa.DataFrameModel], frame: pl.DataFrame) -> dict[int, Fault]:
    """Check a frame with column `row` and name each bad row's first fault.

    A null is the rule `<column>_missing`; any other check names its own rule. The frame is eager: pandera looks
    at the schema alone of a lazy one. Nothing is dropped by pandera, whose own dropping lets bad rows pass.
    """
    try:
        model.validate(frame, lazy=True)
    except SchemaErrors as errors:
        cases = errors.failure_cases
        broken = cases.filter(pl.col("index").is_null())
        if len(broken):
            raise TypeError(f"{model.__name__} cannot check this frame: {broken.row(0)}") from errors
        faults: dict[int, Fault] = {}
        rows = frame["row"]
        for case in cases.iter_rows(named=True):
            missing = case["check"] == "not_nullable"
            rule = f"{case['column']}_missing" if missing else str(case["check"])
            shown = "no string there" if missing else repr(str(case["failure_case"])[:80])
            faults.setdefault(int(rows[case["index"]]), Fault(rule, f"{case['column']}: {shown}"))
        return faults
    return {}


@dataclass
class FailureReport:
    """Counts of faults by rule, with a few examples of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, file: str, line: int, fault: Fault) -> None:
        self.counts[fault.rule] += 1
        shown = self.examples.setdefault(fault.rule, [])
        if len(shown) < EXAMPLES_PER_RULE:
            shown.append(f"{file}:{line} {fault.detail}")

    def as_dict(self) -> dict[str, object]:
        return {rule: {"count": count, "examples": self.examples[rule]} for rule, count in self.counts.most_common()}
