"""Tools, calls and their results as text that stands inside the turns of a conversation."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

import orjson

from schemas.chat import is_list_of_objects
from schemas.jsonl import Fault

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


def extra_keys(value: Mapping[str, object], known: Collection[str]) -> str:
    """Names of keys that hold something and are not among the known, or nothing."""
    return ",".join(sorted(repr(key) for key, held in value.items() if held and key not in known))


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
