from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from model.config.network import ModelConfig
from model.config.optim import OptimConfig
from model.config.phases import phases
from model.config.training import ExpertChange
from model.exchange.export import export_folder
from model.experts.losses import expert_counts
from model.network.transformer import Transformer
from model.optim.groups import build_optimizer
from model.training.state import TrainState
from model.training.surgery import begin_phase, expert_importance, expert_load, grow, merge, prune, upcycle
from model.training.trainer import train
from tests.model.tiny import batch_of, packed_rows, tiny_config, tiny_training
from tests.reference.moe import swiglu

OPTIM = OptimConfig()
IDS = torch.randint(3, 300, (3, 20), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def apart(one: Transformer, other: Transformer) -> float:
    return float((one(IDS) - other(IDS)).abs().max())


def untrained(model: Transformer) -> TrainState:
    return TrainState(model, build_optimizer(model, OPTIM))


def trained(config: ModelConfig, optimizer: str) -> TrainState:
    """After three steps, so that there are moments."""
    training = replace(tiny_training(), optim=OptimConfig(name=optimizer))
    state = TrainState.create(config, training)
    list(islice(train(state, packed_rows(), training), 3))
    return state


def moments_of(state: TrainState, name: str) -> dict[str, torch.Tensor]:
    """A weight and what the optimizer keeps of it, but for counts of steps."""
    parameter = dict(state.model.named_parameters())[name]
    kept = {key: value for key, value in state.optimizer.state[parameter].items() if value.shape == parameter.shape}
    assert kept
    return kept | {"weight": parameter.detach()}


def dense_model(width: int = 16) -> Transformer:
    return Transformer(tiny_config(dense=True, num_experts_per_tok=1, moe_intermediate_size=width), seed=1)


@pytest.mark.parametrize("changes", [{}, {"num_experts": 6, "num_experts_per_tok": 3}, {"gate": "sparsemax"}])
def test_upcycling_computes_what_the_dense_model_did(changes: dict) -> None:
    dense = dense_model()
    mixture = upcycle(untrained(dense), tiny_config(**changes), OPTIM).model
    with torch.no_grad():
        assert (dense(IDS) - mixture(IDS)).abs().max() < 1e-5 * dense(IDS).abs().max()
    assert apart(dense, Transformer(tiny_config(**changes), seed=1)) > 0.1
    gates = [block.mlp.gate.weight for block in mixture.layers]
    assert all(gate.std() > 0.1 for gate in gates), "equal routers would never tell experts apart"


@pytest.mark.parametrize(
    ("dense", "changes", "message"),
    [
        (dense_model(24), {}, r"moe_intermediate_size \(16\).*\(24\)"),
        (dense_model(), {"norm_topk_prob": False}, "norm_topk_prob"),
        (dense_model(), {"num_shared_experts": 1}, "shared"),
        (dense_model(), {"dense": True}, "to a mixture"),
        (Transformer(tiny_config()), {}, "from a dense"),
    ],
)  # fmt: skip
def test_upcycling_that_would_change_the_function_is_refused(dense: Transformer, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        upcycle(untrained(dense), tiny_config(**changes), OPTIM)


def test_importance_is_gate_weight_times_norm_of_output_over_real_tokens() -> None:
    model, batch = Transformer(tiny_config(num_hidden_layers=1), seed=2), batch_of(3)
    found = expert_importance(model, [batch, batch])
    block = model.layers[0]
    seen = []
    handle = block.mlp.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output[1])))
    with torch.no_grad():
        model.hidden(batch.ids_BT, batch.segment_BT)
    handle.remove()
    x_ND, routing = seen[0][0].flatten(0, 1), seen[0][1]
    expected = [0.0] * 4
    for token, is_real in enumerate(batch.real_N.tolist()):
        for weight, expert in zip(routing.weights_NK[token], routing.experts_NK[token].tolist(), strict=True):
            out = swiglu(x_ND[token], block.mlp.experts.gate_up_proj[expert], block.mlp.experts.down_proj[expert])
            expected[expert] += 2 * is_real * float((weight * out.norm()).detach())
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-4)
    assert not batch.real_N.all()


