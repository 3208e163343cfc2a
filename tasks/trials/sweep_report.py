"""The result of a sweep: a row a setting, the best one, and whether seeds leave it standing."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

from tasks.errors import Diverged
from tasks.home.journal import KEY_CHARACTERS
from tasks.stage import Night
from tasks.tracking.tracker import Tracker
from tasks.training.curve import stage_points, training_seconds
from tasks.trials.plan import Sweep
from tasks.trials.sweep import Tried, plain_sweep
from tasks.trials.trial import SWEEP, conclude_trial, trial_note


@dataclass(frozen=True)
class Row:
    """One setting, over its seeds."""

    pairs: tuple[str, ...]
    """What the setting changes, as `--set` takes it."""
    bpb: tuple[float, ...]
    """Of the trainings that ended with a number."""
    diverged: int
    """Trainings that did not."""
    seconds: float
    """Of a training's optimizer steps, in the mean of those that ended."""

    @property
    def mean_bpb(self) -> float:
        """Infinite if a training of the setting diverged: a setting that may fail is not the best one."""
        return math.inf if self.diverged else fmean(self.bpb)

    @property
    def spread_bpb(self) -> float:
        """Highest over lowest seed."""
        return max(self.bpb) - min(self.bpb) if self.bpb else 0.0

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """Setting, validation bits per byte, their spread over seeds, seconds."""
        runs = self.diverged + len(self.bpb)
        failed = "diverged" if runs == 1 else f"{self.diverged} of {runs} diverged"
        spread = f"{self.spread_bpb:.4f}" if len(self.bpb) > 1 else "-"
        time = f"{self.seconds:.1f}" if self.bpb else "-"
        return " ".join(self.pairs), failed if self.diverged else f"{self.mean_bpb:.4f}", spread, time


def row_of(pairs: tuple[str, ...], tried: Sequence[Tried]) -> Row:
    """The trainings of one setting together. A score that is no number is a divergence that came with the last step."""
    scored = [(bpb_of(t), seconds_of(t)) for t in tried]
    ended = [(bpb, seconds) for bpb, seconds in scored if math.isfinite(bpb)]
    seconds = fmean(seconds for _, seconds in ended) if ended else 0.0
    return Row(pairs, tuple(bpb for bpb, _ in ended), len(tried) - len(ended), seconds)


def bpb_of(tried: Tried) -> float:
    return tried.record.figures["val/bpb"] if tried.record else math.nan


def seconds_of(tried: Tried) -> float:
    return training_seconds(stage_points(tried.record.path)) if tried.record else 0.0


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """What a person wants to know of a sweep."""

    recipe: str
    key: str
    sweep: Sweep
    tried: Sequence[Tried]
    table: Path
    """Every training as a line of a csv file."""
    tracking_uri: str
    run_id: str

    @cached_property
    def rows(self) -> list[Row]:
        """In the order of the settings."""
        grouped = itertools.groupby(self.tried, key=lambda t: t.variant.pairs)
        return [row_of(pairs, list(tried)) for pairs, tried in grouped]

    @property
    def ranked(self) -> list[Row]:
        """The best first, those that diverged last."""
        return sorted(self.rows, key=lambda row: row.mean_bpb)

    @property
    def best(self) -> Row | None:
        """The setting with the lowest score, if any ended."""
        return self.ranked[0] if math.isfinite(self.ranked[0].mean_bpb) else None

    @property
    def exit_code(self) -> int:
        """0, or that of a divergence if nothing else came of it."""
        return 0 if self.best else Diverged.exit_code

    @property
    def conclusion(self) -> str:
        """The best setting, and how far to trust it."""
        if self.best is None:
            return "every setting diverged; try lower learning rates"
        said = "best  " + " ".join(f"--set {pair}" for pair in self.best.pairs)
        if self.sweep.seeds == 1:
            return f"{said}   (one seed each; --seeds 3 shows what chance does)"
        rivals = [row for row in self.ranked[1:] if math.isfinite(row.mean_bpb)]
        if not rivals:
            return said
        lead, spread = rivals[0].mean_bpb - self.best.mean_bpb, max(self.best.spread_bpb, rivals[0].spread_bpb)
        verdict = "above what" if lead > spread else "no more than"
        return f"{said}   (ahead by {lead:.4f}, {verdict} seeds differ by: {spread:.4f})"

    @property
    def title(self) -> str:
        return f"Sweep {self.recipe} {self.key}: {len(self.tried)} trainings of {self.sweep.share:.0%} of pretraining"

    def as_text(self) -> str:
        """For a terminal."""
        table = [("setting", "val bpb", "spread", "seconds"), *(row.cells for row in self.ranked)]
        widths = [max(len(cells[column]) for cells in table) for column in range(4)]
        lines = [
            f"{cells[0]:<{widths[0]}}  " + "  ".join(f"{cells[c]:>{widths[c]}}" for c in (1, 2, 3)) for cells in table
        ]
        where = [f"table     {self.table}", f"tracking  {self.tracking_uri}  (run {self.run_id})"]
        return "\n".join([self.title, "", *lines, "", self.conclusion, "", *where])

    def as_markdown(self) -> str:
        """For Prefect and MLflow."""
        rows = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row.cells) + " |" for row in self.ranked)
        head = ["| setting | val bpb | spread | seconds |", "|---|---:|---:|---:|"]
        return "\n".join([f"# {self.title}", "", *head, *rows, "", self.conclusion, ""])

    def as_csv(self) -> str:
        """A line a training, with its tracking run."""
        keys, stream = list(self.sweep.over), io.StringIO()
        writer = csv.writer(stream)
        writer.writerow([*keys, "seed", "val_bpb", "seconds", "run_id", "diverged"])
        for tried in self.tried:
            values = [tried.variant.values[key] for key in keys]
            run_id = tried.record.run_id if tried.record else ""
            writer.writerow([*values, tried.variant.seed, bpb_of(tried), seconds_of(tried), run_id, tried.diverged])
        return stream.getvalue()


def conclude_sweep(night: Night, sweep: Sweep, tried: Sequence[Tried]) -> SweepReport:
    """Table and headline numbers go onto the parent run; the step of a metric is the number of its setting."""
    report = SweepReport(
        recipe=night.recipe.name, key=night.key[:KEY_CHARACTERS], sweep=sweep, tried=tried,
        table=trial_note(night, SWEEP).with_suffix(".csv"), tracking_uri=night.tracking_uri, run_id=night.run_id,
    )  # fmt: skip

    def tell(tracker: Tracker) -> None:
        tracker.params(plain_sweep(sweep))
        for number, row in enumerate(report.rows, start=1):
            if row.bpb:
                scores = {"sweep/bpb": fmean(row.bpb), "sweep/spread_bpb": row.spread_bpb}
                tracker.metrics(scores | {"sweep/seconds": row.seconds}, step=number)
        diverged = sum(row.diverged for row in report.rows)
        tracker.metrics({"sweep/trainings": float(len(tried)), "sweep/diverged": float(diverged)})
        if report.best:
            tracker.metrics({"sweep/best_bpb": report.best.mean_bpb})
            tracker.tags({"nightschool.best": " ".join(report.best.pairs)})
        report.table.write_text(report.as_csv(), encoding="utf-8")
        tracker.artifact(report.table)

    conclude_trial(night, SWEEP, report.as_markdown(), tell)
    return report
