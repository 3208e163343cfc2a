"""Folders of Qwen3 and Qwen3-MoE that transformers wrote, and those that would be computed otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3MoeConfig

from model.exchange.hugging_face import NotImportable, import_hugging_face

SIZES: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 12, "intermediate_size": 40, "max_position_embeddings": 128, "rms_norm_eps": 1e-3,
    "initializer_range": 0.3, "rope_parameters": {"rope_type": "default", "rope_theta": 77.0},
}  # fmt: skip
MIXTURE: dict[str, Any] = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


def theirs(folder: Path, dense: bool = False, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A random model that transformers made and wrote to `folder`, as it reads it."""
    settings = SIZES | ({} if dense else MIXTURE) | {"tie_word_embeddings": True} | changes
    config = Qwen3Config(**settings) if dense else Qwen3MoeConfig(**settings)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.normal_(1.0, 0.2)
    model.save_pretrained(folder, max_shard_size="20KB")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def ids() -> Tensor:
    return torch.randint(0, 300, (2, 24), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_topk_prob": True},
        {"norm_topk_prob": False},
        {"norm_topk_prob": True, "num_experts_per_tok": 1},
        {"dtype": torch.bfloat16, "norm_topk_prob": True},
        {"tie_word_embeddings": False},
        {"dense": True},
        {"dense": True, "dtype": torch.float16},
    ],
)
def test_logits_are_those_of_transformers(changes: dict[str, Any], tmp_path: Path) -> None:
    published = theirs(tmp_path, **changes)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1, "several shards"
    ours = import_hugging_face(tmp_path)
    with torch.no_grad():
        expected, actual = published(ids()).logits, ours(ids())
    assert expected.std() > 0.5, "logits near zero would agree by chance"
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_an_output_head_that_is_the_table_is_no_head_of_its_own(tmp_path: Path) -> None:
    model = theirs(tmp_path, tie_word_embeddings=False)
    assert not import_hugging_face(tmp_path).config.tie_word_embeddings
    with torch.no_grad():
        model.lm_head.weight.copy_(model.model.embed_tokens.weight)
    model.save_pretrained(tmp_path / "equal")
    assert import_hugging_face(tmp_path / "equal").config.tie_word_embeddings


def test_a_head_that_transformers_would_replace_by_the_table_is_refused(tmp_path: Path) -> None:
    theirs(tmp_path, tie_word_embeddings=False)
    written = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(written | {"tie_word_embeddings": True}))
    with pytest.raises(NotImportable, match=r"lm_head\.weight is not .*one table for both"):
        import_hugging_face(tmp_path)


def rewritten(exported: Path, folder: Path, **changes: Any) -> Path:
    """A copy of an export with other settings; None takes one out."""
    shutil.copytree(exported, folder, dirs_exist_ok=True)
    content = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, r'config\.json .*model_type is "llama", not qwen3 or qwen3_moe'),
        ({"attention_bias": True}, r"attention_bias is true, and this model computes false alone"),
        ({"use_sliding_window": True}, r"use_sliding_window is true"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, r"layer_types has sliding_attention"),
        ({"mlp_only_layers": [1]}, r"mlp_only_layers is \[1\], and this model computes \[\] alone"),
        ({"decoder_sparse_step": 2}, r"decoder_sparse_step is 2, and this model computes 1 alone"),
        ({"hidden_act": "gelu"}, r'hidden_act is "gelu", and this model computes "silu" alone'),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, r'rope_scaling is \{"type": "yarn", "factor": 4\.0\}'),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, r'rope_type is "yarn".* "default" alone'),
        ({"rope_parameters": {"rope_theta": 7.0}}, r"rope_theta is 10000\.0 in one place, in another 7\.0"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, r"partial_rotary_factor is 0\.5"),
        ({"quantization_config": {"bits": 4}}, r"quantization_config is \{"),
        ({"num_local_experts": 8}, r"num_experts is 4 in one place, in another 8"),
        ({"num_experts": None, "num_local_experts": None, "head_dim": None}, r"head_dim is missing; num_experts is m"),
        ({"head_dim": 15}, r"head_dim \(15\) must be even"),
        ({"head_dim": 18}, r"self_attn\.k_norm\.weight is \[16\], by the configuration \[18\]"),
        ({"tie_word_embeddings": False}, r"tie_word_embeddings is not true, and there is no lm_head\.weight"),
        ({"vocab_size": 151_936}, r"vocab_size \(151936\) must be at most 65,536"),
        ({"attention_bias": True, "mlp_only_layers": [0]}, r"attention_bias is .*; mlp_only_layers is "),
    ],
)
def test_what_would_be_computed_otherwise_is_refused_by_name(
    changes: dict[str, Any], message: str, exported: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        import_hugging_face(rewritten(exported, tmp_path, **changes))


@pytest.mark.parametrize("other", ["num_experts", "num_local_experts", "rope_theta", "rope_parameters"])
def test_either_spelling_is_enough(other: str, exported: Path, tmp_path: Path) -> None:
    read = import_hugging_face(rewritten(exported, tmp_path, **{other: None}))
    assert read.config == import_hugging_face(exported).config


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("model.layers.0.mlp.experts.1.up_proj.weight", None, r"0\.mlp\.experts\.1\.up_proj\.weight is missing"),
        ("model.norm.weight", None, r"model\.norm\.weight is missing"),
        ("model.layers.2.input_layernorm.weight", torch.ones(32), r"layers\.2\.input_layernorm\.weight is not known"),
        ("model.layers.0.self_attn.q_proj.bias", torch.ones(32), r"q_proj\.bias is not known"),
        ("model.norm.weight", torch.ones(32, dtype=torch.int8), r"model\.norm\.weight is of torch\.int8"),
        ("model.norm.weight", torch.tensor([1.0] * 30 + [torch.nan, torch.inf]), r"2 of 32 numbers of model\.norm\.w"),
    ],
)
def test_tensors_must_be_those_of_the_configuration(
    name: str, tensor: Tensor | None, message: str, exported: Path, tmp_path: Path
) -> None:
    folder = rewritten(exported, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(name, None)
    save_file(tensors | ({} if tensor is None else {name: tensor}), folder / "model.safetensors")
    with pytest.raises(NotImportable, match=message):
        import_hugging_face(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "config.json cannot be imported: No such file"),
        ("config.json", b"", "config.json cannot be imported: it is not JSON"),
        ("config.json", b"[1]", "config.json cannot be imported: it holds a list, not an object"),
        ("model.safetensors", b"", "model.safetensors cannot be imported: it is not whole"),
        ("model.safetensors", b"some text, longer than a header", "model.safetensors cannot be imported: it is not wh"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    name: str, content: bytes | None, message: str, exported: Path, tmp_path: Path
) -> None:
    folder = rewritten(exported, tmp_path)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(NotImportable, match=message):
        import_hugging_face(folder)


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    theirs(tmp_path)
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    held = load_file(shard)
    shard.unlink()
    with pytest.raises(NotImportable, match=rf"{shard.name} is not there"):
        import_hugging_face(tmp_path)
    name, _ = held.popitem()
    save_file(held | {"another": torch.ones(1)}, shard)
    with pytest.raises(NotImportable, match=rf"{name} is not in {shard.name}"):
        import_hugging_face(tmp_path)


def test_a_folder_without_safetensors_is_refused(exported: Path, tmp_path: Path) -> None:
    (rewritten(exported, tmp_path) / "model.safetensors").unlink()
    with pytest.raises(NotImportable, match=r"neither model\.safetensors nor model\.safetensors\.index\.json"):
        import_hugging_face(tmp_path)
