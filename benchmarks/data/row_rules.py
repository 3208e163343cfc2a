"""The row rules of validation in plain Python, for a side that must not use our code."""

from __future__ import annotations

import re
from typing import Any

import orjson

ORDER = re.compile(r"(system )?(user assistant )*(user )?")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")


def payload_of(line: bytes, kind: str) -> Any:
    """The text or the turns of a line; None if it is no object whose payload has the right types."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(row, dict):
        return None
    if kind == "pretrain":
        return row["text"] if isinstance(row.get("text"), str) else None
    turns = row.get("conversations")
    typed = isinstance(turns, list) and all(
        isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)
        for turn in turns
    )
    return turns if typed else None


def readable(line: bytes, kind: str) -> bool:
    """Whether a typed JSON reader can take the line."""
    return payload_of(line, kind) is not None


def is_good(line: bytes, kind: str) -> bool:
    """Whether the line is a row that validation keeps, if it has not seen it before."""
    payload = payload_of(line, kind)
    return payload is not None and (is_text(payload) if kind == "pretrain" else is_conversation(payload))


def is_text(text: str | None) -> bool:
    return text is not None and bool(text.strip()) and not CONTROL.search(text)


def is_conversation(turns: list[dict[str, str]]) -> bool:
    roles = [turn["role"] for turn in turns]
    return (
        "assistant" in roles
        and ORDER.fullmatch("".join(f"{role} " for role in roles)) is not None
        and all(is_text(turn["content"]) for turn in turns)
    )
