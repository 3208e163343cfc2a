"""Turns as text: thoughts, tools, calls and their results stand inside the contents."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import NamedTuple

import orjson

from schemas.chat import ROLES, is_list_of_objects
from schemas.jsonl import Fault
from schemas.rows import REASONING_KEYS, TURN_KINDS, WEIGHT_KEYS, holds, weight_of

Text = str | Fault | None
"""Content of a turn, why it can have none, or nothing where there should be a string."""

CALL_KEYS = frozenset({"id", "type", "index", "function", "name", "arguments"})
MEDIA_PARTS = frozenset(
    {"image", "image_url", "input_image", "audio", "audio_url", "input_audio", "video", "video_url", "input_video"}
)
"""Types of content parts that are no text."""
TOOLS_BEFORE = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
)
TOOLS_AFTER = (
    "</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)


ANSWERS = frozenset(role for role, kind in TURN_KINDS.items() if kind.written_as == "assistant")


class Spoken(NamedTuple):
    """A turn as text."""

    role: str | None
    content: str | None
    lost: str = ""
    """Names of keys that would be lost."""
    context: bool = False
    """Whether it is an answer that is not learned."""


def may_join(before: Spoken, following: Spoken) -> bool:
    """Whether two turns of a role in a row may be one; blank ones may not, so that the check finds them."""
    alike = before.role == following.role != "system" and before.context == following.context
    return alike and all(spoken.content and spoken.content.strip() for spoken in (before, following))


def joined(before: Spoken, following: Spoken) -> Spoken:
    """Two turns of a role as one."""
    contents, lost = f"{before.content}\n{following.content}", before.lost or following.lost
    return Spoken(before.role, contents, lost, before.context)


def write_turn(role: str | None, given: object, rest: dict[str, object]) -> Spoken | Fault:
    """One turn as text, of its role by our name, its content and the other keys that hold something.

    What TURN_KINDS does not know is lost, and named.
    """
    if isinstance(given, str) and not rest and role in ROLES:
        return Spoken(role, given)
    context = take_weight(rest)
    if isinstance(context, Fault):
        return context
    context = context and role in ANSWERS
    if role is None or role not in TURN_KINDS:
        return Spoken(role, given if isinstance(given, str) else None, names_of(rest), context)
    if role == "tool":
        content: Text = result_text(given)
    elif role == "function_call":
        content = answer_text(None, calls_text(given), "")
    else:
        content = plain_text(given)
    if role == "assistant" and (content is not None or given is None):
        content = answer_text(content, calls_text(rest.pop("tool_calls", None)), take_reasoning(rest, content))
    elif role == "system" and (content is not None or given is None):
        content = with_tools(content, tools_text(rest.pop("tools", None)))
    elif role == "tool":
        rest = {key: value for key, value in rest.items() if key not in TURN_KINDS["tool"].keys}
    if isinstance(content, Fault):
        return content
    return Spoken(TURN_KINDS[role].written_as, content, names_of(rest), context)


def names_of(rest: Mapping[str, object]) -> str:
    return ",".join(sorted(map(repr, rest)))


def take_weight(rest: dict[str, object]) -> bool | Fault:
    """Whether a turn is context, by its WEIGHT_KEYS, which are removed from its other keys."""
    given = {key: rest.pop(key) for key in WEIGHT_KEYS if key in rest}
    weights = set(map(weight_of, given.values()))
    if None in weights or len(weights) > 1:
        shown = ", ".join(f"{key}: {json.dumps(value)[:40]}" for key, value in given.items())
        return Fault("turn_weight_unsupported", f"{shown}; an answer is learned (1, true) or context (0, false)")
    return weights == {False}


def take_reasoning(rest: dict[str, object], content: Text) -> str:
    """The reasoning beside an answer, removed from its other keys; copies under several names are one.

    Nothing if the answer begins with the same thought. One that begins with another keeps the keys.
    """
    named = [key for key in REASONING_KEYS if isinstance(rest.get(key), str)]
    reasoning, written = str(rest[named[0]]) if named else "", thought_in(content)
    if written is not None and written != reasoning.strip():
        return ""
    for key in named:
        if rest[key] == reasoning:
            del rest[key]
    return "" if written is not None else reasoning.strip("\n")


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


def thought_in(content: Text) -> str | None:
    """The thought that a content begins with, None if it begins with none."""
    if not isinstance(content, str) or not content.lstrip().startswith("<think>"):
        return None
    return content.lstrip().removeprefix("<think>").partition("</think>")[0].strip()


def plain_text(content: object) -> Text:
    """A string, or the text of its parts; None if it is neither."""
    if isinstance(content, str) or not is_list_of_objects(content):
        return content if isinstance(content, str) else None
    for part in content:
        if part.get("type") != "text":
            return Fault("content_parts_unsupported", f"content: a part is {str(part.get('type'))[:80]!r}, not text")
    texts = [part.get("text") for part in content]
    return "".join(map(str, texts)) if set(map(type, texts)) <= {str} else None


def result_text(content: object) -> str | Fault:
    """What a tool gave back: text, the text of parts, nothing, or any other value as JSON."""
    if is_list_of_objects(content):
        kinds = [part.get("type") for part in content]
        if media := [kind for kind in kinds if isinstance(kind, str) and kind in MEDIA_PARTS]:
            return Fault("content_parts_unsupported", f"content: a part is {media[0]!r}, not text")
        if kinds and all(
            kind == "text" and isinstance(p.get("text"), str) for kind, p in zip(kinds, content, strict=True)
        ):
            content = plain_text(content)
    written = "" if content is None else to_json(content)
    if written is None:
        return Fault("content_missing", "content: a tool's result that is nested too deeply")
    return f"<tool_response>\n{written}\n</tool_response>"


def with_tools(content: Text, tools: str | Fault) -> Text:
    """A system turn with the tools after its content."""
    if isinstance(content, Fault) or not tools:
        return content
    return tools if isinstance(tools, Fault) or not content else f"{content}\n\n{tools}"


def tools_text(value: object) -> str | Fault:
    """Tools as a system turn describes them, from a list or its JSON; nothing if there are none."""
    tools = parsed(value)
    if not holds(tools):
        return ""
    lines = [to_json(tool) for tool in tools] if is_list_of_objects(tools) else [None]
    if None in lines:
        return Fault("tools_invalid", "tools: no list of objects")
    return TOOLS_BEFORE + "".join(f"{line}\n" for line in lines) + TOOLS_AFTER


def calls_text(value: object) -> str | Fault:
    """Tool calls as an answer makes them, from a list, an object or their JSON; nothing if there are none."""
    calls = parsed(value)
    if not holds(calls):
        return ""
    calls = [calls] if isinstance(calls, dict) else calls
    if not is_list_of_objects(calls):
        return Fault("tool_calls_invalid", "tool_calls: no list of objects")
    texts = [call_text(call) for call in calls]
    return next((text for text in texts if isinstance(text, Fault)), "\n".join(map(str, texts)))


def call_text(call: Mapping[str, object]) -> str | Fault:
    function = call["function"] if holds(call.get("function")) else call
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


def extra_keys(value: Mapping[str, object], known: Collection[str]) -> str:
    """Names of keys that hold something and are not among the known, or nothing."""
    return ",".join(sorted(repr(key) for key, held in value.items() if holds(held) and key not in known))


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
