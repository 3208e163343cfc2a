"""Implementations that `benchmarks/generation/generate.py` compares: each builds a function from prompts to new ids.

All have the same weights, those of one exported folder, and choose greedily; none may stop early.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.training.ways import minimind_config, minimind_module
from model.config.sampling import Sampling
from model.exchange.hugging_face import import_hugging_face
from model.generation.generate import generate

Prompts = list[list[int]]
Generate = Callable[[Prompts, int], list[list[int]]]
"""Prompts of one length and how many ids to add → those ids."""
Build = Callable[[Path, Path | None], Generate]


@dataclass(frozen=True)
class Way:
    build: Build
    needs_minimind: bool = False


def our_way(dtype: torch.dtype = torch.float32) -> Build:
    def build(folder: Path, _: Path | None) -> Generate:
        model = import_hugging_face(folder).to(dtype)

        def run(prompts: Prompts, count: int) -> list[list[int]]:
            return generate(model, prompts, Sampling(max_new_tokens=count, temperature=0.0))

        return run

    return build


def transformers_way(attention: str, experts: str, dtype: torch.dtype = torch.float32) -> Build:
    """`generate` of the exported folder with its cache of keys and values."""

    def build(folder: Path, _: Path | None) -> Generate:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention).eval()
        model.set_experts_implementation(experts)
        model.generation_config.eos_token_id = None

        def run(prompts: Prompts, count: int) -> list[list[int]]:
            ids_BT = torch.tensor(prompts)
            with torch.inference_mode():
                found_BT = model.generate(
                    ids_BT, attention_mask=torch.ones_like(ids_BT), max_new_tokens=count, do_sample=False,
                    temperature=None, top_p=None, use_cache=True,
                )  # fmt: skip
            added: list[list[int]] = found_BT[:, ids_BT.shape[1] :].tolist()
            return added

        return run

    return build


def minimind_way(dtype: torch.dtype = torch.float32) -> Build:
    """MiniMind's own `generate` and cache; its parameter names are those of the exported file."""

    def build(folder: Path, checkout: Path | None) -> Generate:
        module = minimind_module(checkout)
        network = module.MiniMindForCausalLM(minimind_config(module, import_hugging_face(folder).config))
        weights = load_file(folder / "model.safetensors")
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
        network.load_state_dict(weights)
        network = network.to(dtype).eval()

        def run(prompts: Prompts, count: int) -> list[list[int]]:
            found_BT = network.generate(
                torch.tensor(prompts), max_new_tokens=count, do_sample=False, temperature=1.0, top_k=0, top_p=1.0,
                eos_token_id=None,
            )  # fmt: skip
            added: list[list[int]] = found_BT[:, len(prompts[0]) :].tolist()
            return added

        return run

    return build


WAYS = {
    "ours": Way(our_way()),
    "ours bf16": Way(our_way(torch.bfloat16)),
    "transformers sdpa, eager": Way(transformers_way("sdpa", "eager")),
    "transformers sdpa, grouped_mm": Way(transformers_way("sdpa", "grouped_mm")),
    "transformers eager, grouped_mm": Way(transformers_way("eager", "grouped_mm")),
    "transformers bf16": Way(transformers_way("sdpa", "grouped_mm", torch.bfloat16)),
    "MiniMind": Way(minimind_way(), needs_minimind=True),
    "MiniMind bf16": Way(minimind_way(torch.bfloat16), needs_minimind=True),
}
"""transformers by its attention and its way to compute experts; in fp32 where nothing else is said."""
