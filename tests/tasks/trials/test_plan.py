"""What is asked of a trial is checked before anything starts, and so is what it costs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import NightStopped
from tasks.recipes.overrides import as_argument, parse_over
from tasks.recipes.recipe import Recipe, recipe_from
from tasks.trials import plan as trial_plan
from tasks.trials.plan import RangeTest, Sweep, Variant, range_test_cost, settings_of, sweep_cost, variants
from tests.tasks.recipes.test_recipe import CONTENT

PEAK = "pretrain.optim.peak_lr"
TOKENS = 512 * 16


def recipe(**changes: Any) -> Recipe:
    return recipe_from(CONTENT | {"pretrain": {"num_tokens": TOKENS * 200, "seed": 5}} | changes)


def trainings(base: Recipe, sweep: Sweep, rung: int = 0) -> list[Variant]:
    """Of a rung, if none of the settings fell out before."""
    return variants(base, sweep, settings_of(base, sweep), rung)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1e-3,2e-3,0.004", [0.001, 0.002, 0.004]),
        ("adamw,muon", ["adamw", "muon"]),
        ("true,false", [True, False]),
        ("2", [2]),
        ("[1, 2],[3]", [[1, 2], [3]]),
    ],
)
def test_values_are_read_as_set_reads_them(text: str, values: list[Any]) -> None:
    assert parse_over([f"{PEAK}={text}"]) == {PEAK: values}


@pytest.mark.parametrize("pairs", [["pretrain.seed"], [f"{PEAK}="], [f"{PEAK}=1", f"{PEAK}=2"], [f"{PEAK}=[1"]])
def test_over_without_values_or_twice_is_refused(pairs: list[str]) -> None:
    with pytest.raises(NightStopped, match="--over"):
        parse_over(pairs)


@settings(max_examples=40)
@given(st.one_of(st.integers(-9, 9), st.floats(1e-6, 1.0), st.booleans(), st.sampled_from(["adamw", "linear"])))
def test_a_value_is_written_as_it_is_read(value: Any) -> None:
    assert parse_over([f"{PEAK}={as_argument(value)}"]) == {PEAK: [value]}


@settings(max_examples=20)
@given(
    st.lists(st.floats(1e-4, 1e-1), min_size=1, max_size=3, unique=True),
    st.lists(st.sampled_from([2, 3, 4]), min_size=1, max_size=3, unique=True),
    st.integers(1, 3),
    st.sampled_from([0.01, 0.1, 1.0]),
)
def test_a_sweep_trains_all_combinations_and_seeds_on_the_same_tokens(
    rates: list[float], experts: list[int], seeds: int, share: float
) -> None:
    base = recipe(twin=True)
    found = trainings(
        base, Sweep(over={PEAK: rates, "model.num_experts_per_tok": experts}, share=share, seeds=seeds)
    )  # fmt: skip
    asked = [(r, e, 5 + s) for r in rates for e in experts for s in range(seeds)]
    trained = [
        (v.recipe.pretrain.optim.peak_lr, v.recipe.model.num_experts_per_tok, v.recipe.pretrain.seed) for v in found
    ]
    assert trained == asked
    assert len({variant.key for variant in found}) == len(found)
    for variant in found:
        assert variant.recipe.pretrain.num_steps(512) == round(200 * share)
        assert (variant.recipe.data, variant.recipe.sources, variant.recipe.sft) == (base.data, base.sources, base.sft)
        assert not variant.recipe.twin


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"over": {}}, "over names no values"),
        ({"over": {PEAK: []}}, "over names no values"),
        ({"over": {PEAK: [1, 2, 1]}}, "a value is there twice"),
        ({"over": {"split.val_share": [0.1]}}, "over split.val_share: all trainings read the same tokens"),
        ({"over": {"model.vocab_size": [500]}}, "over model.vocab_size: all trainings read the same tokens"),
        ({"over": {"pretrain.seed": [1, 2]}}, "over pretrain.seed: all trainings"),
        ({"over": {"pretrain.num_tokens": [1, 2]}}, "over pretrain.num_tokens: all trainings"),
        ({"over": {"pretrain.start": ["trunk"]}}, "over pretrain.start: it says how a night goes on"),
        ({"over": {"pretrain.replay_share": [0.1, 0.5]}}, "over pretrain.replay_share: it says how a night goes on"),
        ({"over": {"pretrain.night_tokens": [1, 2]}}, "over pretrain.night_tokens: it says how a night goes on"),
        ({"over": {PEAK: [1]}, "share": 0.0}, r"share \(0\.0\)"),
        ({"over": {PEAK: [1]}, "share": 1.5}, r"share \(1\.5\)"),
        ({"over": {PEAK: [1]}, "seeds": 0}, r"seeds \(0\)"),
        ({"over": {PEAK: [1]}, "rungs": 0}, r"rungs \(0\)"),
        ({"over": {PEAK: [1]}, "keep_share": 1.0}, r"keep_share \(1\.0\)"),
    ],
)
def test_a_sweep_that_compares_nothing_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sweep(**values)


def test_values_alone_are_tried_beside_the_recipe_as_it_is() -> None:
    base = recipe()
    over = {PEAK: [1e-3, base.pretrain.optim.peak_lr], "model.num_experts_per_tok": [3]}
    settings = settings_of(base, Sweep(over=over, alone=True))
    assert settings == [{}, {PEAK: 1e-3}, {"model.num_experts_per_tok": 3}]
    assert trainings(base, Sweep(over=over, alone=True))[0].pairs == ()


@pytest.mark.parametrize("num_settings", [8, 9, 27, 40])
def test_each_rung_has_fewer_settings_more_steps_and_only_the_last_its_seeds(num_settings: int) -> None:
    sweep = Sweep(over={PEAK: [1e-4 * (n + 1) for n in range(num_settings)]}, share=0.9, rungs=3, seeds=2)
    trained = [
        variants(recipe(), sweep, settings_of(recipe(), sweep)[: sweep.kept(num_settings, r)], r) for r in range(3)
    ]
    assert [len(rung) for rung in trained] == [
        num_settings, round(num_settings / 3), 2 * max(2, round(num_settings / 9)),
    ]  # fmt: skip
    assert [rung[0].recipe.pretrain.num_steps(512) for rung in trained] == [20, 60, 180]


@pytest.mark.parametrize(("num_settings", "rungs", "most"), [(1, 2, 1), (2, 2, 1), (2, 5, 1), (3, 3, 2), (7, 3, 2)])
def test_rungs_that_would_choose_nothing_are_refused(num_settings: int, rungs: int, most: int) -> None:
    over = {PEAK: [1e-4 * (n + 1) for n in range(num_settings)]}
    with pytest.raises(NightStopped, match=f"set --rungs to {most}"):
        settings_of(recipe(), Sweep(over=over, rungs=rungs))
    assert len(settings_of(recipe(), Sweep(over=over, rungs=most))) == num_settings


def test_what_trains_slower_gets_fewer_tokens_of_equal_seconds() -> None:
    sweep = Sweep(over={"model.num_experts_per_tok": [2, 4]}, equal="seconds", share=0.1)
    base = recipe(model={"num_experts_per_tok": 2})

    def pace(one: Recipe) -> float:
        return 1e-6 * one.model.num_experts_per_tok

    two, four = variants(base, sweep, settings_of(base, sweep), 0, pace)
    assert two.recipe.pretrain.num_tokens == TOKENS * 20
    assert four.recipe.pretrain.num_tokens == TOKENS * 10


def test_a_combination_that_is_no_recipe_is_refused_before_any_is_trained() -> None:
    with pytest.raises(NightStopped, match="num_experts_per_tok"):
        trainings(recipe(), Sweep(over={"model.num_experts_per_tok": [2, 99]}))
    with pytest.raises(NightStopped, match=r"no setting 'pretrain\.lr'"):
        trainings(recipe(), Sweep(over={"pretrain.lr": [1]}))


@pytest.mark.parametrize(
    ("values", "message"),
    [({"lr_min": 0.0}, "lr_min"), ({"lr_max": 1e-7}, r"lr_max \(1e-07\)"), ({"num_steps": 9}, r"num_steps \(9\)")],
)
def test_a_range_that_shows_nothing_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RangeTest(**values)


def test_the_cost_is_that_of_all_steps_and_each_shape_is_probed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    probed = []

    def probe(model: object, config: object, tokens: int) -> float:
        probed.append(model)
        return 60 / TOKENS

    monkeypatch.setattr(trial_plan, "seconds_per_token", probe)
    over = {PEAK: [1e-3, 2e-3, 4e-3], "model.num_experts_per_tok": [2, 3]}
    said = sweep_cost(recipe(), Sweep(over=over, share=0.1, seeds=2))
    assert "6 settings with 2 seeds each, 12 trainings of 20 steps, 10% of pretraining" in said
    assert "about 4.0 h of training" in said
    assert len(probed) == 2
    said = sweep_cost(recipe(), Sweep(over=over, share=0.9, rungs=2, seeds=3))
    assert "rung 1     6 settings with 1 seed each, 6 trainings of 60 steps, 30% of pretraining" in said
    assert "rung 2     2 settings with 3 seeds each, 6 trainings of 180 steps, 90% of pretraining" in said
    assert "about 24.0 h of training at the most" in said
    said = range_test_cost(recipe(), RangeTest(num_steps=50))
    assert "50 steps of 8,192 tokens" in said
    assert "about 50 min at the most" in said
