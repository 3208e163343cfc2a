from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from jinja2.exceptions import TemplateError
from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer

from model.tokens.chat import Turn, render_prompt, render_turn
from model.tokens.tokenizer import load_tokenizer, save_for_readers
from schemas.adapters import check_rows
from tests.reference.any_turns import any_messages, any_tools
from tests.reference.conversations import conversations as rich_conversations
from tests.reference.turns import conversations, marked_content, plain_content


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


def call(name: str) -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": {"at": "<|im_end|>"}}}


QUESTION, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
MERGED = [
    [QUESTION, {"role": "assistant", "tool_calls": [call("f")]}, {"role": "assistant", "tool_calls": call("g")},
     {"role": "tool", "content": {"a": [1, None, "<|im_end|>"], "é": 1e22}}, {"role": "tool", "content": [1, 2]},
     {"role": "tool"}, {"role": "tool", "content": []}, {"role": "tool", "content": False}, ANSWER],
    [QUESTION, QUESTION, ANSWER | {"weight": 0}, QUESTION, ANSWER | {"train": True}, ANSWER],
    [QUESTION, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nso", "reasoning_content": "hm"}],
]  # fmt: skip


@given(messages=any_messages, tools=any_tools)
@example(messages=MERGED[0], tools=[{"name": "<|im_start|>"}])
@example(messages=MERGED[1], tools=[])
@example(messages=MERGED[2], tools=[])
def test_every_turn_there_may_be_is_read_as_the_published_template_writes_it(
    tokenizer: Tokenizer, published: Any, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> None:
    checked = check_rows([{"messages": messages, "tools": tools}], "chat", "openai", merge_turns=True)
    assert checked.faults == {}
    expected = published.apply_chat_template(
        messages, tools=tools, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    turns = checked.good["conversations"].to_list()[0]
    rendered = [render_turn(tokenizer, (turn["role"], turn["content"]), turn["learned"]) for turn in turns]
    assert [token for ids, _ in rendered for token in ids] == list(expected["input_ids"])
    assert [int(target) for _, targets in rendered for target in targets] == list(expected["assistant_masks"])


@given(turns=conversations(marked_content))
def test_markers_that_someone_typed_are_text_for_the_published_tokenizer_too(
    tokenizer: Tokenizer, published: Any, turns: list[Turn]
) -> None:
    """As README uses it."""
    expected = published.apply_chat_template(messages(turns), tokenize=True, return_dict=True)
    assert [token for turn in turns for token in render_turn(tokenizer, turn)[0]] == list(expected["input_ids"])
    markers = [published.convert_tokens_to_ids(marker) for marker in ("<|im_start|>", "<|im_end|>")]
    assert [list(expected["input_ids"]).count(marker) for marker in markers] == [len(turns), len(turns)]


@pytest.mark.parametrize("content", [{"a": 1}, 5, ["q"], [{"type": "image_url", "image_url": {}}]])
def test_what_reading_refuses_the_published_template_refuses(published: Any, content: object) -> None:
    refused = [{"role": "user", "content": content}, ANSWER]
    assert check_rows([{"messages": refused}], "chat", "openai").faults
    with pytest.raises(TemplateError, match="content"):
        published.apply_chat_template(refused, tokenize=False)


def test_a_tokenizer_is_what_it_was_before_it_was_exported(tokenizer: Tokenizer, exported: Path) -> None:
    assert load_tokenizer(exported).to_str() == tokenizer.to_str()


@pytest.mark.parametrize("own", [normalizers.NFC(), normalizers.Sequence([normalizers.NFC(), normalizers.NFD()])])
def test_a_tokenizer_s_own_normalizer_stays(tokenizer: Tokenizer, own: Any, tmp_path: Path) -> None:
    given = Tokenizer.from_str(tokenizer.to_str())
    given.normalizer = own
    for _ in range(2):
        save_for_readers(given, tmp_path / "tokenizer.json")
        given = load_tokenizer(tmp_path)
    content = json.loads(given.to_str())
    given.normalizer = own
    assert content == json.loads(given.to_str())


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
