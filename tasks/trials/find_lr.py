"""A range test for the peak learning rate of pretraining, on a recipe's own tokens and model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import indent
from typing import TYPE_CHECKING, Any

from tasks.errors import Diverged, NightStopped, without_password
from tasks.home.contents.packed import digest_of_kind, open_packed
from tasks.home.digests import digest_of
from tasks.home.journal import KEY_CHARACTERS
from tasks.home.records import LOGS, StageRecord
from tasks.pages.tables import PATH_CHARACTERS, Table
from tasks.pages.text import markdown_line
from tasks.recipes.recipe import Recipe
from tasks.stage import Night, Outcome, StageRun, stage
from tasks.tracking.tracker import Tracker
from tasks.trials.plan import RangeTest
from tasks.trials.trial import LR_SEARCH, conclude_trial

if TYPE_CHECKING:
    from model.tokens.packing import PackedTokens, ShardedTokens
    from model.training.batches import Batch
    from model.training.lr_finder import LrSweep


CURVE, PICTURE = "range.json", "lr-range.png"
PEAK_LR = "pretrain.optim.peak_lr"


def batches(tokens: PackedTokens | ShardedTokens, recipe: Recipe, num_steps: int) -> Iterator[Batch]:
    """The batches that pretraining would begin with."""
    from model.training.batches import batch_of_step
    from tasks.planning.machine import best_device

    for step in range(num_steps):
        yield batch_of_step(tokens, recipe.pretrain.batch_rows, recipe.pretrain.seed, step).to(best_device())


def range_test(recipe: Recipe, tokens: PackedTokens | ShardedTokens, test: RangeTest) -> LrSweep:
    """Raise the rate over the first batches of a recipe's pretraining. Raises Diverged if there is no loss at all."""
    from model.training.lr_finder import find_learning_rate
    from model.training.state import NonFiniteLoss, TrainState
    from tasks.planning.machine import best_device, keep_freed_memory

    keep_freed_memory()
    config, slots = recipe.pretrain, recipe.pretrain.batch_rows * tokens.sequence_length_tokens
    try:
        return find_learning_rate(
            lambda: TrainState.create(recipe.model, config, best_device(), slots),
            batches(tokens, recipe, test.num_steps), config, test.lr_min, test.lr_max, test.num_steps,
        )  # fmt: skip
    except NonFiniteLoss as error:
        raise Diverged(f"find-lr: {error}") from error


def searching(recipe: Recipe) -> dict[str, object]:
    """The settings that decide how the loss answers to the rate."""
    return {"model": recipe.model, "train": recipe.pretrain}


def inputs_of_search(_night: Night, tokens: StageRecord, test: RangeTest) -> dict[str, str]:
    return {"tokens": digest_of_kind(tokens, "pretrain"), "test": digest_of(test)}


@stage(config=searching, inputs=inputs_of_search)
def find_lr(run: StageRun, tokens: StageRecord, test: RangeTest) -> Outcome:
    """Suggest a peak learning rate for pretraining."""
    from tasks.pages.figures import lr_range

    run.tracker.dataset(tokens, "pretrain", "training")
    seen = range_test(run.recipe, open_packed(tokens, "pretrain", "train"), test)
    try:
        figures = {"lr/suggestion": seen.suggestion, "lr/steepest": seen.steepest, "lr/limit": seen.limit}
    except ValueError as error:
        raise NightStopped(f"find-lr: {error}") from error
    content = {"lr": seen.lrs.tolist(), "loss": seen.losses.tolist(), "smoothed": seen.smoothed.tolist()}
    (run.folder / CURVE).write_text(json.dumps(content), encoding="utf-8")
    run.tracker.artifact(lr_range(content, figures, run.logs / PICTURE), "figures")
    return Outcome(
        counts={"steps": len(seen.lrs)},
        headline=f"peak_lr {seen.suggestion:.2g}: the loss falls fastest at {seen.steepest:.2g}, "
        f"{'turns' if seen.limit < seen.lrs[-1] else 'has not turned'} at {seen.limit:.2g}",
        figures=figures,
    )


@dataclass(frozen=True, kw_only=True)
class LrReport:
    """The result of a range test."""

    recipe: str
    key: str
    record: StageRecord
    tracking_uri: str
    run_id: str
    exit_code = 0

    @property
    def suggestion(self) -> str:
        """As it is written into a recipe: more than two digits would claim too much."""
        return f"{self.record.figures['lr/suggestion']:.2g}"

    @property
    def title(self) -> str:
        return f"Learning rate of {self.recipe} {self.key}"

    @property
    def table(self) -> Table:
        """The suggestion, how to use it and where its curve is."""
        around = ",".join(f"{float(self.suggestion) * factor:.2g}" for factor in (0.5, 1, 2))
        pairs = [
            ("suggestion", self.record.headline),
            ("use it", f"--set {PEAK_LR}={self.suggestion}"),
            ("look nearer", f"python -m flows sweep {self.recipe} --over {PEAK_LR}={around}"),
            ("tracking", f"{self.tracking_uri} (run {self.run_id}, figures/{PICTURE})"),
        ]
        return Table.of_pairs(pairs, PATH_CHARACTERS)

    def as_text(self) -> str:
        """For a terminal."""
        return f"{self.title}\n{indent(self.table.as_text(), '  ')}"

    def as_markdown(self) -> str:
        """For Prefect and MLflow."""
        return f"# {markdown_line(self.title)}\n\n{self.table.as_markdown()}\n"


def conclude_search(night: Night, record: StageRecord) -> LrReport:
    """Put the suggestion, the curve and the picture on the parent run, and return the report."""
    report = LrReport(
        recipe=night.recipe.name, key=night.key[:KEY_CHARACTERS], record=record,
        tracking_uri=without_password(night.tracking_uri), run_id=night.run_id,
    )  # fmt: skip

    def log_result(tracker: Tracker) -> None:
        tracker.params({"suggestion.peak_lr": report.suggestion})
        points = ({f"lr/{name}": value for name, value in point.items()} for point in read_curve(record))
        tracker.curve(enumerate(points, start=1))
        tracker.final(record.figures, record.last_step)
        tracker.artifact(record.path / LOGS / PICTURE, "figures")

    conclude_trial(night, LR_SEARCH, report.as_markdown(), log_result)
    return report


def read_curve(record: StageRecord) -> Iterator[dict[str, float]]:
    """Rate, loss and smoothed loss of each step, without the steps where one of them is not finite."""
    content: dict[str, Any] = json.loads((record.path / CURVE).read_text(encoding="utf-8"))
    for values in zip(*content.values(), strict=True):
        if all(math.isfinite(value) for value in values):
            point = dict(zip(content, values, strict=True))
            yield {"rate": point["lr"], "loss": point["loss"], "smoothed": point["smoothed"]}
