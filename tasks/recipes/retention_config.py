"""How long a home keeps what nights leave behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from model.config.checks import STRICT, Range, field_problems, require

MOST = 100_000


@dataclass(frozen=True, kw_only=True)
class RetentionConfig:
    """What a recipe's nights leave behind, and for how long. What models in use need is kept whatever this says."""

    __pydantic_config__ = STRICT

    nights: Annotated[int, Range(1, MOST)] = 7
    """Newest nights of the recipe whose stage folders are all kept, with checkpoints and exports."""
    tracked_nights: Annotated[int, Range(1, MOST)] = 60
    """Newest nights whose notes, and whose runs in MLflow with what they logged, are kept; not below `nights`."""
    versions: Annotated[int, Range(1, MOST)] = 14
    """Newest registered versions that are kept, with their files, beside those that hold an alias."""
    unfinished_days: Annotated[float, Range(0, MOST)] = 14.0
    """Age from which a working folder, or a folder that no night's note names, goes, if it is older than the nights
    that are kept in full, too."""
    prefect_days: Annotated[float, Range(0, MOST)] = 30.0
    """Age from which flow runs that ended go from Prefect's own SQLite file, with their tasks, logs, artifacts and
    events."""
    clean_each_night: bool = True
    """Whether a night cleans at its end; without it `python -m flows clean` alone does."""

    def __post_init__(self) -> None:
        require(field_problems(self), "RetentionConfig")
        if self.tracked_nights < self.nights:
            raise ValueError(
                f"retention.tracked_nights ({self.tracked_nights}) is below retention.nights ({self.nights}): a night "
                "that is kept in full keeps its runs; raise the first or lower the second"
            )
