"""When the outcome of nights is an alarm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from model.config.checks import STRICT, Range, field_problems, require


@dataclass(frozen=True, kw_only=True)
class AlarmConfig:
    """From when on a person is told. Nothing that a night makes depends on it."""

    __pydantic_config__ = STRICT

    silent_periods: Annotated[float, Range(1, 1_000)] = 2.0
    """Periods of the armed schedule in which no night has finished."""
    disk_days: Annotated[float, Range(0, 10_000)] = 7.0
    """Days for which the free disk space must last, at the growth of the last nights."""
    growth_nights: Annotated[int, Range(2, 1_000)] = 8
    """Nights that the growth is taken from, the last ones."""
    gate_nights: Annotated[int, Range(1, 10_000)] = 5
    """Nights that must have been compared before the gate, or its limits, can be said to pass none."""
    repeat_days: Annotated[float, Range(0, 10_000)] = 7.0
    """Days after which an alarm about what lasts, disk or gate, is told again."""

    def __post_init__(self) -> None:
        require(field_problems(self), "AlarmConfig")
