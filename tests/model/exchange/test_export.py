from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from model.exchange.export import export_folder
from model.exchange.hugging_face import import_hugging_face
from model.network.transformer import Transformer
from model.tokens.tokenizer import TURN_END
from tests.model.tiny import chain_model, tiny_config


@pytest.fixture(scope="module")
def published(exported: Path) -> Any:
    """The exported folder as transformers loads it; a key it does not know or misses is an error."""
    model, info = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    return model.eval()


def test_transformers_gives_the_same_logits(exported_model: Transformer, published: Any) -> None:
    assert type(published).__name__ == "Qwen3MoeForCausalLM"
    ids = torch.randint(3, 340, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = exported_model(ids), published(ids).logits
    assert ours.std() > 0.5, "logits near zero would agree by chance"
    assert (ours - theirs).abs().max() < 1e-4


def test_settings_far_from_the_defaults_reach_transformers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """A key that a reader overlooks shows in the logits."""
    config = tiny_config(
        vocab_size=340, num_hidden_layers=1, num_attention_heads=6, num_key_value_heads=2, rope_theta=50.0,
        rms_norm_eps=0.5, num_experts=6, num_experts_per_tok=3,
    )  # fmt: skip
    model = Transformer(config, seed=4)
    export_folder(model, tokenizer, tmp_path)
    published = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids = torch.randint(3, 340, (1, 30), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert (model(ids) - published(ids).logits).abs().max() < 1e-4


def test_an_exported_folder_loads_back_exactly(exported: Path, exported_model: Transformer) -> None:
    loaded = import_hugging_face(exported)
    assert loaded.config == exported_model.config
    ours, theirs = exported_model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_experts_are_stored_one_by_one(exported: Path, exported_model: Transformer) -> None:
    tensors = load_file(exported / "model.safetensors")
    config = exported_model.config
    for layer in range(config.num_hidden_layers):
        experts = exported_model.layers[layer].mlp.experts
        for expert in range(config.num_experts):
            prefix = f"model.layers.{layer}.mlp.experts.{expert}"
            gate, up, down = (tensors.pop(f"{prefix}.{part}_proj.weight") for part in ("gate", "up", "down"))
            assert torch.equal(torch.cat([gate, up]), experts.gate_up_proj[expert])
            assert torch.equal(down, experts.down_proj[expert])
    assert not any(".experts." in name for name in tensors)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_configuration_has_the_spellings_of_both_generations(exported: Path, exported_model: Transformer) -> None:
    written = json.loads((exported / "config.json").read_text())
    config = exported_model.config
    assert written["num_experts"] == written["num_local_experts"] == config.num_experts == 4
    assert written["rope_theta"] == written["rope_parameters"]["rope_theta"] == config.rope_theta
    assert (written["eos_token_id"], written["bos_token_id"], written["pad_token_id"]) == (2, 1, 0)
    assert written["norm_topk_prob"] is True
    assert written["tie_word_embeddings"] is True
    generation = json.loads((exported / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [2, 0]


def test_published_tokenizer_writes_special_ids_and_ends_turns(exported: Path, tokenizer: Tokenizer) -> None:
    published = AutoTokenizer.from_pretrained(exported)
    assert (published.eos_token, published.pad_token, published.bos_token) == (
        TURN_END,
        "<|endoftext|>",
        "<|im_start|>",
    )
    text = "naïve 🙂 the cat"
    assert published.encode(text, add_special_tokens=False) == tokenizer.encode(text).ids
    assert published.decode(published.encode(text)) == text


def test_transformers_generates_until_the_end_of_the_turn(tokenizer: Tokenizer, tmp_path: Path) -> None:
    newline, *spoken = (tokenizer.token_to_id(token) for token in ("Ċ", "a", "b", TURN_END, "c", "d"))
    config = tiny_config(vocab_size=tokenizer.get_vocab_size(), num_hidden_layers=1)
    export_folder(chain_model(config, [newline, *spoken]), tokenizer, tmp_path)
    published = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    prompt = torch.tensor([[newline]])
    generated = published.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=10, do_sample=False, temperature=None, top_p=None
    )
    assert generated[0].tolist() == [newline, *spoken[:3]]