def test_pruning_keeps_the_most_important_in_their_order_and_still_exports(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = Transformer(tiny_config(vocab_size=340), seed=3)
    importance = expert_importance(model, [batch_of(6)])
    pruned = prune(untrained(model), importance, 3, OPTIM).model
    assert pruned.config.num_experts == 3
    for layer, (before, after) in enumerate(zip(model.layers, pruned.layers, strict=True)):
        kept = sorted(importance[layer].topk(3).indices.tolist())
        for name in ("gate_up_proj", "down_proj"):
            assert torch.equal(getattr(after.mlp.experts, name), getattr(before.mlp.experts, name)[kept])
        assert torch.equal(after.mlp.gate.weight, before.mlp.gate.weight[kept])
    export_folder(pruned, tokenizer, tmp_path)
    published = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        assert (published(IDS).logits - pruned(IDS)).abs().max() < 1e-4


@pytest.mark.parametrize("count", [1, 5])
def test_too_few_or_too_many_experts_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=rf"^{count} experts.*takes 2, there are 4"):
        prune(untrained(Transformer(tiny_config())), torch.ones(2, 4), count, OPTIM)


@torch.no_grad()
def test_merging_twins_leaves_one_of_each_pair() -> None:
    model = Transformer(tiny_config(), seed=4)
    for block in model.layers:
        for tensor in (block.mlp.gate.weight, block.mlp.experts.gate_up_proj, block.mlp.experts.down_proj):
            tensor[2:] = tensor[:2]
    load_LE = torch.tensor([[9.0, 2.0, 1.0, 8.0], [1.0, 2.0, 5.0, 7.0]])
    merged = merge(untrained(model), load_LE, 2, OPTIM).model
    for before, after in zip(model.layers, merged.layers, strict=True):
        for one, other in zip(before.mlp.parameters(), after.mlp.parameters(), strict=True):
            found, expected = (sorted(t.flatten(1).sum(dim=1).tolist()) for t in (other, one[:2]))
            assert found == pytest.approx(expected, rel=1e-5)


def test_merged_experts_are_means_by_load() -> None:
    model = Transformer(tiny_config(num_hidden_layers=1), seed=5)
    with torch.no_grad():
        gate = model.layers[0].mlp.gate.weight
        gate[3] = 2 * gate[1]  # the same direction
    merged = merge(untrained(model), torch.tensor([[5.0, 3.0, 4.0, 1.0]]), 3, OPTIM).model
    before, after = (m.layers[0].mlp.experts.down_proj for m in (model, merged))
    torch.testing.assert_close(after[1], (3 * before[1] + before[3]) / 4)
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[2], before[2])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_growing_clones_the_busiest_expert_with_its_optimizer_state(optimizer: str) -> None:
    config = tiny_training()
    optim = type(config.optim)(name=optimizer)
    config = type(config)(**config.__dict__ | {"optim": optim})
    state = TrainState.create(tiny_config(), config)
    step = list(islice(train(state, packed_rows(), config), 3))[-1]
    grown = grow(state, torch.tensor(step.counts_LE), optim, noise_std=0.0)
    assert grown.model.config.num_experts == 5
    new = dict(grown.model.named_parameters())
    for name, before in state.model.named_parameters():
        after = new[name]
        is_stacked = ".mlp." in name
        if is_stacked:
            busiest = int(step.counts_LE[int(name.split(".")[1])].argmax())
        for one, other in [(before, after)] + [
            (value, grown.optimizer.state[after][key])
            for key, value in state.optimizer.state[before].items()
            if value.shape == before.shape
        ]:
            if is_stacked:
                assert torch.equal(other[:4], one)
                assert torch.equal(other[4], one[busiest])
            else:
                assert torch.equal(other, one)
    more = list(train(grown, packed_rows(), config))
    assert [step.number for step in more] == [4, 5, 6]
    assert more[-1].counts_LE.shape == (2, 5)


def test_noise_tells_the_clone_from_its_original() -> None:
    config = tiny_training()
    state = TrainState.create(tiny_config(), config)
    list(islice(train(state, packed_rows(), config), 1))
    gate = grow(state, torch.ones(2, 4), config.optim, noise_std=0.1).model.layers[0].mlp.gate.weight
    assert 0 < (gate[4] - gate[0]).abs().max() < gate[0].abs().max()


