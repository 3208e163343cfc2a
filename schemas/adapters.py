"""From the shapes that public data sets come in to the one row of each kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, get_args

import polars as pl

from schemas.chat import ROLES, Turns, check_turns, is_list_of_objects, turn_frame
from schemas.jsonl import Fault
from schemas.pretrain import check_texts, string_or_none, without
from schemas.report import Checked
from schemas.rows import TURNS
from schemas.tool_text import answer_text, calls_text, result_text, tools_text, with_tools

Format = Literal["minimind", "sharegpt", "openai", "alpaca", "text"]
"""How a source's rows are laid out."""

FORMATS: tuple[Format, ...] = get_args(Format)

Row = Mapping[str, object]
Spoken = tuple[str | None, str | None, str]
"""Role, content, and the names of keys that would be lost."""

REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
RESULT_KEYS = ("tool_call_id", "name")
"""What links a result to its call; in a text the order does."""


@dataclass(frozen=True)
class Shape:
    """Where a format keeps its turns, and what it calls things."""

    turns: str
    role: str
    content: str
    names: Mapping[str, str]
    """Ours for each of its roles; beside ROLES there are `tool`, a result, and `function_call`."""

    @property
    def plain_names(self) -> list[str]:
        return [name for name, ours in self.names.items() if ours in ROLES]

    def role_of(self, turn: Row) -> str | None:
        """A turn's role by our name; one that has none keeps its own."""
        named = turn.get(self.role)
        return self.names.get(named, named) if isinstance(named, str) else None

    def held_beside(self, turn: Row) -> dict[str, object]:
        """Keys of a turn that hold something, beside role and content."""
        return {key: value for key, value in turn.items() if value and key != self.role and key != self.content}


OURS = {name: name for name in (*ROLES, "tool")}
THEIRS = {"human": "user", "gpt": "assistant", "observation": "tool", "function_call": "function_call"}
SHAPES: Mapping[str, Shape] = {
    "minimind": Shape("conversations", "role", "content", OURS),
    "sharegpt": Shape("conversations", "from", "value", OURS | THEIRS),
    "openai": Shape("messages", "role", "content", OURS),
    "alpaca": Shape("", "role", "content", OURS),
}


def check_rows(rows: Sequence[Row], kind: str, row_format: Format) -> Checked:
    """Check parsed rows of a format. Good ones come back canonical, as (row, text) or (row, conversations).

    A conversation of a `pretrain` source has to be a good one, too; its turns are joined as lines. Raises ValueError
    for an unknown kind or format.
    """
    if kind not in ("pretrain", "chat") or row_format not in FORMATS:
        raise ValueError(f"kind {kind!r} must be pretrain or chat, format {row_format!r} one of {', '.join(FORMATS)}")
    if kind == "pretrain" and row_format in ("minimind", "text"):
        return check_texts(list(map(text_of, rows)) if row_format == "text" else [row.get("text") for row in rows])
    if row_format == "text":
        fault = Fault("conversations_missing", "rows of the format text hold no conversations")
        empty = pl.DataFrame(schema={"row": pl.Int64, "conversations": TURNS})
        return Checked(empty, dict.fromkeys(range(len(rows)), fault))
    checked = check_turns(adapt(rows, row_format))
    if kind == "chat":
        return checked
    contents = pl.col("conversations").list.eval(pl.element().struct.field("content"))
    return Checked(checked.good.select("row", text=contents.list.join("\n")), checked.faults)


def text_of(row: Row) -> object:
    """`text`, or `content` where there is none."""
    text = row.get("text")
    return row.get("content") if text is None else text


def adapt(rows: Sequence[Row], row_format: Format) -> Turns:
    """Conversations of parsed rows as flat columns; everything beside role and content is written into the content."""
    shape = SHAPES[row_format]
    conversations = [alpaca_turns(row) if row_format == "alpaca" else row.get(shape.turns) for row in rows]
    plain = plain_turns(rows, conversations, shape)
    faults: dict[int, Fault] = {}
    written: dict[int, list[Spoken]] = {}
    for index in sorted(set(range(len(rows))).difference(plain.rows)):
        spoken = write_out(rows[index], conversations[index], shape_of(conversations[index], row_format))
        if isinstance(spoken, Fault):
            faults[index] = spoken
        else:
            written[index] = spoken
    if not written:
        return Turns(plain.rows, plain.frame, faults)
    flat = list(chain.from_iterable(written.values()))
    columns = ([spoken[field] for spoken in flat] for field in range(3))
    frame = turn_frame(list(written), list(map(len, written.values())), *columns)
    return Turns(sorted([*plain.rows, *written]), pl.concat([plain.frame, frame]), faults)


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


