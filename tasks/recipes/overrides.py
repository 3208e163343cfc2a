"""Single values of a recipe from the command line: `key.path=value`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from tasks.errors import NightStopped, did_you_mean

VALUE_CHARACTERS = 24
"""Of a value in a name; of a longer one only the setting is named."""


GONE = {
    "promote.confidence": "promote.false_promotions_a_year says how often chance may promote (1 is about a confidence "
    "of 0.9973 a night)",
}
"""Settings of earlier releases, and what took their place."""


def set_dotted(content: Any, dotted: str, value: Any) -> None:
    """Set `a.b.0.c` in nested dictionaries and lists; a dictionary replaces the fields that it names, and no others.

    Raises NightStopped naming the keys there are.
    """
    if dotted in GONE:
        raise NightStopped(gone(dotted))
    *parents, last = dotted.split(".")
    here = content
    for step in parents:
        here = here[key_of(step, here, dotted)]
    key = key_of(last, here, dotted)
    merges = isinstance(value, dict) and isinstance(here[key], dict)
    if not isinstance(here, dict) and not merges:
        raise NightStopped(f"{dotted!r:.200} is an entry of a list: give the whole list, or a field of the entry")
    if merges:
        for name, item in value.items():
            set_dotted(content, f"{dotted}.{name}", item)
    else:
        here[key] = value


def gone(dotted: str) -> str:
    """What is said of a setting of an earlier release."""
    return f"{dotted} is no setting any more: {GONE[dotted]}"


def key_of(step: str, here: Any, dotted: str) -> str | int:
    """`step` as a key of a dictionary or list. Raises NightStopped, naming `dotted`, if it has no such entry."""
    keys = here if isinstance(here, dict) else map(str, range(len(here))) if isinstance(here, list | tuple) else ()
    choices = list(keys)
    if step not in choices:
        raise NightStopped(
            f"no setting {dotted!r:.200}: {step!r:.200} is none of {', '.join(choices) or 'nothing'}"
            f"{did_you_mean(step, choices)}"
        )
    return step if isinstance(here, dict) else int(step)


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """`key.path=value` pairs, values as YAML. Raises NightStopped if a pair has no `=` or its value is not YAML."""
    overrides = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise NightStopped(f"--set takes key.path=value, not {pair!r:.200}")
        try:
            overrides[key] = parse_value(value)
        except yaml.YAMLError as error:
            raise NightStopped(
                f"--set {key}: {value!r:.200} is not a YAML value: {str(error).splitlines()[0]}"
            ) from None
    return overrides


def parse_value(text: str) -> Any:
    """A YAML value, with 1e-3 a number: YAML 1.1 takes it for a string."""
    try:
        return float(text) if not text.lstrip("-").isdigit() else int(text)
    except ValueError:
        return yaml.safe_load(text)


def parse_over(pairs: Iterable[str]) -> dict[str, list[Any]]:
    """`key.path=value,value` pairs, values as YAML. Raises NightStopped if a key has no values or is there twice."""
    over: dict[str, list[Any]] = {}
    for pair in pairs:
        key, _, text = pair.partition("=")
        try:
            values = [parse_value(v) if isinstance(v, str) else v for v in yaml.safe_load(f"[{text}]")]
        except yaml.YAMLError as error:
            reason = str(error).splitlines()[0]
            raise NightStopped(f"--over {key:.200}: {text!r:.200} is not a list of YAML values: {reason}") from None
        if not values or key in over:
            raise NightStopped(f"--over takes key.path=value,value and each key once, not {pair!r:.200}")
        over[key] = values
    return over


def as_argument(value: object) -> str:
    """A value as the command line takes it."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def short_names(settings: Mapping[str, str]) -> dict[str, str]:
    """For each dotted name its shortest end that no other of them has."""
    ends: dict[str, str] = {}
    for setting in settings:
        parts = setting.split(".")
        others = [f".{other}" for other in settings if other != setting]
        found = (".".join(parts[-depth:]) for depth in range(1, len(parts) + 1))
        ends[setting] = next((end for end in found if not any(o.endswith(f".{end}") for o in others)), setting)
    return ends


def told(settings: Mapping[str, str]) -> list[str]:
    """Settings with their values, each as short as can be."""
    names = short_names(settings)
    return [
        f"{names[key]}={value}" if len(value) <= VALUE_CHARACTERS else f"{names[key]} changed"
        for key, value in settings.items()
    ]
