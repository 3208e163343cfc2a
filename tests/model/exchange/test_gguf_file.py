"""GGUF files: what lies in them, and that llama.cpp computes the same from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from model.config.network import ModelConfig
from model.exchange.export import NotExportable, export_folder, to_hugging_face
from model.exchange.gguf_file import write_gguf
from model.network.transformer import Transformer
from model.tokens.tokenizer import load_tokenizer, train_tokenizer
from tests.model.tiny import TEXTS, tiny_config

TEXT = "the cat's mat — naïve  学而时习之 x = 3141;\n\n  user\tsystem 🙂 "
SHAPES: list[dict[str, Any]] = [
    {},
    {"dense": True},
    {"num_experts": 5, "num_experts_per_tok": 3, "rope_theta": 50.0, "rms_norm_eps": 0.1, "num_attention_heads": 4},
    {"num_experts_per_tok": 1, "minimind_compatible": True, "num_key_value_heads": 2},
]


def exported(folder: Path, changes: dict[str, Any], seed: int = 3) -> Transformer:
    """A random model with a vocabulary larger than its tokenizer's, written to `folder`."""
    train_tokenizer(TEXTS * 20, vocab_size=340).save(str(folder / "tokenizer.json"))
    model = Transformer(tiny_config(vocab_size=350, **changes), seed=seed)
    export_folder(model, load_tokenizer(folder), folder)
    return model


def edit_tokenizer(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps(content | changes), encoding="utf-8")


def weight(tensors: dict[str, np.ndarray], name: str) -> torch.Tensor:
    return torch.from_numpy(np.array(tensors[f"{name}.weight"])).float()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_all_weights_lie_in_the_file_under_llama_cpp_s_names(precision: Any, tmp_path: Path) -> None:
    model = exported(tmp_path, {})
    write_gguf(tmp_path, tmp_path / "model.gguf", precision)
    assert not list(tmp_path.glob("*.partial"))
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    rounded = torch.half if precision == "fp16" else torch.float
    state = to_hugging_face(model)
    names = {"attn_q": "self_attn.q_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm"}
    for layer in range(2):
        for ours, theirs in names.items():
            expected = state[f"model.layers.{layer}.{theirs}.weight"]
            kept = expected if expected.dim() == 1 else expected.to(rounded).float()
            assert torch.equal(weight(tensors, f"blk.{layer}.{ours}"), kept)
        assert torch.equal(weight(tensors, f"blk.{layer}.ffn_gate_inp"), state[f"model.layers.{layer}.mlp.gate.weight"])
        for part in ("gate", "up", "down"):
            experts = weight(tensors, f"blk.{layer}.ffn_{part}_exps")
            for number, expert in enumerate(experts):
                expected = state[f"model.layers.{layer}.mlp.experts.{number}.{part}_proj.weight"]
                assert torch.equal(expert, expected.to(rounded).float())
    assert sum(array.size for array in tensors.values()) == model.config.total_parameters


def test_settings_tokens_and_template_lie_in_the_file(tmp_path: Path) -> None:
    exported(tmp_path, {})
    write_gguf(tmp_path, tmp_path / "model.gguf")
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    values = {name: field.contents() for name, field in fields.items()}
    assert values["general.architecture"] == "qwen3moe"
    assert (values["qwen3moe.expert_count"], values["qwen3moe.expert_used_count"]) == (4, 2)
    tokens, tokenizer = values["tokenizer.ggml.tokens"], Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    assert len(tokens) == 350 > size
    assert tokens[:size] == [tokenizer.id_to_token(index) for index in range(size)]
    kinds = [gguf.TokenType(kind).name for kind in values["tokenizer.ggml.token_type"]]
    assert kinds == ["CONTROL"] * 3 + ["NORMAL"] * (size - 3) + ["UNUSED"] * (350 - size)
    assert "<|im_start|>" in values["tokenizer.chat_template"]
    assert "generation -" not in values["tokenizer.chat_template"]


@pytest.mark.parametrize(
    "changes",
    [
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": None},
        {"normalizer": {"type": "NFC"}},
    ],
)
def test_a_tokenizer_that_cuts_text_otherwise_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    exported(tmp_path, {})
    edit_tokenizer(tmp_path, **changes)
    with pytest.raises(NotExportable, match=r"pre_tokenizer .* and normalizer .*; a GGUF file is written for a BPE"):
        write_gguf(tmp_path, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_weights_beyond_fp16_are_refused_in_fp16_alone(tmp_path: Path) -> None:
    model = exported(tmp_path, {})
    with torch.no_grad():
        model.embed_tokens.weight[5, 5] = 70_000.0
    export_folder(model, load_tokenizer(tmp_path), tmp_path)
    with pytest.raises(NotExportable, match=r"token_embd\.weight goes up to 7e\+04, fp16 to 6\.55e\+04; .* fp32"):
        write_gguf(tmp_path, tmp_path / "model.gguf")
    write_gguf(tmp_path, tmp_path / "model.gguf", "fp32")


def test_a_folder_that_llama_cpp_would_compute_otherwise_is_refused(tmp_path: Path) -> None:
    exported(tmp_path, {})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"norm_topk_prob": False}))
    with pytest.raises(NotExportable, match="norm_topk_prob"):
        write_gguf(tmp_path, tmp_path / "model.gguf")


@pytest.mark.parametrize("changes", SHAPES)
def test_llama_cpp_gives_the_same_logits_tokens_and_chats(changes: dict[str, Any], tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python compiles for twenty minutes: install by hand")
    model = exported(tmp_path, changes)
    tokenizer = load_tokenizer(tmp_path)
    write_gguf(tmp_path, tmp_path / "model.gguf", "fp32")
    engine = llama_cpp.Llama(
        str(tmp_path / "model.gguf"), n_ctx=64, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False,
        flash_attn=False, type_k=0, type_v=0,
    )  # fmt: skip
    ids = engine.tokenize(TEXT.encode(), add_bos=False, special=False)
    assert ids == tokenizer.encode(TEXT).ids
    assert engine.tokenize(b"<|im_end|>", add_bos=False, special=True) == [2]
    engine.eval(ids)
    with torch.no_grad():
        ours = model(torch.tensor([ids]))[0]
    theirs = torch.from_numpy(engine.scores[: len(ids)])
    assert ours.std() > 0.5, "logits near zero would agree by chance"
    torch.testing.assert_close(theirs, ours, atol=2e-3, rtol=1e-3)
    assert engine.metadata["tokenizer.chat_template"]


def test_default_configuration_fits(tmp_path: Path) -> None:
    """Every tensor of a model of the default shape has a name in llama.cpp."""
    train_tokenizer(TEXTS * 20, vocab_size=340).save(str(tmp_path / "tokenizer.json"))
    config = ModelConfig(vocab_size=400, num_hidden_layers=1)
    export_folder(Transformer(config), load_tokenizer(tmp_path), tmp_path)
    write_gguf(tmp_path, tmp_path / "model.gguf")
    sizes = [tensor.n_elements for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors]
    assert sum(sizes) == config.total_parameters
