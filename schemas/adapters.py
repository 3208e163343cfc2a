"""From the shapes that public data sets come in to the one row of each kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal, get_args

import polars as pl

from schemas.chat import ROLES, Turns, check_turns, is_list_of_objects, turn_frame
from schemas.jsonl import Fault
from schemas.pretrain import check_texts, string_or_none, without
from schemas.report import Checked
from schemas.rows import MEANT_BESIDE_TURNS, MEANT_ELSEWHERE, TURNS, WEIGHT_KEYS, holds, weight_of
from schemas.turn_text import Spoken, joined, may_join, tools_text, with_tools, write_turn

Format = Literal["minimind", "sharegpt", "openai", "alpaca", "text"]
"""How a source's rows are laid out."""

FORMATS: tuple[Format, ...] = get_args(Format)

HONOURED = ("history", "alpaca")
"""A key beside turns, and the format that reads it."""
Row = Mapping[str, object]


@dataclass(frozen=True)
class Shape:
    """Where a format keeps its turns, and what it calls things."""

    turns: str
    role: str
    content: str
    names: Mapping[str, str]
    """Ours for each of its roles; beside ROLES there are `tool`, a result, and `function_call`."""

    def role_of(self, turn: Row) -> str | None:
        """A turn's role by our name; one that has none keeps its own."""
        named = turn.get(self.role)
        return self.names.get(named, named) if isinstance(named, str) else None

    def held_beside(self, turn: Row) -> dict[str, object]:
        """Keys of a turn that hold something, beside role and content."""
        return {key: value for key, value in turn.items() if key not in (self.role, self.content) and holds(value)}


OURS = {name: name for name in (*ROLES, "tool")}
THEIRS = {"human": "user", "gpt": "assistant", "observation": "tool", "function_call": "function_call"}
SHAPES: Mapping[str, Shape] = {
    "minimind": Shape("conversations", "role", "content", OURS),
    "sharegpt": Shape("conversations", "from", "value", OURS | THEIRS),
    "openai": Shape("messages", "role", "content", OURS),
    "alpaca": Shape("", "role", "content", OURS),
}


def check_rows(rows: Sequence[Row], kind: str, row_format: Format, merge_turns: bool = False) -> Checked:
    """Check parsed rows of a format. Good ones come back canonical, as (row, text) or (row, conversations).

    A conversation of a `pretrain` source has to be a good one, too; its turns are joined as lines. `merge_turns`: make
    turns of one role in a row one turn. Raises ValueError for an unknown kind or format.
    """
    if kind not in ("pretrain", "chat") or row_format not in FORMATS:
        raise ValueError(f"kind {kind!r} must be pretrain or chat, format {row_format!r} one of {', '.join(FORMATS)}")
    of_text = kind == "pretrain" and row_format in ("minimind", "text")
    beside = {} if of_text else {k: why for k, why in MEANT_BESIDE_TURNS.items() if (k, row_format) != HONOURED}
    strange = unsupported_keys(rows, {**MEANT_ELSEWHERE, **beside})
    if of_text:
        checked = check_texts([text_of(row, row_format) for row in rows])
    else:
        checked = check_conversations(rows, kind, row_format, merge_turns)
    if not strange:
        return checked
    return Checked(without(checked.good, strange), checked.faults | strange, checked.merged.difference(strange))


def unsupported_keys(rows: Sequence[Row], meanings: Mapping[str, str]) -> dict[int, Fault]:
    """Rows with a key that holds something and would change what the row says, were it understood."""
    faults: dict[int, Fault] = {}
    for index, row in enumerate(rows):
        if meanings.keys().isdisjoint(row):
            continue
        for key in (key for key in meanings if holds(row.get(key))):
            if not (key in WEIGHT_KEYS and weight_of(row[key])):
                faults.setdefault(index, Fault("row_keys_unsupported", f"{key}: {meanings[key]}"))
    return faults


def check_conversations(rows: Sequence[Row], kind: str, row_format: Format, merge_turns: bool) -> Checked:
    """Check rows that hold turns."""
    if row_format == "text":
        fault = Fault("conversations_missing", "rows of the format text hold no conversations")
        empty = pl.DataFrame(schema={"row": pl.Int64, "conversations": TURNS})
        return Checked(empty, dict.fromkeys(range(len(rows)), fault))
    turns = adapt(rows, row_format, merge_turns)
    if kind == "chat":
        return check_turns(turns)
    detail = "a turn has weight 0 or train false, but a text for pretraining is learned whole"
    context = dict.fromkeys(turns.frame["row"].filter(turns.frame["context"]), Fault("turn_weight_unsupported", detail))
    checked = check_turns(replace(turns, faults=turns.faults | context))
    contents = pl.col("conversations").list.eval(pl.element().struct.field("content"))
    return replace(checked, good=checked.good.select("row", text=contents.list.join("\n")))


def text_of(row: Row, row_format: Format) -> object:
    """`text`, or in rows of the format `text` also `content` where there is none."""
    text = row.get("text")
    return row.get("content") if text is None and row_format == "text" else text