def test_groups_cannot_grow_by_one() -> None:
    state = TrainState.create(tiny_config(num_expert_groups=2, num_groups_per_tok=2), tiny_training())
    with pytest.raises(ValueError, match=r"num_expert_groups \(2\)"):
        grow(state, torch.ones(2, 4), tiny_training().optim)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_upcycled_expert_has_the_moments_of_the_block_and_a_router_none(optimizer: str) -> None:
    state = trained(tiny_config(dense=True, num_experts_per_tok=1), optimizer)
    mixture = upcycle(state, tiny_config(num_experts=3), replace(OPTIM, name=optimizer))
    for layer in ("layers.0", "layers.1"):
        gate, up, down = (moments_of(state, f"{layer}.mlp.{part}_proj.weight") for part in ("gate", "up", "down"))
        of_up, of_down = (moments_of(mixture, f"{layer}.mlp.experts.{part}_proj") for part in ("gate_up", "down"))
        for expert in range(3):
            assert all(torch.equal(of_up[key][expert], torch.cat([gate[key], up[key]])) for key in gate)
            assert all(torch.equal(of_down[key][expert], down[key]) for key in down)
    routers = [block.mlp.gate.weight for block in mixture.model.layers]
    assert not any(router in mixture.optimizer.state for router in routers)
    goes_on(mixture, optimizer, (2, 3))
    assert all(mixture.optimizer.state[router] for router in routers)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_pruned_and_merged_experts_take_their_moments_along(optimizer: str) -> None:
    optim, state = replace(OPTIM, name=optimizer), trained(tiny_config(router_bias=True), optimizer)
    with torch.no_grad():
        for block in state.model.layers:
            block.mlp.gate.weight[3] = 2 * block.mlp.gate.weight[1]  # the same direction
    load_LE = torch.tensor([[5, 3, 4, 1], [6, 9, 7, 3]])
    pruned, merged = prune(state, load_LE, 3, optim), merge(state, load_LE, 3, optim)
    for name, _ in state.model.named_parameters():
        before, kept, mean = (moments_of(of, name) for of in (state, pruned, merged))
        for key, old in before.items():
            if ".mlp." in name:
                assert torch.equal(kept[key], old[:3])
                assert torch.equal(mean[key][[0, 2]], old[[0, 2]])
                torch.testing.assert_close(mean[key][1], (3 * old[1] + old[3]) / 4)
            else:
                assert torch.equal(kept[key], old)
                assert torch.equal(mean[key], old)
    biases = [block.mlp.gate.e_score_correction_bias for block in state.model.layers]
    kept_biases = [block.mlp.gate.e_score_correction_bias for block in pruned.model.layers]
    assert all(torch.equal(kept, bias[:3]) and bias.any() for kept, bias in zip(kept_biases, biases, strict=True))
    for changed in (pruned, merged):
        goes_on(changed, optimizer, (2, 3))


def goes_on(state: TrainState, optimizer: str, shape: tuple[int, int]) -> None:
    """Training takes up where it was, with the counts of steps that moments are corrected by."""
    embedding = state.optimizer.state[state.model.embed_tokens.weight]
    assert embedding["step"] == state.step == 3
    config = replace(tiny_training(), optim=OptimConfig(name=optimizer))
    more = list(train(state, packed_rows(), config))
    assert [step.number for step in more] == [4, 5, 6]
    assert more[-1].counts_LE.shape == shape


def test_the_load_counts_real_tokens_of_all_batches() -> None:
    model, batches = Transformer(tiny_config(), seed=6), [batch_of(3), batch_of(5)]
    with torch.no_grad():
        routed = [(model.hidden(batch.ids_BT, batch.segment_BT)[1], batch.real_N) for batch in batches]
    expected = sum(expert_counts(routing, real_N, 4) for routing, real_N in routed)
    found = expert_load(model, batches)
    assert torch.equal(found, expected)
    assert found.sum() == 2 * 2 * sum(int(batch.real_N.sum()) for batch in batches)


@pytest.mark.parametrize("kind", ["upcycle", "grow", "prune", "merge"])
def test_a_change_depends_on_state_and_rows_alone_and_leaves_both(kind: str) -> None:
    wanted = tiny_config(num_experts=4)
    before = {"upcycle": None, "grow": 2, "prune": 6, "merge": 6}[kind]
    begin, end = phases(wanted, (ExpertChange(kind=kind, at_share=0.5, num_experts_before=before),), 6)
    state, training = trained(begin.model, "adamw"), tiny_training()
    names = [name for name, _ in state.model.named_parameters()]
    old = {name: {key: value.clone() for key, value in moments_of(state, name).items()} for name in names}
    one, two = (begin_phase(state, end, [batch_of(4)], training) for _ in range(2))
    assert one.model.config == wanted
    for name, weight in one.model.state_dict().items():
        assert torch.equal(weight, two.model.state_dict()[name])
    for name in names:
        assert all(torch.equal(value, old[name][key]) for key, value in moments_of(state, name).items())
    assert begin_phase(state, begin, [], training) is state


def test_experts_that_grow_at_once_are_not_the_same() -> None:
    begin, end = phases(tiny_config(), (ExpertChange(kind="grow", at_share=1.0, num_experts_before=2),), 6)
    grown = begin_phase(trained(begin.model, "adamw"), end, [batch_of(4)], tiny_training())
    for block in grown.model.layers:
        assert len({tuple(row) for row in block.mlp.gate.weight.tolist()}) == 4
