from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from model.tokens.chat import Turn, render_prompt, render_turn
from schemas.adapters import check_rows
from tests.reference.conversations import conversations as rich_conversations
from tests.reference.turns import conversations, plain_content


@pytest.fixture(scope="module")
def published(exported: Path) -> Any:
    """The exported tokenizer as transformers loads it."""
    return AutoTokenizer.from_pretrained(exported)


def messages(turns: list[Turn]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


@given(turns=conversations(plain_content))
@example(turns=[("system", "sei höflich"), ("user", "学而时习之?"), ("assistant", "🙂 größer\n\n  naïve  ")])
def test_ids_and_targets_equal_the_published_template(tokenizer: Tokenizer, published: Any, turns: list[Turn]) -> None:
    expected = published.apply_chat_template(
        messages(turns), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    rendered = [render_turn(tokenizer, turn) for turn in turns]
    assert [token for ids, _ in rendered for token in ids] == list(expected["input_ids"])
    assert [int(target) for _, targets in rendered for target in targets] == list(expected["assistant_masks"])


@given(turns=conversations(plain_content))
def test_prompt_equals_the_published_generation_prompt(tokenizer: Tokenizer, published: Any, turns: list[Turn]) -> None:
    expected = published.apply_chat_template(
        messages(turns), tokenize=True, return_dict=True, add_generation_prompt=True
    )
    assert render_prompt(tokenizer, turns) == list(expected["input_ids"])


def canonical(row: dict[str, Any]) -> list[Turn]:
    """What validation keeps of a row of OpenAI's messages."""
    checked = check_rows([row], "chat", "openai")
    assert checked.faults == {}
    return [(turn["role"], turn["content"]) for turn in checked.good["conversations"].to_list()[0]]


PARTS = {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b\n"}]},
                      {"role": "assistant", "content": "\n c", "thinking": "\nhm\n", "tool_calls": [
                          {"function": {"name": 'n"ä', "arguments": '{"a":  1}'}},
                          {"name": "f", "arguments": {"b": 1e22}},
                      ]}], "tools": [{"name": "f", "deep": {"é": [None, True, 0.1]}}]}  # fmt: skip


@given(row=rich_conversations)
@example(row=PARTS)
def test_tools_and_reasoning_have_the_ids_and_targets_of_the_published_template(
    tokenizer: Tokenizer, published: Any, row: dict[str, Any]
) -> None:
    expected = published.apply_chat_template(
        row["messages"], tools=row["tools"], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    rendered = [render_turn(tokenizer, turn) for turn in canonical(row)]
    assert [token for ids, _ in rendered for token in ids] == list(expected["input_ids"])
    assert [int(target) for _, targets in rendered for target in targets] == list(expected["assistant_masks"])


@given(row=rich_conversations)
def test_a_prompt_with_tools_equals_the_published_generation_prompt(
    tokenizer: Tokenizer, published: Any, row: dict[str, Any]
) -> None:
    expected = published.apply_chat_template(
        row["messages"], tools=row["tools"], tokenize=True, return_dict=True, add_generation_prompt=True
    )
    assert render_prompt(tokenizer, canonical(row)) == list(expected["input_ids"])


def test_the_published_template_writes_the_public_format(published: Any) -> None:
    look = {"name": "look", "arguments": {"at": 1}}
    rendered = published.apply_chat_template(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [{"function": look}, look]},
            {"role": "tool", "content": "5"},
            {"role": "tool", "content": "6"},
            {"role": "assistant", "content": "5 and 6."},
        ],
        tools=[{"name": "look"}],
        tokenize=False,
        add_generation_prompt=True,
    )
    call = '<tool_call>\n{"name": "look", "arguments": {"at": 1}}\n</tool_call>'
    assert rendered == (
        "<|im_start|>system\nBe brief.\n\n# Tools\n\nYou may call one or more functions to assist with the user query."
        "\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
        '{"name": "look"}\n</tools>\n\nFor each function call, return a json object with function name and arguments '
        'within <tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": '
        "<args-json-object>}\n</tool_call><|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
        f"<think>\nhm\n</think>\n\n{call}\n{call}<|im_end|>\n<|im_start|>user\n<tool_response>\n5\n</tool_response>\n"
        "<tool_response>\n6\n</tool_response><|im_end|>\n<|im_start|>assistant\n5 and 6.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
