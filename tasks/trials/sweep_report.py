"""The result of a sweep: a row a setting, the best one, and whether it leads by more than seeds differ."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

from tasks.errors import Diverged, without_password
from tasks.home.journal import KEY_CHARACTERS
from tasks.pages.tables import PATH_CHARACTERS, SENTENCE_CHARACTERS, Column, Table
from tasks.pages.text import markdown_line, plural
from tasks.stage import Night
from tasks.tracking.tracker import Tracker
from tasks.training.curve import stage_points, training_seconds
from tasks.trials.plan import Sweep
from tasks.trials.sweep import AS_IT_IS, Tried, plain_sweep
from tasks.trials.trial import SWEEP, conclude_trial, trial_note


@dataclass(frozen=True)
class SettingResult:
    """The trainings of one setting, one a seed."""

    pairs: tuple[str, ...]
    """What the setting changes, each as `--set` takes it."""
    rung: int
    """The last one that it was trained in; the trainings are those of this rung."""
    bpb: tuple[float, ...]
    """Validation bits per byte of the trainings that ended with a finite score."""
    num_diverged: int
    """Trainings that did not."""
    seconds: float
    """Mean time of the optimizer steps, over the trainings that ended; 0 if none did."""

    @property
    def setting(self) -> str:
        return " ".join(self.pairs) or AS_IT_IS

    @property
    def mean_bpb(self) -> float:
        """Infinite if a training of the setting diverged: a setting that may fail is not the best one."""
        return math.inf if self.num_diverged else fmean(self.bpb)

    @property
    def spread_bpb(self) -> float:
        """Highest minus lowest seed."""
        return max(self.bpb) - min(self.bpb) if self.bpb else 0.0

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """Setting, validation bits per byte, their spread over seeds, seconds."""
        num_trainings = self.num_diverged + len(self.bpb)
        score = f"{self.mean_bpb:.4f}"
        if self.num_diverged:
            score = "diverged" if num_trainings == 1 else f"{self.num_diverged} of {num_trainings} diverged"
        spread = f"{self.spread_bpb:.4f}" if len(self.bpb) > 1 else "-"
        seconds = f"{self.seconds:.1f}" if self.bpb else "-"
        return self.setting, score, spread, seconds


def result_of(pairs: tuple[str, ...], tried: Sequence[Tried]) -> SettingResult:
    """The trainings of one setting in one rung together."""
    scores = [(training.bpb, seconds_of(training)) for training in tried]
    ended = [(bpb, seconds) for bpb, seconds in scores if math.isfinite(bpb)]
    mean_seconds = fmean(seconds for _, seconds in ended) if ended else 0.0
    rung = tried[0].variant.rung
    return SettingResult(pairs, rung, tuple(bpb for bpb, _ in ended), len(tried) - len(ended), mean_seconds)


def seconds_of(tried: Tried) -> float:
    """Time of the optimizer steps; 0 if the training diverged."""
    return training_seconds(stage_points(tried.record.path)) if tried.record else 0.0


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """The settings of a sweep, ranked by their validation score."""

    recipe: str
    key: str
    sweep: Sweep
    tried: Sequence[Tried]
    csv_path: Path
    """Every training as a line of a csv file."""
    tracking_uri: str
    run_id: str

    @cached_property
    def results(self) -> list[SettingResult]:
        """In the order of the settings, each of the last rung that it was trained in."""
        last: dict[tuple[str, ...], list[Tried]] = {}
        for training in self.tried:
            trainings = last.setdefault(training.variant.pairs, [])
            if trainings and trainings[0].variant.rung < training.variant.rung:
                trainings.clear()
            trainings.append(training)
        return [result_of(pairs, trainings) for pairs, trainings in last.items()]

    @property
    def ranked(self) -> list[SettingResult]:
        """The best first, those that an earlier rung left behind after them, those that diverged last."""
        return sorted(self.results, key=lambda r: (r.mean_bpb == math.inf, -r.rung, r.mean_bpb))

    @property
    def best(self) -> SettingResult | None:
        """The setting with the lowest score in the last rung, if any ended."""
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
        best = "best  " + (" ".join(f"--set {pair}" for pair in self.best.pairs) or AS_IT_IS)
        rivals = [r for r in self.ranked[1:] if math.isfinite(r.mean_bpb) and r.rung == self.best.rung]
        if not rivals:
            return f"{best}   (no other setting ended after as many steps)"
        if rivals[0].mean_bpb == self.best.mean_bpb:
            return f"{best}   (level with {rivals[0].setting})"
        if self.sweep.seeds == 1:
            return f"{best}   (one seed each; --seeds 3 shows what chance does)"
        lead, spread = rivals[0].mean_bpb - self.best.mean_bpb, max(self.best.spread_bpb, rivals[0].spread_bpb)
        verdict = "above what" if lead > spread else "no more than"
        return f"{best}   (ahead by {lead:.4f}, {verdict} seeds differ by: {spread:.4f})"

    @property
    def title(self) -> str:
        trainings = plural(len(self.tried), "training")
        shares = ", ".join(self.sweep.percent_of(rung) for rung in range(self.sweep.rungs))
        return f"Sweep {self.recipe} {self.key}: {trainings} of {shares} of pretraining"

    @property
    def ranking(self) -> Table:
        """A setting a row, the best first."""
        setting = Column("setting", max_characters=SENTENCE_CHARACTERS)
        numbers = [Column(heading, "number") for heading in ("val bpb", "spread", "seconds")]
        if self.sweep.rungs == 1:
            return Table([setting, *numbers], [result.cells for result in self.ranked])
        rows = [(*result.cells, str(result.rung + 1)) for result in self.ranked]
        return Table([setting, *numbers, Column("rung", "number")], rows)

    def as_text(self) -> str:
        """For a terminal."""
        places = [("table", str(self.csv_path)), ("tracking", f"{self.tracking_uri} (run {self.run_id})")]
        blocks = [
            self.title,
            self.ranking.as_text(),
            self.conclusion,
            Table.of_pairs(places, PATH_CHARACTERS).as_text(),
        ]
        return "\n\n".join(blocks)

    def as_markdown(self) -> str:
        """For Prefect and MLflow."""
        title, conclusion = (markdown_line(text, SENTENCE_CHARACTERS) for text in (self.title, self.conclusion))
        return f"# {title}\n\n{self.ranking.as_markdown()}\n\n{conclusion}\n"

    def as_csv(self) -> str:
        """A line a training, with its tracking run."""
        keys, stream = list(self.sweep.over), io.StringIO()
        writer = csv.writer(stream)
        writer.writerow([*keys, "rung", "num_tokens", "seed", "val_bpb", "seconds", "run_id", "diverged"])
        for tried in self.tried:
            variant = tried.variant
            values = [variant.values.get(key, "") for key in keys]
            run_id = tried.record.run_id if tried.record else ""
            short = [variant.rung + 1, variant.recipe.pretrain.num_tokens, variant.seed]
            bpb = tried.bpb if math.isfinite(tried.bpb) else math.nan
            writer.writerow([*values, *short, bpb, seconds_of(tried), run_id, tried.diverged])
        return stream.getvalue()


def conclude_sweep(night: Night, sweep: Sweep, tried: Sequence[Tried]) -> SweepReport:
    """Put table and headline numbers on the parent run; the step of a metric is the number of its setting."""
    report = SweepReport(
        recipe=night.recipe.name, key=night.key[:KEY_CHARACTERS], sweep=sweep, tried=tried,
        csv_path=trial_note(night, SWEEP).with_suffix(".csv"),
        tracking_uri=without_password(night.tracking_uri), run_id=night.run_id,
    )  # fmt: skip

    def log_result(tracker: Tracker) -> None:
        tracker.params(plain_sweep(sweep))
        tracker.curve(
            (number, {"sweep/bpb": fmean(result.bpb), "sweep/spread_bpb": result.spread_bpb,
                      "sweep/seconds": result.seconds})
            for number, result in enumerate(report.results, start=1)
            if result.bpb
        )  # fmt: skip
        num_diverged = sum(result.num_diverged for result in report.results)
        totals = {"sweep/trainings": float(len(tried)), "sweep/diverged": float(num_diverged)}
        best = {"sweep/best_bpb": report.best.mean_bpb} if report.best else {}
        tracker.final(totals | best, len(report.results))
        if report.best:
            tracker.tags({"nightschool.best": report.best.setting})
        report.csv_path.write_text(report.as_csv(), encoding="utf-8")
        tracker.artifact(report.csv_path)

    conclude_trial(night, SWEEP, report.as_markdown(), log_result)
    return report
