"""Conversations with reasoning, tools and tool calls, and the rows of each shape that hold them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

Row = dict[str, Any]

letters = st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufffd")
words = st.text(letters, min_size=1, max_size=8).filter(lambda text: not text[0].isspace() and "<" not in text)
lines = st.lists(words, min_size=1, max_size=3).map("\n".join)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9**9), st.floats(-1e9, 1e9), words),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(words, inner, max_size=2)),
    max_leaves=4,
)
objects = st.dictionaries(words, json_values, max_size=3)
tools = st.builds(
    lambda name, parameters: {"type": "function", "function": {"name": name, "parameters": parameters}}, words, objects
)
arguments = st.one_of(objects, objects.map(json.dumps), objects.map(lambda value: json.dumps(value, indent=1)))
calls = st.builds(
    lambda name, arguments: {"id": "call", "type": "function", "function": {"name": name, "arguments": arguments}},
    words,
    arguments,
)


def spoken(turns: list[list[str]], system: list[str], question: list[str]) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    flat = [{"role": role, "content": text} for turn in turns for role, text in zip(roles, turn, strict=True)]
    return [{"role": "system", "content": text} for text in system] + flat


plain_turns = st.builds(
    spoken,
    st.lists(st.lists(lines, min_size=2, max_size=2), min_size=1, max_size=3),
    st.lists(lines, max_size=1),
    st.lists(lines, max_size=1),
)
"""Every question is answered, so that each shape can hold it."""


def calling(content: str | None, reasoning: str, called: list[Row], results: list[str]) -> list[Row]:
    message = {"role": "assistant", "content": content, "reasoning_content": reasoning, "tool_calls": called}
    return [message, *({"role": "tool", "tool_call_id": "call", "content": result} for result in results)]


called = st.builds(
    calling,
    st.one_of(st.none(), st.just(""), lines),
    st.one_of(st.just(""), lines),
    st.lists(calls, min_size=1, max_size=2),
    st.lists(st.one_of(st.just(""), lines), min_size=1, max_size=2),
)
exchanges = st.builds(
    lambda question, steps, answer, reasoning: [
        {"role": "user", "content": question},
        *(message for step in steps for message in step),
        {"role": "assistant", "content": answer, "reasoning_content": reasoning},
    ],
    lines,
    st.lists(called, max_size=2),
    lines,
    st.one_of(st.just(""), lines),
)
conversations = st.builds(
    lambda system, many, tools: {
        "messages": [{"role": "system", "content": text} for text in system] + [m for each in many for m in each],
        "tools": tools,
    },
    st.lists(lines, max_size=1),
    st.lists(exchanges, min_size=1, max_size=2),
    st.lists(tools, max_size=2),
)
"""OpenAI's messages, and tools beside them."""


def openai_rich(row: Row) -> Row:
    return {"messages": [dict(message) for message in row["messages"]], "tools": row["tools"]}


def minimind_rich(row: Row) -> Row:
    """Tools on the system turn and tool calls, both as JSON in a string."""
    turns = [dict(message) for message in row["messages"]]
    if row["tools"]:
        if turns[0]["role"] != "system":
            turns.insert(0, {"role": "system", "content": ""})
        turns[0]["tools"] = json.dumps(row["tools"])
    for turn in turns:
        if "tool_calls" in turn:
            turn["tool_calls"] = json.dumps(turn["tool_calls"])
    return {"conversations": turns}


def sharegpt_rich(messages: list[Row], tools: list[Row]) -> Row:
    """Tool calls as turns of their own; text beside a call is lost."""
    names = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
    turns = [
        {"from": "function_call", "value": json.dumps([call["function"] for call in message["tool_calls"]])}
        if message.get("tool_calls")
        else {"from": names[message["role"]], "value": message["content"]}
        for message in messages
    ]
    return {"conversations": turns, "tools": json.dumps(tools)}
