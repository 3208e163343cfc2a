"""Messages with reasoning, tools and tool calls as role and content, step by step, in Qwen3's public chat format."""

from __future__ import annotations

import json
from typing import Any

Messages = list[dict[str, Any]]


def canonical(messages: Messages, tools: list[dict[str, Any]]) -> list[dict[str, str]]:
    turns: list[dict[str, str]] = []
    if tools:
        turns.append({"role": "system", "content": system_content(messages, tools)})
    previous = ""
    for number, message in enumerate(messages):
        role = message["role"]
        if role == "system" and number == 0 and tools:
            pass
        elif role == "tool" and previous == "tool":
            turns[-1]["content"] += "\n" + response(message)
        elif role == "tool":
            turns.append({"role": "user", "content": response(message)})
        elif role == "assistant":
            turns.append({"role": role, "content": answer(message)})
        else:
            turns.append({"role": role, "content": message["content"]})
        previous = role
    return turns


def system_content(messages: Messages, tools: list[dict[str, Any]]) -> str:
    lines = [
        "# Tools",
        "",
        "You may call one or more functions to assist with the user query.",
        "",
        "You are provided with function signatures within <tools></tools> XML tags:",
        "<tools>",
        *(json.dumps(tool, ensure_ascii=False) for tool in tools),
        "</tools>",
        "",
        "For each function call, return a json object with function name and arguments within <tool_call></tool_call> "
        "XML tags:",
        "<tool_call>",
        '{"name": <function-name>, "arguments": <args-json-object>}',
        "</tool_call>",
    ]
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    return (f"{system}\n\n" if system else "") + "\n".join(lines)


def response(message: dict[str, Any]) -> str:
    return f"<tool_response>\n{message['content']}\n</tool_response>"


def answer(message: dict[str, Any]) -> str:
    pieces = []
    if message.get("content"):
        pieces.append(message["content"])
    for call in message.get("tool_calls") or []:
        arguments = call["function"]["arguments"]
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        name = json.dumps(call["function"]["name"], ensure_ascii=False)
        pieces.append(f'<tool_call>\n{{"name": {name}, "arguments": {written}}}\n</tool_call>')
    reasoning = message.get("reasoning_content")
    return (f"<think>\n{reasoning}\n</think>\n\n" if reasoning else "") + "\n".join(pieces)
