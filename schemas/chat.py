"""A chat row: `{"conversations": [{"role": …, "content": …}, …]}`, checked turn by turn and as a whole.

A turn is a role and a content, so reasoning, tools, tool calls and their results are text, in the way of Qwen3's public
chat format; the exported chat template writes the same text from the same messages.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeGuard

import orjson
import pandera.polars as pa
import polars as pl

from schemas.jsonl import Fault
from schemas.pretrain import holds_text, is_decodable, is_printable, string_series, without
from schemas.report import Checked, faults_of
from schemas.rows import TURNS as TURNS

ROLES = ("system", "user", "assistant")
TURN_KEYS = frozenset({"role", "content"})
Text = str | Fault | None
"""Content of a turn, why it can have none, or nothing where there should be a string."""

CALL_KEYS = frozenset({"id", "type", "index", "function", "name", "arguments"})
TOOLS_BEFORE = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
)
TOOLS_AFTER = (
    "</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)


class ChatTurn(pa.DataFrameModel):
    """One turn; `row` is the conversation it belongs to."""

    row: int
    role: str = pa.Field(nullable=False)
    content: str = pa.Field(nullable=False)
    extra_keys: str

    @pa.check("role", name="role_unknown")
    @classmethod
    def role_is_known(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col(data.key).is_in(ROLES).fill_null(True))

    @pa.check("content", name="content_blank")
    @classmethod
    def content_holds_something(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return holds_text(data.lazyframe, data.key)

    @pa.check("content", name="content_control_characters")
    @classmethod
    def content_is_printable(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return is_printable(data.lazyframe, data.key)

    @pa.check("content", name="content_undecodable")
    @classmethod
    def content_is_decodable(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return is_decodable(data.lazyframe, data.key)

    @pa.check("extra_keys", name="turn_keys_unsupported")
    @classmethod
    def only_known_keys(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col(data.key) == "")

    class Config:
        strict = True


class Conversation(pa.DataFrameModel):
    """A conversation as a whole; `roles` is its roles in order, each followed by a space."""

    row: int = pa.Field(unique=True)
    num_turns: int
    roles: str

    @pa.check("num_turns", name="conversation_empty")
    @classmethod
    def has_turns(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col(data.key) > 0)

    @pa.check("roles", name="conversation_order")
    @classmethod
    def turns_alternate(cls, data: pa.PolarsData) -> pl.LazyFrame:
        pattern = r"^(?:system )?(?:user assistant )*(?:user )?$"
        return data.lazyframe.select(pl.col(data.key).str.contains(pattern))

    @pa.check("roles", name="conversation_unanswered")
    @classmethod
    def has_answer(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(
            (pl.col(data.key) == "") | pl.col(data.key).str.contains("assistant", literal=True)
        )

    class Config:
        strict = True


@dataclass(frozen=True)
class Turns:
    """Conversations of a chunk, flat."""

    rows: Sequence[int]
    """Index in the chunk of each conversation, rising; one without turns is listed too."""
    frame: pl.DataFrame
    """One line a turn: row, role, content, extra_keys. Those of a conversation are together and in order."""
    faults: dict[int, Fault]
    """Rows that hold no conversation, and why."""


def turn_frame(
    rows: Sequence[int], lengths: Sequence[int], roles: Sequence[object], contents: Sequence[object],
    lost: Sequence[object] | None = None,
) -> pl.DataFrame:  # fmt: skip
    """One line a turn: row, role, content, extra_keys. A role or content that is no string is null."""
    owners = pl.DataFrame({"row": rows, "length": lengths}, schema={"row": pl.Int64, "length": pl.Int64})
    return pl.DataFrame(
        [
            owners.filter(pl.col("length") > 0).select(pl.col("row").repeat_by("length").explode())["row"],
            string_series("role", roles),
            string_series("content", contents),
            pl.repeat("", len(roles), dtype=pl.String, eager=True).alias("extra_keys")
            if lost is None
            else string_series("extra_keys", lost),
        ]
    )


def check_turns(turns: Turns) -> Checked:
    """Check conversations turn by turn, then as a whole. The good ones come back as a frame (row, conversations)."""
    faults = turns.faults | faults_of(ChatTurn, turns.frame)
    grouped = turns.frame.group_by("row", maintain_order=True).agg("role", conversations=pl.struct("role", "content"))
    joined = pl.DataFrame({"row": turns.rows}, schema={"row": pl.Int64}).join(
        grouped, on="row", how="left", maintain_order="left"
    )
    sound = without(joined, faults)
    roles = (pl.col("role").list.join(" ") + " ").fill_null("")
    whole = sound.select("row", num_turns=pl.col("role").list.len().cast(pl.Int64).fill_null(0), roles=roles)
    as_whole = faults_of(Conversation, whole)
    return Checked(without(sound, as_whole).select("row", "conversations"), faults | as_whole)


def extra_keys(turn: Mapping[str, object], known: Collection[str] = TURN_KEYS) -> str:
    """Names of keys that hold something and are not among the known, or nothing."""
    return ",".join(sorted(repr(key) for key, value in turn.items() if value and key not in known))


def check_chat(rows: Sequence[Mapping[str, object]]) -> Checked:
    """Check parsed rows that hold roles and contents alone. The good ones come back as a frame (row, conversations).

    Keys of a turn beyond role and content are refused rather than ignored: a tool call that silently vanished
    would teach the model to answer without it. `schemas.adapters` renders the ones it knows.
    """
    given = [row.get("conversations") for row in rows]
    conversations = {index: turns for index, turns in enumerate(given) if is_list_of_objects(turns)}
    missing = Fault("conversations_missing", "conversations: no list of turns")
    flat = list(chain.from_iterable(conversations.values()))
    frame = turn_frame(
        list(conversations),
        list(map(len, conversations.values())),
        [turn.get("role") for turn in flat],
        [turn.get("content") for turn in flat],
        [extra_keys(turn) for turn in flat],
    )
    faults = {index: missing for index in range(len(rows)) if index not in conversations}
    return check_turns(Turns(list(conversations), frame, faults))


def is_list_of_objects(value: object) -> TypeGuard[list[dict[str, object]]]:
    return isinstance(value, list) and set(map(type, value)) <= {dict}


def answer_text(content: Text, calls: str | Fault, reasoning: str) -> Text:
    """Reasoning, words and tool calls in one text. Reasoning alone is no answer."""
    if isinstance(content, Fault) or isinstance(calls, Fault):
        return content if isinstance(content, Fault) else calls
    if not calls and not (content and content.strip()):
        return content
    words = content or ""
    if reasoning:
        words = words.lstrip("\n")
    thought = f"<think>\n{reasoning}\n</think>\n\n" if reasoning else ""
    return thought + words + ("\n" if words and calls else "") + calls


def result_text(content: Text) -> Text:
    """What a tool gave back."""
    return f"<tool_response>\n{content}\n</tool_response>" if isinstance(content, str) else content


def with_tools(content: Text, tools: str | Fault) -> Text:
    """A system turn that tells the tools, too."""
    if not isinstance(content, str) or not tools:
        return content
    return tools if isinstance(tools, Fault) or not content else f"{content}\n\n{tools}"


def tools_text(value: object) -> str | Fault:
    """Tools as a system turn tells them, from a list or its JSON; nothing if there are none."""
    tools = parsed(value)
    if not tools:
        return ""
    lines = [to_json(tool) for tool in tools] if is_list_of_objects(tools) else [None]
    if None in lines:
        return Fault("tools_invalid", "tools: no list of objects")
    return TOOLS_BEFORE + "".join(f"{line}\n" for line in lines) + TOOLS_AFTER


def calls_text(value: object) -> str | Fault:
    """Tool calls as an answer makes them, from a list, an object or their JSON; nothing if there are none."""
    calls = parsed(value)
    if not calls:
        return ""
    calls = [calls] if isinstance(calls, dict) else calls
    if not is_list_of_objects(calls):
        return Fault("tool_calls_invalid", "tool_calls: no list of objects")
    texts = [call_text(call) for call in calls]
    return next((text for text in texts if isinstance(text, Fault)), "\n".join(map(str, texts)))


def call_text(call: Mapping[str, object]) -> str | Fault:
    function = call.get("function") or call
    if not isinstance(function, dict):
        return Fault("tool_calls_invalid", "tool_calls: function is no object")
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name.strip():
        return Fault("tool_calls_invalid", "tool_calls: no name")
    if not isinstance(parsed(arguments), dict) or (written := to_json(arguments)) is None:
        return Fault("tool_calls_invalid", f"tool_calls: the arguments of {name[:80]!r} are no object")
    if lost := extra_keys(call, CALL_KEYS) or extra_keys(function, CALL_KEYS):
        return Fault("turn_keys_unsupported", f"tool_calls: {lost[:80]}")
    return f'<tool_call>\n{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {written}}}\n</tool_call>'


def parsed(value: object) -> object:
    """What a string of JSON holds; anything else is what it is."""
    try:
        return orjson.loads(value) if isinstance(value, str) else value
    except orjson.JSONDecodeError:
        return value


def to_json(value: object) -> str | None:
    """JSON as the chat template writes it; a string is taken to be JSON. None if it is nested too deeply."""
    try:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return None