def plain_turns(rows: Sequence[Row], conversations: Sequence[object], shape: Shape) -> Turns:
    """The conversations in which every turn is a role of ours and a string, and holds no more. All at once."""
    plain = {
        index: turns
        for index, (row, turns) in enumerate(zip(rows, conversations, strict=True))
        if isinstance(turns, list) and not (row.get("tools") or row.get("system"))
    }
    if not set(map(type, chain.from_iterable(plain.values()))) <= {dict}:
        plain = {index: turns for index, turns in plain.items() if is_list_of_objects(turns)}
    if not set(map(len, chain.from_iterable(plain.values()))) <= {2}:
        plain = {index: turns for index, turns in plain.items() if not any(map(shape.held_beside, turns))}
    flat: list[Row] = list(chain.from_iterable(plain.values()))
    lengths = list(map(len, plain.values()))
    role, content = shape.role, shape.content  # looked up once: the next line runs for every turn there is
    frame = turn_frame(list(plain), lengths, [turn.get(role) for turn in flat], [turn.get(content) for turn in flat])
    is_plain = frame["role"].is_in(shape.plain_names) & frame["content"].is_not_null()
    others = dict.fromkeys(frame["row"].filter(~is_plain))
    if shape.names is not OURS:
        frame = frame.with_columns(pl.col("role").replace(shape.names))
    return Turns([index for index in plain if index not in others], without(frame, others), {})


def alpaca_turns(row: Row) -> list[Row] | Fault:
    """Turns of an instruction with its answer and the exchanges before it."""
    asked = [row.get("instruction"), row.get("input") or ""]
    question = "\n".join(part for part in map(str, asked) if part) if set(map(type, asked)) == {str} else None
    history = row.get("history") or []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        return Fault("history_invalid", "history: no list of [question, answer]")
    exchanges = [*history, [question, row.get("output")]]
    return [
        {"role": role, "content": content}
        for exchange in exchanges
        for role, content in zip(("user", "assistant"), exchange, strict=True)
    ]


def write_out(row: Row, turns: object, shape: Shape) -> list[Spoken] | Fault:
    """A conversation with results of tools, or with tools or a system prompt beside its turns."""
    if isinstance(turns, Fault):
        return turns
    if not is_list_of_objects(turns):
        return Fault("conversations_missing", f"{shape.turns}: no list of turns")
    tools = tools_text(row.get("tools"))
    if isinstance(tools, Fault):
        return tools
    result: list[Spoken] = [("system", string_or_none(row["system"]), "")] if turns and row.get("system") else []
    previous = None
    for turn in turns:
        role = shape.role_of(turn)
        spoken = write_turn(role, turn, shape)
        if isinstance(spoken, Fault):
            return spoken
        result.append(joined(result.pop(), spoken) if role == previous == "tool" else spoken)
        previous = role
    if tools and turns:
        if result[0][0] != "system":
            result.insert(0, ("system", "", ""))
        role, content, lost = result[0]
        result[0] = (role, string_or_none(with_tools(content, tools)), lost)
    return result


def joined(result: Spoken, following: Spoken) -> Spoken:
    """Results of tools that were called together are one turn."""
    contents = (result[1], following[1])
    return "user", None if None in contents else "\n".join(map(str, contents)), result[2] or following[2]


def write_turn(role: str | None, turn: Row, shape: Shape) -> Spoken | Fault:
    """One turn as role and content."""
    given, rest = turn.get(shape.content), shape.held_beside(turn) if len(turn) > 2 else {}
    if isinstance(given, str) and not rest and role in ROLES:
        return role, given, ""
    content = plain_text(given)
    if role == "function_call":
        role, content = "assistant", answer_text(None, calls_text(given), "")
    elif role == "assistant" and (content is not None or given is None):
        content = answer_text(content, calls_text(rest.pop("tool_calls", None)), take_reasoning(rest))
    elif role == "system" and "tools" in rest:
        content = with_tools(content, tools_text(rest.pop("tools")))
    elif role == "tool":
        role, content = "user", result_text(content)
        rest = {key: value for key, value in rest.items() if key not in RESULT_KEYS}
    return content if isinstance(content, Fault) else (role, content, ",".join(sorted(map(repr, rest))))


def plain_text(content: object) -> str | Fault | None:
    """A string, or the text of its parts; None if it is neither."""
    if isinstance(content, str) or not is_list_of_objects(content):
        return string_or_none(content)
    for part in content:
        if part.get("type") != "text":
            return Fault("content_parts_unsupported", f"content: a part is {str(part.get('type'))[:80]!r}, not text")
    texts = [part.get("text") for part in content]
    return "".join(map(str, texts)) if set(map(type, texts)) <= {str} else None


def take_reasoning(rest: dict[str, object]) -> str:
    """The reasoning beside an answer, removed from its other keys; copies under several names are one."""
    named = [key for key in REASONING_KEYS if isinstance(rest.get(key), str)]
    reasoning = str(rest[named[0]]) if named else ""
    for key in named:
        if rest[key] == reasoning:
            del rest[key]
    return reasoning.strip("\n")
