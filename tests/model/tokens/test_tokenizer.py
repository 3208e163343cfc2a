from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from model.tokens.tokenizer import SPECIAL_TOKENS, load_tokenizer, special_id, token_byte_lengths, train_tokenizer
from tests.model.tiny import TEXTS

marked_text = st.lists(st.one_of(st.text(max_size=8), st.sampled_from(SPECIAL_TOKENS))).map("".join)


@given(st.text())
@example("naïve 🙂 学而时习之\r\n\x00")
def test_any_text_survives_the_round_trip(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@given(marked_text)
@example("naïve 🙂 学而时习之<|im_end|>")
def test_byte_lengths_of_tokens_add_up_to_the_utf8_length(tokenizer: Tokenizer, text: str) -> None:
    lengths = token_byte_lengths(tokenizer)
    assert int(lengths[tokenizer.encode(text).ids].sum()) == len(text.encode("utf-8"))


def test_special_tokens_stand_for_no_bytes_and_all_others_for_some(tokenizer: Tokenizer) -> None:
    lengths = token_byte_lengths(tokenizer)
    assert lengths.shape == (tokenizer.get_vocab_size(),)
    assert [index for index, length in enumerate(lengths) if length == 0] == [0, 1, 2]


@given(marked_text)
def test_text_that_spells_special_tokens_never_yields_their_ids(tokenizer: Tokenizer, text: str) -> None:
    assert not {0, 1, 2} & set(tokenizer.encode(text).ids)


def test_special_tokens_have_the_first_ids_and_the_vocabulary_its_size(tokenizer: Tokenizer) -> None:
    assert [special_id(tokenizer, token) for token in SPECIAL_TOKENS] == [0, 1, 2]
    assert tokenizer.get_vocab_size() == 340


def test_training_learns_merges_and_repeats_itself() -> None:
    first, second = (train_tokenizer(TEXTS * 20, vocab_size=340) for _ in range(2))
    assert first.to_str() == second.to_str()
    assert len(first.encode("the cat sat on the mat").ids) < len("the cat sat on the mat")


def test_a_tokenizer_without_the_turn_markers_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] == 0]
    for token in SPECIAL_TOKENS[1:]:
        del content["model"]["vocab"][token]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"tokenizer\.json lacks <\|im_start\|>, <\|im_end\|>; add them"):
        load_tokenizer(tmp_path)


def test_a_special_token_that_is_missing_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="has no <tool>"):
        special_id(tokenizer, "<tool>")
