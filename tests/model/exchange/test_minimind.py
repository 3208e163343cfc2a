"""MiniMind's checkpoints: the same logits as its published forward pass, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.exchange.export import to_hugging_face
from model.exchange.hugging_face import NotImportable
from model.exchange.minimind import MiniMindConfig, import_minimind
from model.network.transformer import Transformer
from tests.reference.minimind import Shape, logits

SMALL: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 300, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48,
}  # fmt: skip
IDS = [5, 17, 5, 299, 0, 42, 8]


def written(path: Path, config: MiniMindConfig, seed: int = 0) -> dict[str, Tensor]:
    """A file of random weights as MiniMind's trainers write it; returns what it holds, in fp32."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: (torch.randn(tensor.shape, generator=generator) * 0.2 + float(tensor.dim() == 1)).half()
        for name, tensor in to_hugging_face(Transformer(config.model)).items()
    }
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    torch.save(state, path)
    return {name: tensor.float() for name, tensor in state.items()}


def reference_shape(config: MiniMindConfig) -> Shape:
    return Shape(
        config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads or config.num_attention_heads,
        config.head_dim or config.hidden_size // config.num_attention_heads, config.rms_norm_eps, config.rope_theta,
        config.num_experts if config.use_moe else 0, config.num_experts_per_tok, config.norm_topk_prob,
    )  # fmt: skip


@settings(max_examples=8)
@given(
    changes=st.fixed_dictionaries(
        {
            "use_moe": st.booleans(),
            "num_experts": st.integers(2, 5),
            "num_experts_per_tok": st.integers(1, 2),
            "norm_topk_prob": st.booleans(),
            "num_key_value_heads": st.sampled_from([None, 1, 2]),
        },
        optional={
            "head_dim": st.sampled_from([4, 10]),
            "moe_intermediate_size": st.sampled_from([16, 24]),
            "rope_theta": st.sampled_from([10.0, 1e4]),
            "rms_norm_eps": st.sampled_from([1e-5, 0.3]),
        },
    )
)
def test_logits_are_those_of_the_published_forward_pass(
    changes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("minimind") / "pretrain_32.pth"
    config = MiniMindConfig(**SMALL | changes)
    state = written(path, config)
    with torch.no_grad():
        ours = import_minimind(path, config)(torch.tensor([IDS]))[0]
    assert ours.dtype == torch.float32
    assert ours.std() > 0.1, "logits near zero would agree by chance"
    torch.testing.assert_close(ours, logits(IDS, state, reference_shape(config)), atol=2e-4, rtol=1e-4)


def test_the_configuration_of_a_default_minimind() -> None:
    model = MiniMindConfig(use_moe=True).model
    assert (model.hidden_size, model.head_dim, model.moe_intermediate_size) == (768, 96, 2432)
    assert (model.vocab_size, model.num_experts, model.num_experts_per_tok) == (6400, 4, 1)
    assert (model.rope_theta, model.rms_norm_eps, model.minimind_compatible) == (1e6, 1e-6, True)
    assert 63e6 < MiniMindConfig().model.total_parameters < 65e6
    assert 197e6 < model.total_parameters < 200e6


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_balance_loss_weighs_as_much_as_in_minimind(top_k: int) -> None:
    """Balanced, MiniMind's is its coefficient for each layer and choice; ours is 1."""
    config = MiniMindConfig(**SMALL, use_moe=True, num_experts_per_tok=top_k, router_aux_loss_coef=0.01)
    assert config.model.router_aux_loss_coef == pytest.approx(0.01 * 2 * top_k)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inference_rope_scaling": True}, r"inference_rope_scaling is true, and this model computes false alone"),
        ({"hidden_act": "gelu"}, r'hidden_act is "gelu", and this model computes "silu" alone'),
    ],
)
def test_what_is_computed_otherwise_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NotImportable, match=message):
        MiniMindConfig(**SMALL | changes)


SHARED = "model.layers.0.mlp.shared_experts.0.up_proj.weight"


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("model.layers.1.self_attn.q_norm.weight", None, r"x\.pth .*1\.self_attn\.q_norm\.weight is missing"),
        (SHARED, torch.zeros(4, 4), r"0\.mlp\.shared_experts\.0\.up_proj\.weight is not known"),
        ("model.norm.weight", torch.zeros(31), r"model\.norm\.weight is \[31\], by the configuration \[32\]"),
        ("model.norm.weight", torch.zeros(32, dtype=torch.int8), r"model\.norm\.weight is of torch\.int8"),
        ("model.norm.weight", torch.full((32,), torch.nan), r"32 of 32 numbers of model\.norm\.weight are not finite"),
        ("lm_head.weight", torch.zeros(300, 32), r"lm_head\.weight is not model\.embed_tokens\.weight"),
    ],
)
def test_tensors_must_be_those_of_the_configuration(
    name: str, tensor: Tensor | None, message: str, tmp_path: Path
) -> None:
    config = MiniMindConfig(**SMALL, use_moe=True)
    state: dict[str, Tensor | None] = dict(written(tmp_path / "x.pth", config))
    state[name] = tensor
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, tmp_path / "x.pth")
    with pytest.raises(NotImportable, match=message):
        import_minimind(tmp_path / "x.pth", config)


def test_a_mixture_is_not_read_as_a_dense_model(tmp_path: Path) -> None:
    written(tmp_path / "x.pth", MiniMindConfig(**SMALL, use_moe=True))
    with pytest.raises(NotImportable, match=r"layers\.0\.mlp\.down_proj\.weight is missing; .*; and \d+ more"):
        import_minimind(tmp_path / "x.pth", MiniMindConfig(**SMALL))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {}, "epoch": 1}, "not a dictionary of tensors; .* without _resume"),
        ([torch.zeros(2)], "not a dictionary of tensors"),
        (Path("/"), "no file of tensors that torch.save wrote, or holds more"),
    ],
)
def test_what_is_no_file_of_weights_is_refused_and_not_run(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(NotImportable, match=message):
        import_minimind(tmp_path / "x.pth", MiniMindConfig(**SMALL))


@pytest.mark.parametrize("content", [b"", b"some text\n", b"PK\x03\x04 cut off"])
def test_a_file_that_is_something_else_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(NotImportable, match=r"x\.pth cannot be imported: it is no file of tensors that torch\.save"):
        import_minimind(tmp_path / "x.pth", MiniMindConfig(**SMALL))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotImportable, match=r"x\.pth cannot be imported: No such file"):
        import_minimind(tmp_path / "x.pth", MiniMindConfig(**SMALL))
