"""Turns to ids and loss mask, from the template's own spans."""

from __future__ import annotations

from tokenizers import Tokenizer

from model.tokens.tokenizer import TURN_END, TURN_START, special_id

Turn = tuple[str, str]
"""(role, content)"""

RenderedTurn = tuple[list[int], list[bool]]
"""(ids, which of them an assistant must produce)"""

CHAT_TEMPLATE = r"""
{%- macro text_of(content) -%}
    {%- if content is string -%}{{- content -}}
    {%- else -%}{%- for part in content or [] -%}{{- part.text -}}{%- endfor -%}{%- endif -%}
{%- endmacro -%}
{%- if tools -%}
    {{- '<|im_start|>system\n' -}}
    {%- if messages[0].role == 'system' and text_of(messages[0].content) -%}
        {{- text_of(messages[0].content) + '\n\n' -}}
    {%- endif -%}
    {{- '# Tools\n\nYou may call one or more functions to assist with the user query.\n\n' -}}
    {{- 'You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n' -}}
    {%- for tool in tools -%}{{- (tool | tojson) + '\n' -}}{%- endfor -%}
    {{- '</tools>\n\nFor each function call, return a json object with function name and arguments ' -}}
    {{- 'within <tool_call></tool_call> XML tags:\n<tool_call>\n' -}}
    {{- '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message.role == 'tool' -%}
        {%- if loop.first or loop.previtem.role != 'tool' -%}{{- '<|im_start|>user' -}}{%- endif -%}
        {{- '\n<tool_response>\n' + text_of(message.content) + '\n</tool_response>' -}}
        {%- if loop.last or loop.nextitem.role != 'tool' -%}{{- '<|im_end|>\n' -}}{%- endif -%}
    {%- elif message.role == 'assistant' -%}
        {{- '<|im_start|>assistant\n' -}}
        {%- generation -%}
        {%- set reasoning = (message.reasoning_content or '').strip('\n') -%}
        {%- set content = text_of(message.content) -%}
        {%- if reasoning -%}
            {%- set content = content.lstrip('\n') -%}
            {{- '<think>\n' + reasoning + '\n</think>\n\n' -}}
        {%- endif -%}
        {{- content -}}
        {%- for tool_call in message.tool_calls or [] -%}
            {%- set function = tool_call.function or tool_call -%}
            {%- if content or not loop.first -%}{{- '\n' -}}{%- endif -%}
            {{- '<tool_call>\n{"name": ' + (function.name | tojson) + ', "arguments": ' -}}
            {{- function.arguments if function.arguments is string else (function.arguments | tojson) -}}
            {{- '}\n</tool_call>' -}}
        {%- endfor -%}
        {{- '<|im_end|>' -}}
        {%- endgeneration -%}
        {{- '\n' -}}
    {%- elif not (tools and loop.first and message.role == 'system') -%}
        {{- '<|im_start|>' + message.role + '\n' + text_of(message.content) + '<|im_end|>\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}
"""
"""ChatML with tools and reasoning as in Qwen3's public chat format, exported with the tokenizer.

Unlike there, no turn gets a system prompt or an empty thought that it does not have, and earlier turns keep their
reasoning, so a turn's text does not depend on what follows it.
"""


BETWEEN_TURNS = "\n"
"""What follows the end marker of a turn."""


def turn_header(role: str) -> str:
    """What stands between the start marker of a turn and its content."""
    return f"{role}\n"


def render_turn(tokenizer: Tokenizer, turn: Turn) -> RenderedTurn:
    """Ids of one turn, and which of them an assistant must produce: its content and the end marker."""
    role, content = turn
    header = turn_header(role)
    encoded = tokenizer.encode(header + content, add_special_tokens=False)
    spoken = role == "assistant"
    newline = tokenizer.encode(BETWEEN_TURNS, add_special_tokens=False).ids
    ids = [special_id(tokenizer, TURN_START), *encoded.ids, special_id(tokenizer, TURN_END), *newline]
    targets = [
        False,
        *(spoken and start >= len(header) for start, _ in encoded.offsets),
        spoken,
        *(False for _ in newline),
    ]
    return ids, targets


def render_prompt(tokenizer: Tokenizer, turns: list[Turn]) -> list[int]:
    """Ids of a conversation that waits for the assistant."""
    ids = [token for turn in turns for token in render_turn(tokenizer, turn)[0]]
    header = tokenizer.encode(turn_header("assistant"), add_special_tokens=False).ids
    return [*ids, special_id(tokenizer, TURN_START), *header]
