"""Folders of Hugging Face's Qwen3 and Qwen3-MoE as our models, whoever wrote them; the way back from
`model.exchange.export`.

Strict: a setting that this project computes otherwise is refused by name with both values, and so is every tensor that
is missing, unknown or of another shape. Weights come out in fp32, whatever type they were stored in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from model.config.network import ModelConfig
from model.exchange.export import HEAD, to_hugging_face
from model.network.transformer import Transformer

SHOWN_PROBLEMS = 5
"""How many tensors an error names."""
SHOWN_CHARACTERS = 300
"""How much an error quotes of another library's."""
TABLE = "model.embed_tokens.weight"
SHARDS = "model.safetensors.index.json"
COMPUTED: dict[str, object] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "use_sliding_window": False,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "rope_scaling": None,
    "quantization_config": None,
}
"""What our model computes, under Hugging Face's names; null and what is left out mean the same there."""
ROPE: dict[str, object] = {"rope_type": "default", "type": "default", "partial_rotary_factor": 1.0}
"""The same for the keys of `rope_parameters`, where transformers 5 keeps them."""
FULL_ATTENTION = "full_attention"
SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "max_position_embeddings", "rms_norm_eps",
)  # fmt: skip
MIXTURE_SIZES = ("num_experts_per_tok", "moe_intermediate_size")
TRAINING = ("initializer_range", "router_aux_loss_coef", "router_z_loss_coef")
"""Copied if they are there; they change no logits."""


class NotImportable(ValueError):
    """Our model would compute something else from these files."""


def refuse(problems: list[str], source: Path) -> None:
    """Raise NotImportable that names `source` and lists the problems, the first few if there are many."""
    if problems:
        more = [f"and {len(problems) - SHOWN_PROBLEMS} more"] if len(problems) > SHOWN_PROBLEMS else []
        raise NotImportable(f"{source} cannot be imported: " + "; ".join(problems[:SHOWN_PROBLEMS] + more))


def import_hugging_face(folder: Path) -> Transformer:
    """The model of a folder of `Qwen3ForCausalLM` or `Qwen3MoeForCausalLM`, ours or another's.

    It holds config.json and the weights as safetensors, in one file or in shards with an index. Raises NotImportable.
    """
    path = folder / "config.json"
    written = read_json(path)
    config, tensors = read_config(written, path), read_weights(folder)
    tied = bool(written.get("tie_word_embeddings"))
    if HEAD not in tensors and not tied:
        refuse([f"tie_word_embeddings is not true, and there is no {HEAD}"], folder)
    tied = tied or is_table(tensors[HEAD], tensors)
    return from_hugging_face(tensors, replace(config, tie_word_embeddings=tied), folder)