def adapt(rows: Sequence[Row], row_format: Format, merge_turns: bool) -> Turns:
    """Conversations of parsed rows as flat columns; everything beside role and content is written into the content."""
    shape = SHAPES[row_format]
    conversations = [alpaca_turns(row) if row_format == "alpaca" else row.get(shape.turns) for row in rows]
    plain = plain_turns(rows, conversations, shape, merge_turns)
    faults: dict[int, Fault] = {}
    written: dict[int, list[Spoken]] = {}
    merged = set()
    for index in sorted(set(range(len(rows))).difference(plain.rows)):
        spoken = write_out(rows[index], conversations[index], shape_of(conversations[index], row_format), merge_turns)
        if isinstance(spoken, Fault):
            faults[index] = spoken
        else:
            written[index], shortened = spoken
            merged.update([index] if shortened else [])
    if not written:
        return Turns(plain.rows, plain.frame, faults)
    flat = list(chain.from_iterable(written.values()))
    columns: list[list[Any]] = [list(column) for column in zip(*flat, strict=True)] or [[], [], [], []]
    frame = turn_frame(list(written), list(map(len, written.values())), *columns)
    return Turns(sorted([*plain.rows, *written]), pl.concat([plain.frame, frame]), faults, frozenset(merged))


def shape_of(turns: object, row_format: Format) -> Shape:
    """Of one conversation: where no format was set, turns with `from` and `value` are ShareGPT's."""
    theirs = SHAPES["sharegpt"]
    is_theirs = (
        row_format == "minimind"
        and is_list_of_objects(turns)
        and turns
        and {theirs.role, theirs.content} <= turns[0].keys()
    )
    return theirs if is_theirs else SHAPES[row_format]


def plain_turns(rows: Sequence[Row], conversations: Sequence[object], shape: Shape, merge_turns: bool) -> Turns:
    """The conversations in which every turn is a role of ours and a string, and holds no more. All at once.

    With `merge_turns` those in which a role has several turns in a row are not among them.
    """
    plain = {
        index: turns
        for index, (row, turns) in enumerate(zip(rows, conversations, strict=True))
        if isinstance(turns, list) and not (holds(row.get("tools")) or holds(row.get("system")))
    }
    if not set(map(type, chain.from_iterable(plain.values()))) <= {dict}:
        plain = {index: turns for index, turns in plain.items() if is_list_of_objects(turns)}
    if not set(map(len, chain.from_iterable(plain.values()))) <= {2}:
        plain = {index: turns for index, turns in plain.items() if not any(map(shape.held_beside, turns))}
    flat: list[Row] = list(chain.from_iterable(plain.values()))
    lengths = list(map(len, plain.values()))
    role, content = shape.role, shape.content  # looked up once: the next line runs for every turn there is
    frame = turn_frame(list(plain), lengths, [turn.get(role) for turn in flat], [turn.get(content) for turn in flat])
    if shape.names is not OURS:
        frame = frame.with_columns(pl.col("role").replace(shape.names))
    is_plain = frame["role"].is_in(ROLES) & frame["content"].is_not_null()
    if merge_turns:
        repeats = (frame["role"] == frame["role"].shift(1)) & (frame["row"] == frame["row"].shift(1))
        is_plain &= ~repeats.fill_null(False)
    others = dict.fromkeys(frame["row"].filter(~is_plain))
    return Turns([index for index in plain if index not in others], without(frame, others), {})


def alpaca_turns(row: Row) -> list[Row] | Fault:
    """Turns of an instruction with its answer and the exchanges before it."""
    if holds(row.get("context")):
        return Fault("row_keys_unsupported", "context: name it `input`")
    asked = [row.get("instruction"), row["input"] if holds(row.get("input")) else ""]
    question = "\n".join(part for part in map(str, asked) if part) if set(map(type, asked)) == {str} else None
    history = row["history"] if holds(row.get("history")) else []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        return Fault("history_invalid", "history: no list of [question, answer]")
    exchanges = [*history, [question, row.get("output")]]
    return [
        {"role": role, "content": content}
        for exchange in exchanges
        for role, content in zip(("user", "assistant"), exchange, strict=True)
    ]


def write_out(row: Row, turns: object, shape: Shape, merge_turns: bool) -> tuple[list[Spoken], bool] | Fault:
    """A conversation with results of tools, with tools or a system prompt beside its turns, or with turns to be merged.

    Also whether turns were merged: an answer takes the calls that follow it, and with `merge_turns` any turn those of
    its role that follow, each a line. What is learned is not merged with what is not.
    """
    if isinstance(turns, Fault):
        return turns
    if not is_list_of_objects(turns):
        return Fault("conversations_missing", f"{shape.turns}: no list of turns")
    tools = tools_text(row.get("tools"))
    if isinstance(tools, Fault):
        return tools
    result = [Spoken("system", string_or_none(row["system"]))] if turns and holds(row.get("system")) else []
    previous, merged = None, False
    for turn in turns:
        role = shape.role_of(turn)
        spoken = write_turn(role, turn.get(shape.content), shape.held_beside(turn))
        if isinstance(spoken, Fault):
            return spoken
        calls = role == "function_call" or (role == "assistant" and holds(turn.get("tool_calls")))
        results = role == previous == "tool"
        if results or ((calls or merge_turns) and result and may_join(result[-1], spoken)):
            result.append(joined(result.pop(), spoken))
            merged |= not results
        else:
            result.append(spoken)
        previous = role
    if tools and turns:
        if result[0].role != "system":
            result.insert(0, Spoken("system", ""))
        result[0] = result[0]._replace(content=string_or_none(with_tools(result[0].content, tools)))
    return result, merged
