"""Single values of a recipe from the command line: `key.path=value`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import yaml

from tasks.errors import NightStopped


def set_dotted(content: Any, dotted: str, value: Any) -> None:
    """Set `a.b.0.c` in nested dictionaries and lists. Raises NightStopped naming the keys there are."""
    *parents, last = dotted.split(".")
    here = content
    for step in parents:
        here = here[checked(dotted, here, step)]
    if not isinstance(here, dict):
        raise NightStopped(f"no setting {dotted!r}: name a field, not a whole list entry")
    here[checked(dotted, here, last)] = value


def checked(dotted: str, here: Any, step: str) -> str | int:
    """`step` as a key of `here`, or NightStopped."""
    keys = here if isinstance(here, dict) else map(str, range(len(here))) if isinstance(here, list | tuple) else ()
    choices = list(keys)
    if step not in choices:
        raise NightStopped(f"no setting {dotted!r}: {step!r} is none of {', '.join(choices) or 'nothing'}")
    return step if isinstance(here, dict) else int(step)


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """`key.path=value` pairs, values as YAML. Raises NightStopped if one has no `=`."""
    overrides = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise NightStopped(f"--set takes key.path=value, not {pair!r}")
        try:
            overrides[key] = read_value(value)
        except yaml.YAMLError as error:
            raise NightStopped(f"--set {key}: {value!r} is no YAML value: {str(error).splitlines()[0]}") from None
    return overrides


def read_value(text: str) -> Any:
    """YAML, but 1e-3 is a number as everywhere else."""
    try:
        return float(text) if not text.lstrip("-").isdigit() else int(text)
    except ValueError:
        return yaml.safe_load(text)


def parse_over(pairs: Iterable[str]) -> dict[str, list[Any]]:
    """`key.path=value,value` pairs, values as YAML. Raises NightStopped if one has no values or is there twice."""
    over: dict[str, list[Any]] = {}
    for pair in pairs:
        key, _, text = pair.partition("=")
        try:
            values = [read_value(v) if isinstance(v, str) else v for v in yaml.safe_load(f"[{text}]")]
        except yaml.YAMLError as error:
            raise NightStopped(f"--over {key}: {text!r} is no list of YAML values: {error}") from None
        if not values or key in over:
            raise NightStopped(f"--over takes key.path=value,value and each key once, not {pair!r}")
        over[key] = values
    return over


def written(value: object) -> str:
    """A value as the command line takes it."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
