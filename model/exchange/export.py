"""Export to a folder that transformers, vLLM and llama.cpp load as Qwen3-MoE, or Qwen3 if dense.

Parameter names are those of Hugging Face, except that experts are stacked here and per expert on disk: the
layout every reader knows. Config keys that changed their spelling between transformers 4 and 5 are written in
both spellings, because a reader that misses `num_experts` silently falls back to 128 experts.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from model.config.exportable import export_obstacles
from model.config.network import ModelConfig
from model.config.sampling import Sampling
from model.experts.router import TopKRouter
from model.files import write_json
from model.network.transformer import Transformer
from model.tokens.chat import chat_template
from model.tokens.tokenizer import END_OF_TEXT, TURN_END, TURN_START, save_for_readers, special_id


class NotExportable(ValueError):
    """No reader would compute what this model computes."""


def export_folder(model: Transformer, tokenizer: Tokenizer, folder: Path) -> None:
    """Write weights (fp32 safetensors), configuration, generation settings, tokenizer and chat template.

    Raises NotExportable for a model that readers would compute differently.
    """
    refuse_unexportable(model)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(to_hugging_face(model), folder / "model.safetensors", metadata={"format": "pt"})
    end, start, padding = (special_id(tokenizer, t) for t in (TURN_END, TURN_START, END_OF_TEXT))
    sampling = Sampling()
    ids = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": padding}
    write_json(folder / "config.json", hugging_face_config(model.config) | ids)
    write_json(
        folder / "generation_config.json",
        {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p}
        | ids
        | {"eos_token_id": [end, padding]},
    )
    save_for_readers(tokenizer, folder / "tokenizer.json")
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": TURN_START,
            "eos_token": TURN_END,
            "pad_token": END_OF_TEXT,
            "model_max_length": model.config.max_position_embeddings,
            "clean_up_tokenization_spaces": False,
            "chat_template": chat_template(tokenizer),
        },
    )
    (folder / "chat_template.jinja").write_text(chat_template(tokenizer), encoding="utf-8")


def refuse_unexportable(model: Transformer) -> None:
    """Raise NotExportable with every setting, and the bias, that readers would compute differently."""
    obstacles = export_obstacles(model.config)
    biases = [router.e_score_correction_bias for router in model.modules() if isinstance(router, TopKRouter)]
    largest = max((float(bias.abs().max()) for bias in biases if bias is not None), default=0.0)
    if largest:
        obstacles.append(
            f"router_bias (up to {largest:.3g}): readers have none, and would choose other experts; train to the last "
            "step, where it has gone to zero (router_bias_fade_share)"
        )
    if obstacles:
        raise NotExportable("this model cannot be exported as Qwen3-MoE: " + "; ".join(obstacles))


def hugging_face_config(config: ModelConfig) -> dict[str, object]:
    """`Qwen3MoeConfig` or `Qwen3Config` as JSON, with the spellings of transformers 4 and 5."""
    sizes = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"} if config.dense else mixture_sizes(config)
    return sizes | {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.active_intermediate_size,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "max_position_embeddings": config.max_position_embeddings,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rms_norm_eps": config.rms_norm_eps,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_word_embeddings,
        "use_sliding_window": False,
        "torch_dtype": "float32",
        "dtype": "float32",
    }


def mixture_sizes(config: ModelConfig) -> dict[str, object]:
    """What only a mixture of experts has."""
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_experts": config.num_experts,
        "num_local_experts": config.num_experts,
        "num_experts_per_tok": config.num_experts_per_tok,
        "norm_topk_prob": config.norm_topk_prob,
        "moe_intermediate_size": config.moe_intermediate_size,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "router_aux_loss_coef": config.router_aux_loss_coef,
        "router_z_loss_coef": config.router_z_loss_coef,
        "output_router_logits": False,
    }


HEAD = "lm_head.weight"
"""Of an output head that is not the embedding table: the one name that is the same there and here."""


def to_hugging_face(model: Transformer) -> dict[str, Tensor]:
    """State dict under Hugging Face's names, experts unstacked."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name.endswith("e_score_correction_bias"):  # zero, or it would have been refused
            continue
        prefix, _, leaf = name.rpartition(".experts.")
        if not prefix:
            tensors[name if name == HEAD else f"model.{name}"] = tensor.contiguous()
            continue
        for index, expert in enumerate(tensor):
            parts = {"gate_proj": expert.chunk(2)[0], "up_proj": expert.chunk(2)[1]}
            for part, weight in (parts if leaf == "gate_up_proj" else {"down_proj": expert}).items():
                tensors[f"model.{prefix}.experts.{index}.{part}.weight"] = weight.contiguous().clone()
    return tensors
