"""An output head of its own: trained, decoded, counted and exported as one that is the embedding table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from model.exchange.export import export_folder
from model.exchange.hugging_face import import_hugging_face
from model.generation.decoder import Decoder
from model.network.transformer import Transformer
from tests.model.tiny import tiny_config

WORDS = 340
"""As many as the tokenizer of these tests has."""


@pytest.fixture
def model() -> Transformer:
    return Transformer(tiny_config(vocab_size=WORDS, tie_word_embeddings=False), seed=3)


def ids() -> torch.Tensor:
    return torch.randint(0, WORDS, (2, 24), generator=torch.Generator().manual_seed(0))


def test_it_is_counted_and_the_embedding_that_is_looked_up_is_not_active(model: Transformer) -> None:
    tied = tiny_config(vocab_size=WORDS)
    assert model.config.total_parameters == sum(p.numel() for p in model.parameters())
    assert model.config.total_parameters - tied.total_parameters == WORDS * 32
    assert model.config.active_parameters == tied.active_parameters


def test_what_is_alike_in_both_begins_alike(model: Transformer) -> None:
    tied = dict(Transformer(tiny_config(vocab_size=WORDS), seed=3).named_parameters())
    alike = {name: parameter for name, parameter in model.named_parameters() if name != "lm_head.weight"}
    assert alike.keys() == tied.keys()
    assert all(torch.equal(parameter, tied[name]) for name, parameter in alike.items())


def test_ranges_of_their_own(model: Transformer) -> None:
    ranges = {"embedding_initializer_range": 0.8, "residual_initializer_share": 0.0}
    other = Transformer(replace(model.config, **ranges), seed=3)
    assert float(other.embed_tokens.weight.detach().std()) == pytest.approx(0.8, rel=0.05)
    assert torch.equal(other.head, model.head)
    hidden_BTD, _ = other.hidden(ids())
    torch.testing.assert_close(hidden_BTD, other.norm(other.embed_tokens(ids())), msg="its blocks do nothing yet")


def test_transformers_computes_the_same_and_it_comes_back(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    export_folder(model, tokenizer, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(ids()), theirs(ids()).logits, atol=1e-4, rtol=1e-4)
    back = import_hugging_face(tmp_path)
    assert back.config.tie_word_embeddings is False
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), back.parameters(), strict=True))


def test_decoding_uses_it(model: Transformer) -> None:
    with torch.no_grad():
        decoded = Decoder(model.eval(), capacity_tokens=32).read(ids(), torch.zeros_like(ids()))
        torch.testing.assert_close(decoded, model(ids())[:, -1], atol=1e-4, rtol=1e-4)
