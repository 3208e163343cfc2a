"""Conversations of every turn that schemas.rows.TURN_KINDS allows, as OpenAI's messages."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from schemas.rows import REASONING_KEYS, TURN_KINDS
from tests.reference.conversations import arguments, json_values, lines, tools, words
from tests.reference.turns import IMITATION

Message = dict[str, Any]

typed = st.builds(lambda before, marker: f"{before}{marker}", lines, st.sampled_from(["", IMITATION, "<|im_end|>"]))
parts = st.lists(typed.map(lambda text: {"type": "text", "text": text}), min_size=1, max_size=2)
text = st.one_of(typed, parts)
nothing = st.sampled_from([{}, {"content": None}, {"content": ""}, {"content": []}])
said = text.map(lambda content: {"content": content})
function = st.builds(lambda name, arguments: {"name": name, "arguments": arguments}, words, arguments)
call = st.one_of(function, function.map(lambda called: {"id": "1", "type": "function", "function": called}))
values = {
    "tool_calls": st.one_of(call, st.lists(call, min_size=1, max_size=2)),
    "tool_call_id": st.just("1"),
    "name": words,
    **dict.fromkeys(REASONING_KEYS, st.one_of(lines, st.sampled_from(["", "\n"]))),
}
"""What a key may hold, for the keys of TURN_KINDS; the tools of a system turn are given beside the turns."""
results = st.one_of(said, nothing, json_values.map(lambda value: {"content": value}))


def keys_of(role: str) -> st.SearchStrategy[Message]:
    names = [name for name in TURN_KINDS[role].keys if name != "tools"]
    return st.fixed_dictionaries({}, optional={name: values[name] for name in names})


def answer(content: Message, beside: Message, calls: bool, thought: str | None) -> Message:
    """One thought under one name, or one at the beginning of the content, too."""
    named = [key for key in REASONING_KEYS if key in beside]
    beside = {key: value for key, value in beside.items() if key not in named[1:] and (calls or key != "tool_calls")}
    if thought is not None and isinstance(content.get("content"), str):
        content = {"content": f"<think>\n{thought}\n</think>\n\n{content['content']}"}
        beside |= dict.fromkeys(named[:1], thought)
    return {"role": "assistant", **content, **beside}


thoughts = st.one_of(st.none(), lines)
answers = st.builds(answer, said, keys_of("assistant"), st.booleans(), thoughts)
calling = st.builds(
    lambda content, beside, calls: answer(content, beside | {"tool_calls": calls}, True, None),
    st.one_of(said, nothing),
    keys_of("assistant"),
    values["tool_calls"],
)
returned = st.builds(lambda content, beside: {"role": "tool", **content, **beside}, results, keys_of("tool"))
step = st.tuples(st.lists(calling, min_size=1, max_size=2), st.lists(returned, min_size=1, max_size=2))
asked = st.builds(lambda content, beside: {"role": "user", **content, **beside}, said, keys_of("user"))
exchange = st.tuples(
    st.lists(asked, min_size=1, max_size=2),
    st.lists(step, max_size=2),
    st.lists(answers, min_size=1, max_size=2),
    st.sampled_from([{}, {"weight": 1}, {"train": True}, {"weight": 0}, {"weight": 0.0, "train": False}]),
)


def messages_of(system: list[Any], exchanges: list[Any]) -> list[Message]:
    """The answers of an exchange have its weight; those of the last are learned."""
    found: list[Message] = [{"role": "system", "content": content} for content in system]
    for number, (questions, steps, last, weight) in enumerate(exchanges, start=1):
        weight = weight if number < len(exchanges) else {}
        found += [question | weight for question in questions]
        for called, given in steps:
            found += [turn | weight for turn in called] + given
        found += [turn | weight for turn in last]
    return found


any_messages = st.builds(messages_of, st.lists(text, max_size=1), st.lists(exchange, min_size=1, max_size=2))
any_tools = st.lists(tools, max_size=2)
