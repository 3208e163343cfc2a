"""A stage's configurations, derived backwards, are those that the changes make, forwards; the impossible is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config.phases import phase_after, phase_problems, phases
from model.config.training import ExpertChange
from tests.model.tiny import tiny_config

STEPS = 100


def change(kind: str, at_share: float, before: int | None = None) -> ExpertChange:
    return ExpertChange(kind=kind, at_share=at_share, num_experts_before=before)


@st.composite
def chains(draw: st.DrawFn) -> tuple[list[int], list[ExpertChange]]:
    """Numbers of experts, 0 for a dense model, and the changes from each to the next."""
    experts = draw(st.lists(st.integers(2, 6), min_size=1, max_size=4))
    experts = [n for n, before in zip(experts, [0, *experts], strict=False) if n != before]
    if draw(st.booleans()):
        experts.insert(0, 0)
    steps = sorted(draw(st.sets(st.integers(1, STEPS), min_size=len(experts) - 1, max_size=len(experts) - 1)))
    changes = []
    for (before, after), step in zip(pairwise(experts), steps, strict=True):
        fewer = draw(st.sampled_from(["prune", "merge"]))
        kind = "upcycle" if not before else "grow" if after > before else fewer
        changes.append(change(kind, step / STEPS, before or None))
    return experts, changes


@settings(max_examples=60)
@given(chains(), st.sampled_from([2, 3]))
def test_phases_are_the_chain_from_its_end(chain: tuple[list[int], list[ExpertChange]], top_k: int) -> None:
    experts, changes = chain
    experts = [n + top_k - 2 if n else 0 for n in experts]
    changes = [replace(c, num_experts_before=n or None) for c, n in zip(changes, experts, strict=False)]
    final = tiny_config(num_experts=experts[-1], num_experts_per_tok=top_k)
    stage_phases = phases(final, changes, STEPS)
    assert stage_phases[-1].model == final
    assert [0 if phase.model.dense else phase.model.num_experts for phase in stage_phases] == experts
    assert [phase.change for phase in stage_phases] == [None, *changes]
    assert sum(phase.num_steps for phase in stage_phases) == STEPS
    assert [phase.first_step for phase in stage_phases[1:]] == [round(c.at_share * STEPS) for c in changes]
    for number in range(STEPS + 1):
        begun = [phase for phase in stage_phases if phase.first_step <= number]
        assert phase_after(stage_phases, number) == begun[-1]
    if not experts[0]:
        assert stage_phases[0].model.active_intermediate_size == final.moe_intermediate_size


def test_a_stage_without_changes_is_one_phase() -> None:
    (only,) = phases(tiny_config(), (), 7)
    assert (only.model, only.first_step, only.num_steps, only.change) == (tiny_config(), 0, 7, None)


def test_a_change_is_never_before_the_first_step_nor_after_the_last() -> None:
    first, last = change("prune", 0.001, 8), change("grow", 1.0, 3)
    stage_phases = phases(tiny_config(num_experts=6), (first, last), 10)
    assert [(phase.first_step, phase.num_steps) for phase in stage_phases] == [(0, 1), (1, 9), (10, 0)]


def test_a_phase_says_what_it_begins_with() -> None:
    stage_phases = phases(tiny_config(), (change("upcycle", 0.2), change("prune", 0.5, 6)), 2_000)
    assert [str(phase) for phase in stage_phases[1:]] == [
        "upcycle from a dense model to 6 experts at step 400",
        "prune from 6 to 4 experts at step 1,000",
    ]


@pytest.mark.parametrize(
    ("model", "changes", "problems"),
    [
        ({}, [change("prune", 0.5, 4)], [r"^0 \(prune\): num_experts_before \(4\) must be above the 4 after it"]),
        ({}, [change("merge", 0.5, 3)], [r"^0 \(merge\): num_experts_before \(3\) must be above the 4 after it"]),
        ({}, [change("grow", 0.5, 4)], [r"^0 \(grow\): num_experts_before \(4\) must be below the 4 after it"]),
        (
            {},
            [change("prune", 0.2, 8), change("grow", 0.5, 1)],
            [r"^1 \(grow\): before it, .*num_experts_per_tok \(2\).*num_experts \(1\)"],
        ),
        ({}, [change("grow", 0.5, 2), change("upcycle", 0.6)], [r"^1 \(upcycle\): must be the first change"]),
        ({"norm_topk_prob": False}, [change("upcycle", 0.5)], [r"^0 \(upcycle\): norm_topk_prob \(false\)"]),
        ({"num_shared_experts": 2}, [change("upcycle", 0.5)], [r"^0 \(upcycle\): num_shared_experts \(2\)"]),
        ({"dense": True}, [change("prune", 0.5, 8)], [r"^0 \(prune\): the model after it is dense"]),
        (
            {"num_expert_groups": 2, "num_groups_per_tok": 2},
            [change("grow", 0.5, 2)],
            [r"^0 \(grow\): num_expert_groups \(2\)"],
        ),
        (
            {"num_expert_groups": 2, "num_groups_per_tok": 2},
            [change("prune", 0.5, 5)],
            [r"^0 \(prune\): before it, .*num_experts \(5\) must be a multiple of num_expert_groups \(2\)"],
        ),
        (
            {},
            [change("prune", 0.5, 6), change("grow", 0.502, 2)],
            [r"^1 \(grow\) falls on step 50 of 100, not after step 50"],
        ),
        (
            {"norm_topk_prob": False},
            [change("grow", 0.6, 5), change("upcycle", 0.3), change("merge", 0.9, 2)],
            [
                r"^0 \(grow\): num_experts_before \(5\) must be below the 4 after it",
                r"^1 \(upcycle\): must be the first",
                r"^1 \(upcycle\): norm_topk_prob",
                r"^2 \(merge\): num_experts_before \(2\)",
                r"^1 \(upcycle\) falls on step 30 of 100, not after step 60",
            ],
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_reported_with_its_numbers(
    model: dict[str, Any], changes: list[ExpertChange], problems: list[str]
) -> None:
    final = tiny_config(**model)
    reported = phase_problems(final, changes, STEPS)
    assert len(reported) == len(problems)
    for problem, pattern in zip(reported, problems, strict=True):
        assert re.search(pattern, problem), problem
    with pytest.raises(ValueError, match=r"^expert_changes: ") as refused:
        phases(final, changes, STEPS)
    assert all(problem in str(refused.value) for problem in reported)
