"""Changing the experts of a trained model: out of a dense one, fewer of them, more of them.

Each function returns a new model and leaves the given one as it is. Shapes: L = layers, E = experts, N = tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from model.batches import Batch
from model.config import ModelConfig
from model.evaluate import evaluating
from model.moe import RoutedExperts, SparseMoE
from model.optim import build_optimizer
from model.optim_config import OptimConfig
from model.router import Routing
from model.trainer import TrainState
from model.transformer import Transformer

STACKED = (".mlp.gate.weight", ".mlp.gate.e_score_correction_bias", ".experts.gate_up_proj", ".experts.down_proj")
"""Ends of the names of what has one entry per expert."""


def upcycle(dense: Transformer, config: ModelConfig, noise_std: float = 0.0, seed: int = 0) -> Transformer:
    """A mixture in which every expert begins as a copy of the dense model's block (arXiv 2212.05055).

    Renormalised weights of equal experts give the block back, so the new model computes what the dense one did;
    `noise_std`, relative to the spread of each weight, breaks the symmetry at the price of that. Raises ValueError if
    the shapes or the gate do not allow it.
    """
    width = dense.config.active_intermediate_size
    if not dense.config.dense or config.dense:
        raise ValueError("upcycling goes from a dense model to a mixture of experts")
    if config.moe_intermediate_size != width:
        raise ValueError(
            f"moe_intermediate_size ({config.moe_intermediate_size}) must be the width of the dense block ({width}), "
            "which each expert copies"
        )
    if not config.norm_topk_prob or config.num_shared_experts:
        raise ValueError(
            "only weights that sum to 1, without shared experts, give the dense block back: norm_topk_prob"
        )
    mixture = Transformer(config, seed=seed)
    state = dense.state_dict()
    for layer in range(config.num_hidden_layers):
        block = f"layers.{layer}.mlp"
        gate, up, down = (state.pop(f"{block}.{part}_proj.weight") for part in ("gate", "up", "down"))
        state[f"{block}.experts.gate_up_proj"] = torch.cat([gate, up]).expand(config.num_experts, -1, -1)
        state[f"{block}.experts.down_proj"] = down.expand(config.num_experts, -1, -1)
    routers = {name: tensor for name, tensor in mixture.state_dict().items() if ".mlp.gate." in name}
    generator = torch.Generator().manual_seed(seed)
    for name in [name for name in state if ".experts." in name] if noise_std else ():
        noise = torch.randn(state[name].shape, generator=generator).to(state[name].device)
        state[name] = state[name] + noise_std * state[name].std() * noise
    mixture.load_state_dict(state | routers, strict=True)
    return mixture


def expert_importance(model: Transformer, batches: Iterable[Batch]) -> Tensor:
    """What each expert adds to the residual stream, (L, E): gate weight x norm of its output, over real tokens."""
    mixtures = [block.mlp for block in model.layers if isinstance(block.mlp, SparseMoE)]
    importance_LE = torch.zeros(len(mixtures), model.config.num_experts, dtype=torch.float64)
    real_N = torch.zeros(0, dtype=torch.bool)

    def note(layer: int, mixture: SparseMoE, inputs: tuple[Tensor], output: tuple[Tensor, Routing]) -> None:
        norms_NE = output_norms(mixture.experts, inputs[0].flatten(0, 1), output[1])
        importance_LE[layer] += norms_NE[real_N].sum(dim=0).double().cpu()

    handles = [mixture.register_forward_hook(partial(note, layer)) for layer, mixture in enumerate(mixtures)]
    try:
        with evaluating(model):
            for batch in batches:
                real_N = batch.real_N
                model.hidden(batch.ids_BT, batch.segment_BT)
    finally:
        for handle in handles:
            handle.remove()
    return importance_LE


def output_norms(experts: RoutedExperts, x_ND: Tensor, routing: Routing) -> Tensor:
    """Gate weight x norm of the output of each expert for each token that it got, else 0: (N, E)."""
    norms_NE = torch.zeros(len(x_ND), experts.num_experts, device=x_ND.device)
    for expert in range(experts.num_experts):
        tokens, choice = torch.where(routing.experts_NK == expert)
        gate, up = F.linear(x_ND[tokens], experts.gate_up_proj[expert]).chunk(2, dim=-1)
        out = F.linear(F.silu(gate) * up, experts.down_proj[expert])
        norms_NE[tokens, expert] = routing.weights_NK[tokens, choice] * out.norm(dim=-1)
    return norms_NE


def most(values_LE: Tensor, count: int, top_k: int) -> Tensor:
    """The `count` experts of each layer with the highest values, ascending (L, count); ValueError if it cannot be."""
    if not top_k <= count <= values_LE.shape[1]:
        raise ValueError(f"{count} experts cannot stay: a token takes {top_k}, there are {values_LE.shape[1]}")
    return values_LE.topk(count, dim=-1).indices.sort(dim=-1).values


def with_experts(model: Transformer, num_experts: int, change: Callable[[int, Tensor], Tensor]) -> Transformer:
    """A copy whose tensors that have one entry per expert went through `change(layer, tensor)`."""
    changed = Transformer(replace(model.config, num_experts=num_experts)).to(model.embed_tokens.weight.device)
    state = {
        name: change(int(name.split(".")[1]), tensor) if name.endswith(STACKED) else tensor
        for name, tensor in model.state_dict().items()
    }
    changed.load_state_dict(state, strict=True)
    return changed


def prune(model: Transformer, importance_LE: Tensor, num_experts: int) -> Transformer:
    """The `num_experts` most important experts of each layer, in their old order; what exported still does.

    Raises ValueError if that is not between the experts of a token and those there are.
    """
    kept_LK = most(importance_LE, num_experts, model.config.num_experts_per_tok)
    return with_experts(model, num_experts, lambda layer, tensor: tensor[kept_LK[layer]])


def merge(model: Transformer, load_LE: Tensor, num_experts: int) -> Transformer:
    """The `num_experts` busiest experts of each layer, each the mean, by load, of itself and those nearest to it.

    Near is what has a like router row. Source: arXiv 2310.01334, without its alignment of neurons. Raises ValueError
    as `prune` does.
    """
    gates = [block.mlp.gate.weight for block in model.layers if isinstance(block.mlp, SparseMoE)]
    busiest_LK = most(load_LE, num_experts, model.config.num_experts_per_tok)
    shares = []
    for gate_ED, load_E, kept_K in zip(gates, load_LE.double(), busiest_LK, strict=True):
        rows_ED = F.normalize(gate_ED.detach().double(), dim=-1)
        nearest_E = (rows_ED @ rows_ED[kept_K].T).argmax(dim=-1)
        nearest_E[kept_K] = torch.arange(num_experts)
        weight_KE = F.one_hot(nearest_E, num_experts).T * load_E.clamp(min=1e-9)
        shares.append(weight_KE / weight_KE.sum(dim=-1, keepdim=True))

    def mean(layer: int, tensor: Tensor) -> Tensor:
        return torch.einsum("ke,e...->k...", shares[layer], tensor.double()).to(tensor.dtype)

    return with_experts(model, num_experts, mean)


def grow(
    state: TrainState, load_LE: Tensor, config: OptimConfig, tokens_per_step: int = 0, noise_std: float = 0.01,
    seed: int = 0,
) -> TrainState:  # fmt: skip
    """One more expert in each layer: a clone of the busiest, with its router row and its optimizer state.

    Noise, relative to the spread of the router's rows, tells the two rows apart. Tokens that went to the one may now
    go to both, and lose their second choice for a while: look at the loss before and after. Groups of experts cannot
    grow by one; ValueError.
    """
    model = state.model
    if model.config.num_expert_groups > 1:
        raise ValueError(f"num_expert_groups ({model.config.num_expert_groups}): experts in groups cannot grow by one")
    busiest_L = load_LE.argmax(dim=-1)
    generator = torch.Generator().manual_seed(seed)

    def cloned(layer: int, tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor[busiest_L[layer], None]])

    grown = with_experts(model, model.config.num_experts + 1, cloned)
    with torch.no_grad():
        for block in grown.layers:
            if isinstance(block.mlp, SparseMoE):
                row_D = block.mlp.gate.weight[-1]
                row_D += noise_std * row_D.std() * torch.randn(row_D.shape, generator=generator).to(row_D.device)
    optimizer = build_optimizer(grown, config, tokens_per_step)
    new = dict(grown.named_parameters())
    for name, parameter in model.named_parameters():
        layer, is_stacked = name.split(".")[1], name.endswith(STACKED)
        optimizer.state[new[name]] = {
            key: cloned(int(layer), value) if is_stacked and value.shape == parameter.shape else value.clone()
            for key, value in state.optimizer.state[parameter].items()
        }
    return replace(state, model=grown, optimizer=optimizer)