def is_table(head: Tensor, tensors: Mapping[str, Tensor]) -> bool:
    """Whether an output head is the embedding table."""
    return TABLE in tensors and torch.equal(head.float(), tensors[TABLE].float())


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises NotImportable."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotImportable(f"{path} cannot be imported: {error.strerror}") from error
    except ValueError as error:
        raise NotImportable(f"{path} cannot be imported: it is not JSON ({error})") from error
    if not isinstance(content, dict):
        refuse([f"it holds a {type(content).__name__}, not an object"], path)
    return dict(content)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises NotImportable."""
    try:
        return load_file(path)
    except OSError as error:
        raise NotImportable(f"{path} cannot be imported: {error.strerror or error}") from error
    except SafetensorError as error:
        raise NotImportable(f"{path} cannot be imported: it is not whole ({error}); fetch it again") from error


def read_config(written: Mapping[str, Any], path: Path) -> ModelConfig:
    """A config.json in the spellings of transformers 4 and 5; `path` names it. Raises NotImportable, ValueError."""
    kind = written.get("model_type")
    if kind not in ("qwen3", "qwen3_moe"):
        refuse([f"model_type is {json.dumps(kind)}, not qwen3 or qwen3_moe"], path)
    rope = written.get("rope_parameters") or {}
    problems = differing(written, COMPUTED) + differing(rope, ROPE)
    if attention := sorted(set(written.get("layer_types") or ()) - {FULL_ATTENTION}):
        problems.append(f"layer_types has {', '.join(attention)}, and this model computes {FULL_ATTENTION} alone")

    def required(*values: object, name: str) -> Any:
        """The one value of a setting under all its spellings; where there is none or several, a problem is noted."""
        spelled = [value for value in values if value is not None]
        if not spelled or any(value != spelled[0] for value in spelled):
            problems.append(f"{name} is {' in one place, in another '.join(map(str, spelled)) or 'missing'}")
        return spelled[0] if spelled else 1

    names = SIZES if kind == "qwen3" else (*SIZES, *MIXTURE_SIZES)
    fields = {name: required(written.get(name), name=name) for name in names}
    fields["rope_theta"] = required(written.get("rope_theta"), rope.get("rope_theta"), name="rope_theta")
    if kind == "qwen3":
        width = required(written.get("intermediate_size"), name="intermediate_size")
        fields |= {"dense": True, "num_experts_per_tok": 1, "moe_intermediate_size": width}
    else:
        experts = required(written.get("num_experts"), written.get("num_local_experts"), name="num_experts")
        fields |= {"num_experts": experts, "norm_topk_prob": bool(written.get("norm_topk_prob"))}
        fields["minimind_compatible"] = fields["norm_topk_prob"] and fields["num_experts_per_tok"] == 1
    refuse(problems, path)
    return ModelConfig(**fields, **{name: written[name] for name in TRAINING if written.get(name) is not None})


def differing(written: Mapping[str, object], computed: Mapping[str, object]) -> list[str]:
    """A problem for each setting that is written with another value than the one that is computed."""
    return [
        f"{name} is {json.dumps(written[name])}, and this model computes {json.dumps(only)} alone"
        for name, only in computed.items()
        if written.get(name) not in (None, only)
    ]


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of `model.safetensors`, or of the shards that the index names. Raises NotImportable."""
    whole, index = folder / "model.safetensors", folder / SHARDS
    if whole.exists():
        return read_tensors(whole)
    if not index.exists():
        refuse([f"it holds neither {whole.name} nor {SHARDS}; save it as safetensors first"], folder)
    placed = read_json(index).get("weight_map")
    if not isinstance(placed, dict) or not all(isinstance(shard, str) for shard in placed.values()):
        refuse(["it has no weight_map from tensors to files"], index)
    placed = cast(dict[str, str], placed)
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(placed.values())):
        if not (folder / shard).exists():
            refuse([f"{shard} is not there; fetch the folder again"], index)
        tensors |= read_tensors(folder / shard)
    refuse([f"{name} is not in {placed[name]}" for name in sorted(placed.keys() - tensors.keys())], index)
    return tensors


def from_hugging_face(tensors: Mapping[str, Tensor], config: ModelConfig, source: Path) -> Transformer:
    """A model of tensors under Hugging Face's names, one matrix an expert: the inverse of `to_hugging_face`.

    Where the configuration has one table for both, a separate output head is accepted if it is equal. Raises
    NotImportable; `source` names the files.
    """
    model = Transformer(config)
    tensors = dict(tensors)
    head = tensors.pop(HEAD, None) if config.tie_word_embeddings else None
    refuse(tensor_problems(tensors, to_hugging_face(model)), source)
    if head is not None and not is_table(head, tensors):
        refuse([f"{HEAD} is not {TABLE}, and this model has one table for both"], source)
    state = {name.removeprefix("model."): tensor.float() for name, tensor in tensors.items()}
    for layer in range(0 if config.dense else config.num_hidden_layers):
        prefix = f"layers.{layer}.mlp.experts"
        gate, up, down = (
            torch.stack([state.pop(f"{prefix}.{expert}.{part}_proj.weight") for expert in range(config.num_experts)])
            for part in ("gate", "up", "down")
        )
        state |= {f"{prefix}.gate_up_proj": torch.cat([gate, up], dim=1), f"{prefix}.down_proj": down}
    model.load_state_dict(state, strict=True)
    return model


def tensor_problems(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Tensors that are missing, quantised, not finite, of another shape, or not known."""
    problems = [f"{name} is missing" for name in sorted(expected.keys() - tensors.keys())]
    for name in sorted(expected.keys() & tensors.keys()):
        if tensors[name].shape != expected[name].shape:
            problems.append(f"{name} is {list(tensors[name].shape)}, by the configuration {list(expected[name].shape)}")
        if not tensors[name].is_floating_point():
            problems.append(f"{name} is of {tensors[name].dtype}, no floating point type")
        elif broken := int((~torch.isfinite(tensors[name])).sum()):
            problems.append(f"{broken:,} of {tensors[name].numel():,} numbers of {name} are not finite")
    return problems + [f"{name} is not known" for name in sorted(tensors.keys() - expected.keys())]
