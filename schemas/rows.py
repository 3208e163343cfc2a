"""What a row and a turn may be, apart from the checks: reading rows must not wait for pandera to load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl

TURNS = pl.List(pl.Struct({"role": pl.String, "content": pl.String, "learned": pl.Boolean}))
"""A conversation. `learned`: whether an answer is one that the model must give, null as true; all else is context."""

REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
"""Names of the thought before an answer; copies under several of them are one."""
WEIGHT_KEYS = ("weight", "train")
"""Whether an answer is learned: 1 or true, as if the key were absent, or 0 or false."""


@dataclass(frozen=True)
class TurnKind:
    """What a turn of one role may hold, and the role that it is written as."""

    written_as: Literal["system", "user", "assistant"]
    content: Literal["text", "text, or nothing beside calls", "text, JSON or nothing", "calls"]
    """Text is a string or a list of text parts."""
    keys: tuple[str, ...] = ()
    """Further keys that may hold something, beside WEIGHT_KEYS."""


TURN_KINDS: Mapping[str, TurnKind] = {
    "system": TurnKind("system", "text", ("tools",)),
    "user": TurnKind("user", "text"),
    "assistant": TurnKind("assistant", "text, or nothing beside calls", ("tool_calls", *REASONING_KEYS)),
    "tool": TurnKind("user", "text, JSON or nothing", ("tool_call_id", "name")),
    "function_call": TurnKind("assistant", "calls"),
}
"""By role, in our names. The exported chat template takes the same turns and writes the same text, but for the tools of
a system turn, which it is given beside the turns, and `function_call`, which is ShareGPT's alone."""

NO_MEDIA = "this trains on text alone; leave such rows out, or remove the key where the text stands without it"
NO_PREFERENCES = "this learns from good answers alone; write each as a conversation and remove the key"
MEANT_ELSEWHERE: Mapping[str, str] = {
    **dict.fromkeys(("image", "images", "image_path", "image_paths"), NO_MEDIA),
    **dict.fromkeys(("video", "videos", "video_path", "audio", "audios", "audio_path"), NO_MEDIA),
    **dict.fromkeys(("chosen", "rejected", "rejected_response", "rejected_messages", "kto_tag"), NO_PREFERENCES),
}
"""Keys of any row that change what it says wherever they are understood, and what to do about them."""
MEANT_BESIDE_TURNS: Mapping[str, str] = {
    "functions": "name them `tools`, and calls of them `tool_calls`",
    "function_call": "write it as `tool_calls` of the answer",
    "tool_calls": "they belong to the answer that makes them",
    "reasoning_content": "it belongs to the answer that it precedes",
    "system_prompt": "name it `system`",
    "history": "Alpaca's rows alone have one; write its exchanges as turns",
    "documents": "write what is to be read into a turn",
    **dict.fromkeys(WEIGHT_KEYS, "a row is learned; leave it out, weigh its source, or write the key on its answers"),
}
"""The same of a conversation's row."""


def holds(value: object) -> bool:
    """Whether a value says something: all but null, "" and empty lists and objects; 0 and false do."""
    return value is not None and value != "" and value != [] and value != {}


def weight_of(value: object) -> bool | None:
    """Whether a value of WEIGHT_KEYS wants the turn learned; None if it says neither."""
    return bool(value) if isinstance(value, bool | int | float) and value in (0, 1) else None
