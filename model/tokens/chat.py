"""Turns to ids and loss mask, from the template's own spans."""

from __future__ import annotations

import json

from tokenizers import Tokenizer

from model.tokens.tokenizer import SPLITTER, TURN_END, TURN_START, special_id

Turn = tuple[str, str]
"""(role, content)"""

RenderedTurn = tuple[list[int], list[bool]]
"""(ids, which of them an assistant must produce)"""

CHAT_TEMPLATE = r"""
{%- macro text_of(content) -%}
    {%- if content is string -%}{{- content -}}
    {%- elif content is mapping or content is number -%}{{- raise_exception('a content is neither text nor parts') -}}
    {%- else -%}
        {%- for part in content or [] -%}
            {%- if part.type != 'text' -%}{{- raise_exception('a part of a content is no text') -}}{%- endif -%}
            {{- part.text -}}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- macro result_of(content) -%}
    {%- set parts = namespace(text=content is not string and content is not mapping and content is iterable) -%}
    {%- if parts.text -%}
        {%- for part in content -%}
            {%- if part is not mapping or part.type != 'text' or part.text is not string -%}
                {%- set parts.text = false -%}
            {%- endif -%}
        {%- endfor -%}
        {%- set parts.text = parts.text and content | length > 0 -%}
    {%- endif -%}
    {{- '<tool_response>\n' -}}
    {%- if parts.text or content is string or content is undefined or content is none -%}{{- text_of(content) -}}
    {%- else -%}{{- content | tojson -}}{%- endif -%}
    {{- '\n</tool_response>' -}}
{%- endmacro -%}
{%- macro answer_of(message) -%}
    {%- set reasoning = (message.reasoning_content or message.thinking or message.reasoning or '').strip('\n') -%}
    {%- set content = text_of(message.content) -%}
    {%- if reasoning and not content.lstrip().startswith('<think>') -%}
        {%- set content = content.lstrip('\n') -%}
        {{- '<think>\n' + reasoning + '\n</think>\n\n' -}}
    {%- endif -%}
    {{- content -}}
    {%- set calls = message.tool_calls or [] -%}
    {%- for tool_call in ([calls] if calls is mapping else calls) -%}
        {%- set function = tool_call.function or tool_call -%}
        {%- if content or not loop.first -%}{{- '\n' -}}{%- endif -%}
        {{- '<tool_call>\n{"name": ' + (function.name | tojson) + ', "arguments": ' -}}
        {{- function.arguments if function.arguments is string else (function.arguments | tojson) -}}
        {{- '}\n</tool_call>' -}}
    {%- endfor -%}
{%- endmacro -%}
{%- macro written_as(role) -%}{{- 'user' if role == 'tool' else role -}}{%- endmacro -%}
{%- if tools -%}
    {{- '<|im_start|>system\n' -}}
    {%- if messages[0].role == 'system' and text_of(messages[0].content) -%}
        {{- text_of(messages[0].content)|typed + '\n\n' -}}
    {%- endif -%}
    {{- '# Tools\n\nYou may call one or more functions to assist with the user query.\n\n' -}}
    {{- 'You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n' -}}
    {%- for tool in tools -%}{{- (tool | tojson)|typed + '\n' -}}{%- endfor -%}
    {{- '</tools>\n\nFor each function call, return a json object with function name and arguments ' -}}
    {{- 'within <tool_call></tool_call> XML tags:\n<tool_call>\n' -}}
    {{- '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n' -}}
{%- endif -%}
{%- set turn = namespace(said='') -%}
{%- for message in messages -%}
    {%- if not (tools and loop.first and message.role == 'system') -%}
        {%- set role = written_as(message.role) -%}
        {%- set opens = loop.first or role == 'system' or written_as(loop.previtem.role) != role -%}
        {%- set ends = loop.last or role == 'system' or written_as(loop.nextitem.role) != role -%}
        {%- if message.role == 'assistant' -%}{%- set said = answer_of(message)|typed -%}
        {%- elif message.role == 'tool' -%}{%- set said = result_of(message.content)|typed -%}
        {%- else -%}{%- set said = text_of(message.content)|typed -%}
        {%- endif -%}
        {%- set turn.said = ('' if opens else turn.said + '\n') + said -%}
        {%- if ends -%}
            {{- '<|im_start|>' + role + '\n' -}}
            {%- if role == 'assistant' and message.weight != 0 and message.train != 0 -%}
                {%- generation -%}{{- turn.said + '<|im_end|>' -}}{%- endgeneration -%}
            {%- else -%}{{- turn.said + '<|im_end|>' -}}
            {%- endif -%}
            {{- '\n' -}}
        {%- endif -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}
"""
"""ChatML with tools and reasoning as in Qwen3's public chat format.

Unlike there, no turn gets a system prompt or an empty thought that it does not have, earlier turns keep their
reasoning, so a turn's text does not depend on what follows it, and turns of one role in a row are one turn. `typed`
stands for what `chat_template` puts there.
"""


def chat_template(tokenizer: Tokenizer) -> str:
    """CHAT_TEMPLATE as it is exported with a tokenizer: markers that someone typed are split by SPLITTER."""
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    beginnings = sorted({content[:2] for content in special if len(content) > 1})
    filters = (
        f"|replace({json.dumps(two, ensure_ascii=False)}, {json.dumps(two[0] + SPLITTER + two[1], ensure_ascii=False)})"
        for two in beginnings
    )
    return CHAT_TEMPLATE.replace("|typed", "".join(filters))


BETWEEN_TURNS = "\n"
"""What follows the end marker of a turn."""


def turn_header(role: str) -> str:
    """What stands between the start marker of a turn and its content."""
    return f"{role}\n"


def render_turn(tokenizer: Tokenizer, turn: Turn, learned: bool = True) -> RenderedTurn:
    """Ids of one turn, and which of them an assistant must produce: content and end marker, if the turn is learned."""
    role, content = turn
    header = turn_header(role)
    encoded = tokenizer.encode(header + content, add_special_tokens=False)
    spoken = learned and role == "assistant"
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
