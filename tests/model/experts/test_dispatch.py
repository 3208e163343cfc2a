from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.experts.dispatch import CPU_SIZES_OF_GROUPS, Combine, Dispatch, Places, group_multiple


def random_choices(num_tokens: int, num_experts: int, top_k: int, seed: int) -> torch.Tensor:
    """Distinct experts for each token, the first ones far more often than the last."""
    generator = torch.Generator().manual_seed(seed)
    liking = torch.rand(num_tokens, num_experts, generator=generator) - 0.3 * torch.arange(num_experts)
    return liking.topk(top_k).indices


@given(st.integers(1, 900), st.integers(1, 5), st.data(), st.booleans(), st.integers(0, 99))
def test_every_choice_has_a_place_of_its_own_in_its_experts_group(
    num_tokens: int, num_experts: int, data: st.DataObject, skips_some: bool, seed: int
) -> None:
    experts_NK = random_choices(num_tokens, num_experts, data.draw(st.integers(1, num_experts)), seed)
    if skips_some:
        experts_NK[::3, -1] = num_experts
    places = Places.of(experts_NK, num_experts, skips_some=skips_some)
    chosen, place, ends = experts_NK.flatten().tolist(), places.place_NK.flatten().tolist(), places.ends_E.tolist()
    assert len(set(place)) == len(place)
    starts, behind = [0, *ends], [*ends, len(places.choice_P)]
    assert all(starts[expert] <= at < behind[expert] for expert, at in zip(chosen, place, strict=True))
    assert places.choice_P[place].tolist() == list(range(len(place)))
    assert places.is_choice_P.nonzero().flatten().tolist() == sorted(place)
    by_place = sorted(range(len(place)), key=lambda choice: place[choice])
    assert by_place == sorted(range(len(place)), key=lambda choice: (chosen[choice], choice))
    assert places.num_computed == ends[-1]
    assert skips_some or ends[-1] == len(places.choice_P)
    multiple = group_multiple(len(place) // num_experts)
    assert all(end % multiple == 0 for end in ends[:-1])
    assert len(places.choice_P) - len(place) <= len(place) / CPU_SIZES_OF_GROUPS


def test_groups_of_many_steps_have_few_sizes() -> None:
    sizes = set()
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        experts_NK = torch.rand(4_096, 8, generator=generator).topk(2).indices
        places = Places.of(experts_NK, 8, skips_some=False)
        sizes |= set(places.ends_E.diff(prepend=torch.zeros(1, dtype=torch.int32)).tolist())
    assert len(sizes) < 30, "of 320 groups"


@pytest.mark.parametrize("num_tokens", [3, 200])
def test_dispatch_and_combine_are_the_gradients_of_indexing(num_tokens: int) -> None:
    generator = torch.Generator().manual_seed(0)
    experts_NK = random_choices(num_tokens, 4, 3, seed=1)
    places = Places.of(experts_NK, 4, skips_some=False)
    x = torch.randn(num_tokens, 5, generator=generator, dtype=torch.float64).requires_grad_()
    weights = torch.rand(num_tokens, 3, generator=generator, dtype=torch.float64).requires_grad_()
    scale_PD = torch.randn(len(places.choice_P), 5, generator=generator, dtype=torch.float64)
    direction = torch.randn(num_tokens, 5, generator=generator, dtype=torch.float64)

    ours = Combine.apply(Dispatch.apply(x, places, torch.float64) * scale_PD, weights, places)
    sorted_PD = x[places.choice_P // 3] * scale_PD
    slow = (sorted_PD[places.place_NK] * weights[..., None]).sum(dim=1)
    torch.testing.assert_close(ours, slow)
    for got, expected in zip(
        torch.autograd.grad((ours * direction).sum(), [x, weights]),
        torch.autograd.grad((slow * direction).sum(), [x, weights]),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


def test_places_that_are_no_choice_get_no_gradient() -> None:
    places = Places.of(torch.randint(0, 2, (400, 1), generator=torch.Generator().manual_seed(0)), 2, skips_some=False)
    assert not places.is_choice_P.all()
    out_PD = torch.ones(len(places.choice_P), 3, requires_grad=True)
    Combine.apply(out_PD, torch.ones(400, 1), places).sum().backward()
    assert out_PD.grad is not None
    assert torch.equal(out_PD.grad.any(dim=1), places.is_choice_P)
