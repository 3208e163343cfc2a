"""JSON values that are no rows and hold rows: where those lie, and what makes a file of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any

from pydantic_core import from_json

ROW_KEYS = ("text", "content", "conversations", "messages", "instruction", "output", "prompt", "chosen")
"""An object with one of them is a row, whatever lists it holds."""
LIST_KEYS = ("data", "rows", "train", "examples", "instances", "records", "items", "samples")
"""What a list of rows is called; under another key its elements must have a row's keys."""
TURN_KEYS = ("role", "from", "speaker")
"""An object with one of them is a turn."""
CONVERSATION_KEYS = ("conversations", "messages", "instruction")
COLUMN_KEYS = ("text", "content", "instruction", "output", "conversations", "messages")
MAX_DEPTH = 4
LISTS_SHOWN = 4
VALUES_JUDGED = 8
"""Of a file that begins with values that hold rows."""
Found = tuple[tuple[str, ...], Sequence[object]]
"""The keys that lead to a list, and the list."""


def has_key(value: object, keys: Sequence[str]) -> bool:
    return isinstance(value, dict) and not value.keys().isdisjoint(keys)


def is_row(value: object) -> bool:
    return has_key(value, ROW_KEYS) and not has_key(value, TURN_KEYS)


def are_turns(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def first_value(text: str, at: int = 0) -> tuple[int, bool]:
    """Where the JSON value that begins at `at` ends, or where it stops being JSON, and which of the two."""
    try:
        return json.JSONDecoder(parse_int=str, parse_float=str).raw_decode(text, at)[1], True
    except json.JSONDecodeError as error:
        return error.pos, False
    except RecursionError:
        return at, False


def beginning_of(text: str) -> object:
    """The JSON value that a text begins with, as far as it goes; None if what is there is none."""
    for read in (partial(from_json, allow_partial="trailing-strings"), json.loads):  # the second reads lone surrogates
        with suppress(ValueError, RecursionError):
            value: object = read(text)
            return value
    return None


def values_of(text: str) -> Iterator[tuple[object, bool]]:
    """The JSON values that a text holds one after another, and whether each is whole; None for what is none."""
    at = 0
    while at < len(text):
        stop, is_whole = first_value(text, at)
        yield beginning_of(text[at:stop] if is_whole else text[at:]), is_whole
        if not is_whole:
            return
        at = len(text) - len(text[stop:].lstrip())


def rows_misplaced(text: str, is_all: bool) -> str | None:
    """What a file is whose values hold rows where they are not looked for; None if its rows are where they should be.

    `text`: its beginning, or all of it if `is_all`. A value on which others follow must hold rows without a doubt, for
    otherwise it is a bad line; one that is all of the file need not.
    """
    values = list(islice(values_of(text), VALUES_JUDGED))
    if not values or any(value is None for value, _ in values):
        return None
    is_alone = len(values) == 1 and (is_all or not values[0][1])
    whole = [value for value, is_whole in values if is_whole]
    if not is_alone and len(whole) < 2:
        return None
    reasons = [rows_within(value, is_alone) for value in whole or [values[0][0]]]
    return reasons[0] if all(reasons) else None


def rows_within(value: object, is_alone: bool) -> str | None:
    """What a value is that holds rows and is none, with the cure; None if it is none."""
    if isinstance(value, list) and value:
        if are_turns(value[0]):
            command = "jq -c '.[] | {conversations: .}' FILE"
            return f'an array of arrays; make each element an object, {{"conversations": […]}}: {command}'
        if not is_alone and is_row(value[0]):
            return "arrays whose rows begin with different keys; write each row on a line of its own: jq -c '.[]' FILE"
        if is_alone and not (isinstance(value[0], dict) and value[0]):
            kinds: dict[type, str] = {str: "a string", list: "an array", dict: "an empty object"}
            what = kinds.get(type(value[0]), "no object")
            return f'an array whose first element is {what}; make each element a row, such as {{"text": …}}'
    if not isinstance(value, dict):
        return None
    if not value.keys().isdisjoint(ROW_KEYS):
        return rows_within_row(value) if is_alone else None
    num_rows = sum(map(is_row, value.values()))
    if is_alone and num_rows > 2 and num_rows >= len(value) - 1:
        return "an object of rows by name; write each on a line of its own: jq -c '.[]' FILE"
    found = [(path, held) for path, held in lists_of(value) if holds_rows(held[0], is_alone)]
    return place_of(found) if found else None


def holds_rows(first: object, is_alone: bool) -> bool:
    """Whether a list with such a first element is one of rows or conversations; in doubt, where it `is_alone`."""
    in_doubt = is_alone and isinstance(first, dict) and bool(first) and not has_key(first, TURN_KEYS)
    return is_row(first) or are_turns(first) or in_doubt


def rows_within_row(value: Mapping[str, Any]) -> str | None:
    """The same of an object with a row's keys, which is a row unless what they hold is rows or columns of them."""
    for key in COLUMN_KEYS:
        held = value.get(key)
        if isinstance(held, list) and held and (are_turns(held[0]) or has_key(held[0], CONVERSATION_KEYS)):
            return place_of([((key,), held)])
        if isinstance(held, dict) or (isinstance(held, list) and held and isinstance(held[0], str)):
            return 'a table by columns; write it by rows, as pandas does: to_json(NEW, orient="records", lines=True)'
    return None


def lists_of(value: Mapping[str, object], path: tuple[str, ...] = ()) -> Iterator[Found]:
    """Lists of objects or of lists within an object, itself within others, not deeper than MAX_DEPTH."""
    for key, held in value.items():
        if isinstance(held, list) and held and isinstance(held[0], dict | list):
            yield (*path, key), held
        elif isinstance(held, dict) and len(path) < MAX_DEPTH:
            yield from lists_of(held, (*path, key))


def place_of(found: Sequence[Found]) -> str:
    """Where the rows of an object lie, and a command that writes them on lines."""
    (path, held), *others = found
    names = [".".join(path)[:30] for path, _ in found[:LISTS_SHOWN]]
    keys = "".join(f".{key}" if key.isidentifier() and key.isascii() else f".{json.dumps(key)}" for key in path)
    each = " | {conversations: .}" if are_turns(held[0]) else ""
    command = f"jq -c '{keys}[]{each}' FILE"
    if others:
        more = ", …" if len(found) > LISTS_SHOWN else ""
        return f"an object of {len(found)} lists ({', '.join(names)}{more}); give each a file of its own: {command}"
    return f"an object that holds its rows in {names[0]}; write each on a line of its own: {command}"
