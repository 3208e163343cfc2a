"""Are the experts worth it? The night's model beside its dense twin: the same tokens, and the price in time.

The twin has one feed-forward block as wide as what a token passes of the experts, and no router; it differs from the
mixture in nothing else, see `ModelConfig.dense`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from model.config.network import ModelConfig
from tasks.evaluation.resampling import differences, paired
from tasks.home.contents.scores import read_documents
from tasks.home.notes import note_of_folder
from tasks.home.records import StageRecord, stage_name
from tasks.home.trunk import Start
from tasks.recipes.recipe import as_params
from tasks.recipes.stage_configs import PromoteConfig
from tasks.stage import Night
from tasks.training.curve import stage_points, training_seconds

TWIN = "twin"
BOUND_ALPHA = 0.05
"""Probability with which the true difference lies beyond one of the bounds."""


@dataclass(frozen=True)
class TrainedTwin:
    """What became of the twin."""

    records: Sequence[StageRecord]
    """Of its finished stages, in order."""
    diverged: str = ""
    """Why it has no score."""


def twin_start(night: Night) -> Start | str:
    """What the twin begins with: the twin of what the night began with, or why there is none."""
    if night.start.how == "scratch":
        return night.start
    beside = note_of_folder(night.home, night.recipe.name, night.start.parent)
    folder = beside.stages.get(stage_name("pretrain", TWIN)) if beside else None
    if folder and (night.home / "data" / folder / night.start.checkpoint).is_dir():
        return replace(night.start, parent=folder)
    return (
        f"the night {night.start.reason}, and no twin was trained beside that; set pretrain.start: scratch to compare "
        "both from scratch"
    )


def twin_of(night: Night, start: Start) -> Night:
    """The branch of a night that trains the twin, from `start` on."""
    twin, ours = night.recipe.dense_twin(), as_params(replace(night.recipe, twin=False))
    changes = {key: value for key, value in as_params(twin).items() if value != ours[key]}
    return replace(night, branch=TWIN, changes=changes, recipe=twin, start=start)


@dataclass(frozen=True, kw_only=True)
class TwinComparison:
    """A mixture and its dense twin after the same tokens."""

    model: ModelConfig
    """The mixture's."""
    mixture_bpb: float
    twin_bpb: float
    difference_bpb: float
    """Mixture minus twin, paired by document, long texts weighed down as at a promotion; negative is better."""
    lower_bpb: float
    """One-sided confidence bounds of the difference, `BOUND_ALPHA` each."""
    upper_bpb: float
    documents: int
    mixture_seconds: float
    """Optimizer steps of pretraining and SFT, as they took when they were made."""
    twin_seconds: float

    def as_metrics(self) -> dict[str, float]:
        """What stands on the night's run beside the mixture's `val/bpb`."""
        return {
            "twin/bpb": self.twin_bpb,
            "twin/difference_bpb": self.difference_bpb,
            "twin/lower_bpb": self.lower_bpb,
            "twin/upper_bpb": self.upper_bpb,
            "twin/seconds": self.twin_seconds,
            "twin/mixture_seconds": self.mixture_seconds,
        }

    @property
    def verdict(self) -> str:
        """The answer at equal tokens."""
        better = "the mixture is better" if self.upper_bpb < 0 else "the dense twin is better"
        shown = self.upper_bpb < 0 or self.lower_bpb > 0
        return (
            f"{better if shown else 'neither is shown to be better'} after the same tokens: {self.mixture_bpb:.4f} "
            f"bits per byte against the twin's {self.twin_bpb:.4f}, {self.difference_bpb:+.4f} on {self.documents:,} "
            f"documents, {1 - BOUND_ALPHA:.0%} bounds {self.lower_bpb:+.4f} and {self.upper_bpb:+.4f}"
        )

    @property
    def price(self) -> str:
        """What the mixture's training took over the twin's."""
        return (
            f"the mixture took {self.mixture_seconds / self.twin_seconds:.2f} of the twin's training time: "
            f"{self.mixture_seconds:,.1f} s against {self.twin_seconds:,.1f} s"
        )

    @property
    def sizes(self) -> str:
        """How closely the two match."""
        ours, twin = self.model, replace(self.model, dense=True)
        excess = ours.active_parameters / twin.active_parameters - 1
        return (
            f"{ours.active_parameters:,} active parameters against {twin.active_parameters:,} ({excess:+.2%}, the "
            f"router), {ours.total_parameters:,} in all against {twin.total_parameters:,}"
        )


def seconds_of(records: Sequence[StageRecord]) -> float:
    """Time of the optimizer steps of training stages."""
    return sum(training_seconds(stage_points(record.path)) for record in records)


def compare(
    model: ModelConfig, config: PromoteConfig, mixture: Sequence[StageRecord], twin: Sequence[StageRecord]
) -> TwinComparison:
    """The comparison of two times pretrain, sft and evaluate, in that order.

    The bootstrap is that of promotion.
    """
    table = paired(*(read_documents(records[-1].path) for records in (mixture, twin)))
    (found,) = differences(table, (), config)
    return TwinComparison(
        model=model,
        mixture_bpb=mixture[-1].figures["val/bpb"],
        twin_bpb=twin[-1].figures["val/bpb"],
        difference_bpb=found.value,
        lower_bpb=found.lower(BOUND_ALPHA),
        upper_bpb=found.upper(BOUND_ALPHA),
        documents=len(table),
        mixture_seconds=seconds_of(mixture[:-1]),
        twin_seconds=seconds_of(twin[:-1]),
    )
