"""What every configuration class shares: unknown keys are errors, each field has a range, all problems come at once.

peak_lr: Annotated[float, Range(0, 1e6, above=True)] = 2e-3

def __post_init__(self) -> None:
    require(field_problems(self), "OptimConfig")
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

STRICT = {"extra": "forbid"}
"""For whoever builds these classes from plain values, as Prefect does: an unknown key is an error."""


@dataclass(frozen=True)
class Range:
    """Which numbers a field takes. NaN and infinity are in none."""

    low: float
    high: float
    above: bool = False
    """Whether `low` itself is excluded."""
    below: bool = False
    """Whether `high` itself is excluded."""

    def problem(self, value: float) -> str:
        """What is wrong with a number, empty if nothing is."""
        if isinstance(value, float) and not math.isfinite(value):
            return "must be a finite number"
        if value < self.low or (self.above and value == self.low):
            return f"must be {'above' if self.above else 'at least'} {self.low:,}"
        if value > self.high or (self.below and value == self.high):
            return f"must be {'below' if self.below else 'at most'} {self.high:,}"
        return ""

    def __get_pydantic_json_schema__(self, schema: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """The range in the JSON schema, which forms show."""
        low = "exclusiveMinimum" if self.above else "minimum"
        high = "exclusiveMaximum" if self.below else "maximum"
        return handler(schema) | {low: self.low, high: self.high}


Share = Annotated[float, Range(0, 1)]
Seed = Annotated[int, Range(0, 2**63 - 1)]


def field_problems(config: Any) -> list[str]:
    """Fields of a dataclass whose value is not of the annotated type, range or choice, each with the value.

    Looked at are numbers, truth values, strings and choices; what is nested checks itself. `X | None` is None or X.
    """
    problems = []
    hints = _hints(config.__class__)
    for field in fields(config):
        value = getattr(config, field.name)
        if problem := _problem(hints[field.name], value):
            problems.append(f"{field.name} ({value!r:.80}) {problem}")
    return problems


@cache
def _hints(owner: Hashable) -> dict[str, Any]:
    return get_type_hints(owner, include_extras=True)


def _problem(hint: Any, value: object) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return ""
        problem = _problem(arguments[0], value)
        return f"{problem}, or null" if problem else ""
    if origin is Annotated:
        limits = next(item for item in arguments if isinstance(item, Range))
        return _problem(arguments[0], value) or limits.problem(value)  # type: ignore[arg-type]
    if origin is Literal:
        return "" if value in arguments else f"must be one of {', '.join(map(str, arguments))}"
    if hint is bool or hint is str:
        return "" if isinstance(value, hint) else f"must be {'true or false' if hint is bool else 'text'}"
    if hint is int or hint is float:
        fits = isinstance(value, numbers.Integral if hint is int else numbers.Real) and not isinstance(value, bool)
        return "" if fits else f"must be a {'whole ' if hint is int else ''}number"
    return ""


def require(problems: list[str], owner: str) -> None:
    """Raise one ValueError that names `owner` and lists all problems, if there are any."""
    if problems:
        raise ValueError(f"{owner}: " + "; ".join(problems))
