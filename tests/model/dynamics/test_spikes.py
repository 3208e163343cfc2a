"""Spikes that are known beforehand, in noise like that of a training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.dynamics.baseline import CENTRE_STEPS, FEWEST_STEPS, SCALE_STEPS, Baseline
from model.dynamics.spikes import CALM_STEPS, PATIENCE_STEPS, Incident, Judgement, Look, SpikeDetector

STEPS, DOMAINS = 300, {"pretrain/en": 4.0, "pretrain/code": 1.2}
EXPENSIVE = "pretrain/zh"


def looks(
    seed: int, shift: Mapping[int, Mapping[str, float]] | None = None, norms: Mapping[int, float] | None = None,
    shares: Mapping[int, float] | None = None,
) -> Iterator[Look]:  # fmt: skip
    """A loss that falls with noise. By step: nats that are added to domains, factors of the norm, and the share of the
    first domain, which is a half with noise elsewhere."""
    random = np.random.default_rng(seed)
    for step in range(1, STEPS + 1):
        fall = 6 * math.exp(-step / 20) + 1
        noise, share = random.normal(0, 0.05, 3), (shares or {}).get(step, random.uniform(0.45, 0.55))
        added = (shift or {}).get(step, {})
        counts = {name: round(1_000 * part) for name, part in zip(DOMAINS, (share, 1 - share), strict=True)}
        found = {
            name: (usual * fall + its + added.get(name, 0.0), counts[name])
            for (name, usual), its in zip(DOMAINS.items(), noise, strict=False)
            if counts[name]
        } | {name: (nats, 500) for name, nats in added.items() if name not in DOMAINS}
        total = sum(count for _, count in found.values())
        loss = sum(nats * count for nats, count in found.values()) / total
        yield Look(step, loss, math.exp(noise[2] * 4) * (norms or {}).get(step, 1.0), found)


def incidents(all_looks: Iterator[Look]) -> list[Incident]:
    detector = SpikeDetector()
    return [found for look in all_looks if (found := detector.add(look))]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6))
def test_a_clean_training_has_no_incident(seed: int) -> None:
    assert incidents(looks(seed)) == []


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), at=st.integers(150, 250), steps=st.integers(1, PATIENCE_STEPS - 1))
def test_a_leap_that_comes_back_was_benign(seed: int, at: int, steps: int) -> None:
    shift = {step: dict.fromkeys(DOMAINS, 2.0) for step in range(at, at + steps)}
    [found] = incidents(looks(seed, shift))
    assert (found.judgement, found.first_step, found.last_step) == (Judgement.BENIGN, at, at + steps - 1)
    assert found.num_steps == steps
    assert set(found.moved) == set(DOMAINS)
    assert found.loss - found.usual_loss == pytest.approx(2.0, abs=0.6)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), at=st.integers(150, 250))
def test_a_leap_that_stays_diverges_and_is_told_once(seed: int, at: int) -> None:
    shift = {step: dict.fromkeys(DOMAINS, 2.0) for step in range(at, STEPS + 1)}
    [found] = incidents(looks(seed, shift))
    assert (found.judgement, found.first_step) == (Judgement.DIVERGING, at)
    assert found.last_step == at + PATIENCE_STEPS - 1


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), at=st.integers(150, 250))
def test_one_domain_that_is_worse_for_long_is_no_divergence_while_the_others_are_as_usual(seed: int, at: int) -> None:
    shift = {step: {EXPENSIVE: 12.0} for step in range(at, at + 30)}
    [found] = incidents(looks(seed, shift))
    assert (found.judgement, found.moved) == (Judgement.BENIGN, (EXPENSIVE,))
    assert found.num_steps == 30


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), at=st.integers(230, 280))
def test_a_batch_of_one_dear_domain_is_told_as_a_mixture(seed: int, at: int) -> None:
    [found] = incidents(looks(seed, shares={at: 1.0}))
    assert (found.judgement, found.first_step, found.last_step) == (Judgement.MIXTURE, at, at)
    assert found.moved == ()


@pytest.mark.parametrize("factor", [20.0, math.inf, math.nan])
def test_a_norm_that_leaps_stands_out_without_the_loss(factor: float) -> None:
    [found] = incidents(looks(1, norms={200: factor}))
    assert (found.judgement, found.peak_step) == (Judgement.BENIGN, 200)
    assert found.loss_deviations < 6 < found.norm_deviations


def test_an_incident_ends_after_calm_steps_alone() -> None:
    detector = SpikeDetector()
    ends = {
        look.step: found
        for look in looks(3, {200: dict.fromkeys(DOMAINS, 3.0), 202: dict.fromkeys(DOMAINS, 3.0)})
        if (found := detector.add(look))
    }
    [(step, found)] = ends.items()
    assert (step, found.first_step, found.last_step) == (202 + CALM_STEPS, 200, 202)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=200))
def test_a_baseline_is_the_median_and_deviation_of_its_windows(values: list[float]) -> None:
    baseline = Baseline()
    for value in values:
        baseline.add(value)
    differences = [
        value - np.median(values[max(0, place - CENTRE_STEPS) : place]) for place, value in enumerate(values) if place
    ][-SCALE_STEPS:]
    assert baseline.centre == np.median(values[-CENTRE_STEPS:])
    if len(values) < FEWEST_STEPS:
        assert baseline.deviations(1e9) == 0.0
    else:
        spread = 1.4826 * np.median(np.abs(differences - np.median(differences)))
        assert baseline.deviation == pytest.approx(spread)


def test_no_outlier_moves_what_is_usual() -> None:
    calm, struck = Baseline(), Baseline()
    for step in range(100):
        value = math.sin(step * 12.9898)
        calm.add(value)
        struck.add(value if step % 10 else 1e6)
    assert struck.centre == pytest.approx(calm.centre, abs=0.5)
    assert struck.deviation == pytest.approx(calm.deviation, rel=0.5)
