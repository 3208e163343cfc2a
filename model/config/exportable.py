"""What a Qwen3-MoE reader cannot express, and the nearest choice that it can.

transformers would load some of it, but a model is exported for every engine: llama.cpp's `qwen3moe` has a softmax,
renormalises always, and has neither a bias, nor groups, nor shared experts.
"""

from __future__ import annotations

from model.config.network import ModelConfig


def export_obstacles(config: ModelConfig) -> list[str]:
    """Why a model of this configuration cannot be exported, setting by setting; nothing if it can.

    A router's bias is none while it is zero: see `model.exchange.export`.
    """
    if config.dense:
        return []
    obstacles = []
    if config.gate != "softmax":
        obstacles.append(f"gate ({config.gate}): readers compute a softmax; the nearest is gate: softmax")
    if not config.norm_topk_prob:
        top_k = max(2, config.num_experts_per_tok)
        obstacles.append(
            f"norm_topk_prob (false) with num_experts_per_tok ({config.num_experts_per_tok}): some readers renormalise "
            f"always; the nearest is norm_topk_prob: true with num_experts_per_tok: {top_k}"
        )
    if config.num_groups_per_tok < config.num_expert_groups:
        obstacles.append(
            f"num_groups_per_tok ({config.num_groups_per_tok}) of num_expert_groups ({config.num_expert_groups}): "
            "readers choose among all experts; the nearest is num_expert_groups: 1"
        )
    if config.num_shared_experts:
        obstacles.append(
            f"num_shared_experts ({config.num_shared_experts}): readers have none; the nearest is num_experts_per_tok: "
            f"{config.num_experts_per_tok + config.num_shared_experts} without shared ones"
        )
    return obstacles
