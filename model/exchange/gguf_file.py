"""An exported folder as one GGUF file, for llama.cpp and the engines around it.

The package `gguf` knows the format and the names of tensors; here is what goes into it. llama.cpp's own converter
accepts only tokenizers whose digest is on its list, and one that was trained last night is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from torch import Tensor

from model.config.network import ModelConfig
from model.exchange.export import NotExportable, refuse_unexportable
from model.exchange.hugging_face import import_hugging_face
from model.files import atomic_write
from model.network.transformer import Transformer
from model.tokens.tokenizer import own_normalizer

Precision = Literal["fp32", "fp16"]
FILE_TYPES = {"fp32": gguf.LlamaFileType.ALL_F32, "fp16": gguf.LlamaFileType.MOSTLY_F16}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
"""The only pre-tokenizer that is written; llama.cpp calls it gpt-2."""
GENERATION_TAGS = re.compile(r"\{%-? *(?:end)?generation *-?%\}")
"""A tag of transformers that not every engine knows; what it marks is for training."""


def write_gguf(folder: Path, path: Path, precision: Precision = "fp16") -> None:
    """Write the model, tokenizer and chat template of an exported folder as `path`, which appears whole.

    In fp16, norms and routers stay fp32, as llama.cpp wants and has it. Raises NotImportable or NotExportable for a
    folder that would be computed otherwise, for a tokenizer that the format cannot describe and for weights beyond
    fp16.
    """
    model = import_hugging_face(folder)
    refuse_unexportable(model)
    with atomic_write(path) as temporary:
        writer = gguf.GGUFWriter(temporary, "qwen3" if model.config.dense else "qwen3moe")
        write_sizes(writer, model.config)
        writer.add_file_type(FILE_TYPES[precision])
        write_tokenizer(writer, json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")), model.config)
        write_chat(writer, folder)
        for name, tensor in named_tensors(model):
            writer.add_tensor(name, array_of(name, tensor, precision))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def write_sizes(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    """The configuration, under the keys of the writer's architecture."""
    writer.add_name("Nightschool")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.active_intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if not config.dense:
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)


def write_tokenizer(writer: gguf.GGUFWriter, tokenizer: dict[str, Any], config: ModelConfig) -> None:
    """A byte-level BPE from its tokenizer.json; ids of the model that it does not use are marked as unused."""
    pre_tokenizer, bpe = tokenizer["pre_tokenizer"] or {}, tokenizer["model"]
    normalizer = own_normalizer(tokenizer["normalizer"])  # the file has none: a marker that is typed keeps its SPLITTER
    plain = {key: pre_tokenizer.get(key) for key in BYTE_LEVEL} == BYTE_LEVEL and not normalizer
    if bpe["type"] != "BPE" or bpe.get("ignore_merges") or not plain:
        raise NotExportable(
            f"tokenizer.json has model {bpe['type']}, pre_tokenizer {json.dumps(pre_tokenizer)[:200]} and normalizer "
            f"{json.dumps(normalizer)[:100]}; a GGUF file is written for a BPE after "
            f"{json.dumps(BYTE_LEVEL)} alone, without normalizer. Use transformers for this model, or train one with "
            "an empty data.tokenizer"
        )
    tokens = [f"[unused {index}]" for index in range(config.vocab_size)]
    types = [gguf.TokenType.UNUSED] * config.vocab_size
    for token, index in bpe["vocab"].items():
        tokens[index], types[index] = token, gguf.TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]], types[added["id"]] = added["content"], kind
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in bpe["merges"]])
    writer.add_add_bos_token(False)


def write_chat(writer: gguf.GGUFWriter, folder: Path) -> None:
    """Special ids and the chat template."""
    ids = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer.add_bos_token_id(ids["bos_token_id"])
    writer.add_eos_token_id(ids["eos_token_id"])
    writer.add_pad_token_id(ids["pad_token_id"])
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    writer.add_chat_template(GENERATION_TAGS.sub("", template))


def named_tensors(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """All weights under llama.cpp's names. The experts of a layer stay stacked; an output head that is the embedding
    table is not written twice."""
    arch = gguf.MODEL_ARCH.QWEN3 if model.config.dense else gguf.MODEL_ARCH.QWEN3MOE
    names = gguf.get_tensor_name_map(arch, model.config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        parts = {name.removesuffix(".weight"): tensor}
        if name.endswith(".gate_up_proj"):
            prefix = name.removesuffix("gate_up_proj")
            gate_EFD, up_EFD = tensor.chunk(2, dim=1)
            parts = {f"{prefix}gate_proj": gate_EFD, f"{prefix}up_proj": up_EFD}
        for key, part in parts.items():
            known = names.get_name(key if key.startswith("lm_head") else f"model.{key}")
            if known is None:
                raise NotExportable(f"the package gguf has no name for {key}; install the version of constraints.txt")
            yield f"{known}.weight", part


def array_of(name: str, tensor: Tensor, precision: Precision) -> np.ndarray:
    """The numbers of a tensor, under its name in the file, in the type that they are written in."""
    exact: np.ndarray = tensor.contiguous().numpy()
    if precision == "fp32" or exact.ndim < 2 or name.endswith("ffn_gate_inp.weight"):
        return exact
    largest, limit = float(np.abs(exact).max()), float(np.finfo(np.float16).max)
    if not largest <= limit:
        raise NotExportable(f"{name} goes up to {largest:.3g}, fp16 to {limit:.3g}; write it with precision fp32")
    return exact.astype(np.float16)
