from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from model.config.exportable import export_obstacles
from model.exchange.export import NotExportable, export_folder
from model.exchange.hugging_face import import_hugging_face
from model.experts.router import TopKRouter
from model.network.transformer import Transformer
from tests.model.tiny import tiny_config

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"gate": "sparsemax"}, r"gate \(sparsemax\).*gate: softmax"),
    ({"gate": "entmax15"}, r"gate \(entmax15\)"),
    ({"gate": "sigmoid"}, r"gate \(sigmoid\)"),
    (
        {"num_experts_per_tok": 1, "norm_topk_prob": False},
        r"norm_topk_prob \(false\).*_tok \(1\).*num_experts_per_tok: 2",
    ),
    ({"num_expert_groups": 2, "num_groups_per_tok": 1}, r"num_groups_per_tok \(1\) of num_expert_groups \(2\)"),
    ({"num_shared_experts": 1}, r"num_shared_experts \(1\).*num_experts_per_tok: 3"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_readers_cannot_express_is_refused_with_the_nearest_choice(
    changes: dict[str, Any], message: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with pytest.raises(NotExportable, match=message):
        export_folder(Transformer(tiny_config(**changes, vocab_size=340)), tokenizer, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_everything_that_stands_in_the_way_is_named_at_once() -> None:
    assert len(export_obstacles(tiny_config(gate="sigmoid", norm_topk_prob=False, num_shared_experts=1))) == 3


def test_a_bias_is_refused_until_it_has_gone(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = Transformer(tiny_config(vocab_size=340, router_bias=True))
    router = next(module for module in model.modules() if isinstance(module, TopKRouter))
    router.e_score_correction_bias[1] = 0.25
    with pytest.raises(NotExportable, match=r"router_bias \(up to 0\.25\)"):
        export_folder(model, tokenizer, tmp_path / "biased")
    router.fade_bias(0)
    export_folder(model, tokenizer, tmp_path / "faded")
    assert logits_apart(model, tmp_path / "faded") < 1e-4


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"dense": True}, "Qwen3ForCausalLM"),
        ({"dense": True, "gate": "sparsemax", "num_shared_experts": 1}, "Qwen3ForCausalLM"),
        ({"num_experts_per_tok": 1, "minimind_compatible": True}, "Qwen3MoeForCausalLM"),
        ({"num_expert_groups": 2, "num_groups_per_tok": 2}, "Qwen3MoeForCausalLM"),
    ],
)
def test_what_can_be_expressed_gives_the_same_logits(
    changes: dict[str, Any], kind: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = Transformer(tiny_config(vocab_size=340, **changes), seed=2)
    export_folder(model, tokenizer, tmp_path)
    assert logits_apart(model, tmp_path, kind) < 1e-4
    loaded = import_hugging_face(tmp_path)
    ids = torch.arange(3, 33)[None]
    with torch.no_grad():
        assert torch.equal(loaded(ids), model(ids))


def logits_apart(model: Transformer, folder: Path, kind: str = "Qwen3MoeForCausalLM") -> float:
    published = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert type(published).__name__ == kind
    ids = torch.randint(3, 340, (2, 30), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = model(ids)
        assert ours.std() > 0.1, "logits near zero would agree by chance"
        return float((ours - published(ids).logits).abs().max())
