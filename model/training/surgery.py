"""Changing the experts of a model in training: out of a dense one, fewer of them, more of them.

Each function returns a new state and leaves the given one as it is. The optimizer's moments go the way of the weights
they belong to. Shapes: L = layers, E = experts, N = tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config.checks import require
from model.config.network import ModelConfig
from model.config.optim import OptimConfig
from model.config.phases import Phase, growing_obstacles, upcycling_obstacles
from model.config.training import TrainConfig
from model.experts.losses import expert_counts
from model.experts.mixture import RoutedExperts, SparseMoE
from model.experts.router import Routing
from model.network.transformer import Transformer
from model.optim.groups import build_optimizer
from model.training.batches import Batch
from model.training.scoring import evaluating
from model.training.state import TrainState

STACKED = (".mlp.gate.weight", ".mlp.gate.e_score_correction_bias", ".experts.gate_up_proj", ".experts.down_proj")
"""Ends of the names of what has one entry per expert."""
Origin = tuple[tuple[str, ...], Callable[..., Tensor]]
"""Names of the old tensors that a new one is made of, and how; without names it begins afresh."""


def begin_phase(
    state: TrainState, phase: Phase, batches: Sequence[Batch], config: TrainConfig, tokens_per_step: int = 0
) -> TrainState:
    """Make the change that `phase` begins with; load and importance of experts are measured on `batches`.

    The result depends on the arguments alone: optimizer and seed are those of `config`, `tokens_per_step` is as in
    `build_optimizer`. Raises ValueError if the model of `state` does not allow the change.
    """
    optim, wanted = config.optim, phase.model.num_experts
    if phase.change is None:
        return state
    if phase.change.kind == "upcycle":
        return upcycle(state, phase.model, optim, tokens_per_step, seed=config.seed)
    if phase.change.kind == "prune":
        return prune(state, expert_importance(state.model, batches), wanted, optim, tokens_per_step)
    if phase.change.kind == "merge":
        return merge(state, expert_load(state.model, batches), wanted, optim, tokens_per_step)
    while (experts := state.model.config.num_experts) < wanted:
        load_LE = expert_load(state.model, batches)
        state = grow(state, load_LE, optim, tokens_per_step, seed=config.seed + experts)
    return state


def rebuilt(
    state: TrainState, config: ModelConfig, origin: Callable[[str], Origin], optim: OptimConfig,
    tokens_per_step: int = 0, seed: int = 0,
) -> TrainState:  # fmt: skip
    """`state` with a model of `config`, whose tensors and their moments are made of the old ones as `origin` says.

    What has no origin is drawn from the seed, and has no moments yet. `optim` and `tokens_per_step` as in
    `build_optimizer`.
    """
    model = Transformer(config, seed).to(state.model.embed_tokens.weight.device)
    old, new = state.model.state_dict(), model.state_dict()
    for name in new:
        names, make = origin(name)
        if names:
            new[name] = make(*(old[source] for source in names))
    model.load_state_dict(new, strict=True)
    optimizer = build_optimizer(model, optim, tokens_per_step)
    owners = dict(state.model.named_parameters())
    for name, parameter in model.named_parameters():
        names, make = origin(name)
        moments = [state.optimizer.state.get(owners[source], {}) for source in names]
        if moments and moments[0]:
            optimizer.state[parameter] = {
                key: make(*(of_one[key] for of_one in moments)) if value.dim() else value.clone()
                for key, value in moments[0].items()
            }  # a number counts the updates, the same for all that one is made of
    return replace(state, model=model, optimizer=optimizer)


def upcycle(
    state: TrainState, config: ModelConfig, optim: OptimConfig, tokens_per_step: int = 0, seed: int = 0
) -> TrainState:
    """A mixture in which every expert begins as a copy of the dense model's block, moments too (arXiv 2212.05055).

    `config` is that of the mixture, `optim` and `tokens_per_step` are as in `build_optimizer`. Renormalised weights of
    equal experts give the block back, so the new model computes what the dense one did. Routers are drawn from the
    seed; their choices are what makes experts differ. Raises ValueError if the shapes or the gate do not allow it.
    """
    require(upcycling_obstacles(state.model.config, config), "upcycle")

    def copies(*parts: Tensor) -> Tensor:
        return torch.cat(parts).repeat(config.num_experts, 1, 1)

    def origin(name: str) -> Origin:
        block, _, part = name.rpartition(".experts.")
        if block:
            parts = ("gate_proj", "up_proj") if part == "gate_up_proj" else ("down_proj",)
            return tuple(f"{block}.{of_block}.weight" for of_block in parts), copies
        return () if ".mlp.gate." in name else (name,), torch.clone

    return rebuilt(state, config, origin, optim, tokens_per_step, seed)


def expert_load(model: Transformer, batches: Iterable[Batch]) -> Tensor:
    """How many real tokens each expert gets, (L, E) int64."""
    load_LE = torch.zeros(model.config.num_hidden_layers, model.config.num_experts, dtype=torch.int64)
    with evaluating(model):
        for batch in batches:
            _, routing = model.hidden(batch.ids_BT, batch.segment_BT)
            load_LE += expert_counts(routing, batch.real_N, model.config.num_experts).cpu()
    return load_LE


def expert_importance(model: Transformer, batches: Iterable[Batch]) -> Tensor:
    """What each expert adds to the residual stream, (L, E): gate weight x norm of its output, over real tokens."""
    mixtures = [block.mlp for block in model.layers if isinstance(block.mlp, SparseMoE)]
    importance_LE = torch.zeros(len(mixtures), model.config.num_experts, dtype=torch.float64)
    real_N = torch.zeros(0, dtype=torch.bool)

    def add_norms(layer: int, mixture: SparseMoE, inputs: tuple[Tensor], output: tuple[Tensor, Routing]) -> None:
        norms_NE = output_norms(mixture.experts, inputs[0].flatten(0, 1), output[1])
        importance_LE[layer] += norms_NE[real_N].sum(dim=0).double().cpu()

    handles = [mixture.register_forward_hook(partial(add_norms, layer)) for layer, mixture in enumerate(mixtures)]
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
    """Gate weight x norm of the output of each expert for each token routed to it, else 0: (N, E)."""
    norms_NE = torch.zeros(len(x_ND), experts.num_experts, device=x_ND.device)
    for expert in range(experts.num_experts):
        tokens, choice = torch.where(routing.experts_NK == expert)
        gate, up = F.linear(x_ND[tokens], experts.gate_up_proj[expert]).chunk(2, dim=-1)
        out = F.linear(F.silu(gate) * up, experts.down_proj[expert])
        norms_NE[tokens, expert] = routing.weights_NK[tokens, choice] * out.norm(dim=-1)
    return norms_NE


def top_experts(values_LE: Tensor, count: int, top_k: int) -> Tensor:
    """The `count` experts of each layer with the highest values, ascending (L, count).

    Raises ValueError unless `count` lies between the `top_k` experts of a token and those there are.
    """
    if not top_k <= count <= values_LE.shape[1]:
        raise ValueError(f"{count} experts cannot stay: a token takes {top_k}, there are {values_LE.shape[1]}")
    return values_LE.topk(count, dim=-1).indices.sort(dim=-1).values


def with_changed_experts(
    state: TrainState, num_experts: int, change: Callable[[int, Tensor], Tensor], optim: OptimConfig,
    tokens_per_step: int,
) -> TrainState:  # fmt: skip
    """`state` with `num_experts` experts: tensors with one entry per expert went through `change(layer, tensor)`.

    `optim` and `tokens_per_step` as in `build_optimizer`.
    """

    def origin(name: str) -> Origin:
        return (name,), partial(change, int(name.split(".")[1])) if name.endswith(STACKED) else torch.clone

    return rebuilt(state, replace(state.model.config, num_experts=num_experts), origin, optim, tokens_per_step)


def prune(
    state: TrainState, importance_LE: Tensor, num_experts: int, optim: OptimConfig, tokens_per_step: int = 0
) -> TrainState:
    """The `num_experts` most important experts of each layer by `importance_LE`, in their old order.

    A model that could be exported still can. `optim` and `tokens_per_step` as in `build_optimizer`. Raises ValueError
    as `top_experts` does.
    """
    kept_LK = top_experts(importance_LE, num_experts, state.model.config.num_experts_per_tok)

    def kept(layer: int, tensor: Tensor) -> Tensor:
        return tensor[kept_LK[layer]]

    return with_changed_experts(state, num_experts, kept, optim, tokens_per_step)


def merge(
    state: TrainState, load_LE: Tensor, num_experts: int, optim: OptimConfig, tokens_per_step: int = 0
) -> TrainState:
    """The `num_experts` busiest experts of each layer, each the mean, by `load_LE`, of itself and those nearest to it.

    Near are experts with similar router rows. Source: arXiv 2310.01334, without its alignment of neurons. `optim` and
    `tokens_per_step` as in `build_optimizer`. Raises ValueError as `top_experts` does.
    """
    gates = [block.mlp.gate.weight for block in state.model.layers if isinstance(block.mlp, SparseMoE)]
    busiest_LK = top_experts(load_LE, num_experts, state.model.config.num_experts_per_tok)
    shares = []
    for gate_ED, load_E, kept_K in zip(gates, load_LE.double(), busiest_LK, strict=True):
        rows_ED = F.normalize(gate_ED.detach().double().cpu(), dim=-1)
        nearest_E = (rows_ED @ rows_ED[kept_K].T).argmax(dim=-1)
        nearest_E[kept_K] = torch.arange(num_experts)
        weight_KE = F.one_hot(nearest_E, num_experts).T * load_E.clamp(min=1e-9)
        shares.append(weight_KE / weight_KE.sum(dim=-1, keepdim=True))

    def mean(layer: int, tensor: Tensor) -> Tensor:
        return torch.einsum("ke,e...->k...", shares[layer].to(tensor.device), tensor.double()).to(tensor.dtype)

    return with_changed_experts(state, num_experts, mean, optim, tokens_per_step)


def grow(
    state: TrainState, load_LE: Tensor, optim: OptimConfig, tokens_per_step: int = 0, noise_std: float = 0.01,
    seed: int = 0,
) -> TrainState:  # fmt: skip
    """One more expert in each layer: a clone of the busiest by `load_LE`, with its router row and optimizer state.

    Noise from `seed`, `noise_std` times the spread of the clone's router row, makes the two rows differ. Tokens that
    went to the one may now go to both, and lose their second choice for a while: look at the loss before and after.
    `optim` and `tokens_per_step` as in `build_optimizer`. Groups of experts cannot grow by one; ValueError.
    """
    require(growing_obstacles(state.model.config), "grow")
    busiest_L = load_LE.argmax(dim=-1)
    generator = torch.Generator().manual_seed(seed)

    def cloned(layer: int, tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor[busiest_L[layer], None]])

    grown = with_changed_experts(state, state.model.config.num_experts + 1, cloned, optim, tokens_per_step)
    with torch.no_grad():
        for block in grown.model.layers:
            if isinstance(block.mlp, SparseMoE):
                row_D = block.mlp.gate.weight[-1]
                row_D += noise_std * row_D.std() * torch.randn(row_D.shape, generator=generator).to(row_D.device)
    return grown
