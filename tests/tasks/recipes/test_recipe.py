"""A recipe is checked before anything starts, and every refusal says which setting and what would do."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import NightStopped
from tasks.recipes.deployments import ENTRYPOINT, load_recipe, recipe_names
from tasks.recipes.overrides import parse_settings
from tasks.recipes.recipe import Recipe, as_params, plain_recipe, recipe_from

CONTENT: dict[str, Any] = {
    "name": "test",
    "sources": [
        {"name": "text", "kind": "pretrain", "location": "text.jsonl"},
        {"name": "talk", "kind": "chat", "location": "talk.jsonl"},
    ],
}


def recipe(**changes: Any) -> Recipe:
    return recipe_from(CONTENT | changes)


def refusal(content: dict[str, Any]) -> str:
    with pytest.raises(NightStopped) as stop:
        recipe_from(content)
    return str(stop.value)


def source(name: str, kind: str = "pretrain") -> dict[str, str]:
    return {"name": name, "kind": kind, "location": "x"}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"pretrain.optim.peak_lr": 0.25}, ("pretrain", "optim", "peak_lr", 0.25)),
        ({"split.salt": "other"}, ("split", "salt", "other")),
        ({"sources.1.location": "new.jsonl"}, ("sources", 1, "location", "new.jsonl")),
        ({"evaluate.prompts": ["a", "b"]}, ("evaluate", "prompts", ("a", "b"))),
        ({"name": "renamed"}, ("name", "renamed")),
        ({"pretrain.num_tokens": 2e6}, ("pretrain", "num_tokens", 2_000_000)),
    ],
)
def test_an_override_changes_that_value_and_nothing_else(overrides: dict[str, Any], expected: tuple[Any, ...]) -> None:
    *path, value = expected
    want = dataclasses.asdict(recipe())
    here = want
    for step in path[:-1]:
        here = here[step]
    assert here[path[-1]] != value
    here[path[-1]] = value
    want["promote"]["mode"] = "ask"  # a changed night promotes nothing by itself
    assert dataclasses.asdict(recipe().with_overrides(overrides)) == want


def test_a_block_replaces_the_fields_that_it_names_and_no_others() -> None:
    block = {"optim": {"peak_lr": 0.25, "clip_norm": 2.0}, "seed": 7}
    whole = recipe().with_overrides({"pretrain": block, "pretrain.optim.clip_norm": 3.0})
    parts = {"pretrain.optim.peak_lr": 0.25, "pretrain.optim.clip_norm": 3.0, "pretrain.seed": 7}
    assert (
        whole
        == recipe().with_overrides(parts)
        == recipe().with_overrides(
            parse_settings(["pretrain={optim: {peak_lr: 0.25}, seed: 7}", "pretrain.optim.clip_norm=3.0"])
        )
    )
    with pytest.raises(NightStopped, match=r"'pretrain\.optim\.lr': 'lr' is none of .*peak_lr"):
        recipe().with_overrides({"pretrain": {"optim": {"lr": 0.25}}})


@pytest.mark.parametrize(
    ("own", "overrides", "mode"),
    [
        ("auto", {}, "auto"),
        ("auto", {"split.salt": "other"}, "ask"),
        ("auto", {"twin": True}, "auto"),
        ("auto", {"alarms.disk_days": 3, "retention.nights": 9}, "auto"),
        ("auto", {"split.salt": "nightschool"}, "auto"),
        ("auto", {"promote.false_promotions_a_year": 2}, "ask"),
        ("auto", {"split.salt": "other", "promote.mode": "auto"}, "auto"),
        ("auto", {"split.salt": "other", "promote": {"mode": "auto"}}, "auto"),
        ("auto", {"promote.mode": "never"}, "never"),
        ("never", {"split.salt": "other"}, "never"),
        ("ask", {"split.salt": "other"}, "ask"),
    ],
)
def test_a_night_with_overrides_promotes_by_itself_only_if_they_say_so(
    own: str, overrides: dict[str, Any], mode: str
) -> None:
    assert recipe(promote={"mode": own}).with_overrides(overrides).promote.mode == mode


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "a b", "a@b", "-", "x" * 101])
def test_a_name_that_no_registered_model_can_have_is_refused(name: str) -> None:
    with pytest.raises(NightStopped, match="letters, digits, -, _ and"):
        recipe(name=name)


def test_overrides_leave_the_recipe_they_came_from_alone() -> None:
    before = recipe()
    before.with_overrides({"sources.0.name": "changed", "split.val_share": 0.5})
    assert before == recipe()
    assert before.with_overrides({}) == before


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("pretrain.nope", ["'pretrain.nope'", "'nope'", "num_tokens", "optim"]),
        ("nope.num_tokens", ["'nope'", "sources", "pretrain", "promote"]),
        ("pretrain.optim.lr", ["'lr'", "peak_lr"]),
        ("sources.2.name", ["'2'", "0, 1"]),
        ("sources.-1.name", ["'-1'", "0, 1"]),
        ("sources.first.name", ["'first'", "0, 1"]),
        ("", ["''", "sources"]),
    ],
)
def test_a_wrong_key_is_told_the_choices(key: str, parts: list[str]) -> None:
    with pytest.raises(NightStopped) as stop:
        recipe().with_overrides({key: 1})
    assert all(part in str(stop.value) for part in parts)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("sources.0", 5, "'sources.0' is an entry of a list"),
        ("evaluate.prompts.0", "Hi", "'evaluate.prompts.0' is an entry of a list"),
        ("evaluate.prompts.0", {}, "'evaluate.prompts.0' is an entry of a list"),
        ("name.length", {}, "'length' is none of nothing"),
    ],
)
def test_only_a_field_can_be_set(key: str, value: object, said: str) -> None:
    with pytest.raises(NightStopped, match=said):
        recipe().with_overrides({key: value})


def test_a_block_merges_into_an_entry_of_a_list_too() -> None:
    first, *others = recipe().sources
    changed = recipe().with_overrides({"sources.0": {"weight": 2.5}})
    assert changed.sources == (dataclasses.replace(first, weight=2.5), *others)


def numbers_of(content: object, name: str = "") -> Iterator[str]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from numbers_of(value, f"{name}.{key}".lstrip("."))
    elif type(content) in (int, float):
        yield name


def test_a_number_is_never_true_or_false() -> None:
    found = [*numbers_of(dataclasses.asdict(recipe()))]
    assert len(found) > 50
    for setting in found:
        with pytest.raises(NightStopped, match=setting.rpartition(".")[2]):
            recipe().with_overrides({setting: True})


def test_what_pydantic_refuses_is_shown() -> None:
    for setting, value in (("evaluate.prompts", 5), ("model", 5), ("pretrain.num_tokens", "many")):
        with pytest.raises(NightStopped, match=f"{setting}: .*, not {value!r}") as stop:
            recipe().with_overrides({setting: value})
        assert "Value error" not in str(stop.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pretrain.num_tokens", "many"),
        ("pretrain.num_tokens", 1.5),
        ("sources.1.kind", "speech"),
        ("split.salt", 12),
        ("evaluate.prompts", 5),
        ("model.hidden_size", None),
    ],
)
def test_a_value_of_the_wrong_type_is_told_its_field(key: str, value: object) -> None:
    with pytest.raises(NightStopped) as stop:
        recipe().with_overrides({key: value})
    assert f"  {key}: " in str(stop.value).replace(".0:", ":")


def test_samples_leave_room_for_a_prompt() -> None:
    with pytest.raises(NightStopped, match=r"evaluate.max_new_tokens \(2048\) must be below .*embeddings \(2048\)"):
        recipe().with_overrides({"evaluate.max_new_tokens": 2048, "model.max_position_embeddings": 2048})


def test_every_problem_is_reported_at_once() -> None:
    problems = {
        "split": {"val_share": 1.0},
        "pretrain": {"num_tokens": "many"},
        "promote": {"false_promotions_a_year": 200, "resamples": 5},
        "validate": {"max_bad_share": -1, "max_line_bytes": 0},
    }
    told = refusal(CONTENT | problems)
    for part in (
        "val_share (1.0)",
        "pretrain.num_tokens",
        "false_promotions_a_year (200",
        "resamples (5)",
        "max_bad_share (-1",
        "max_l",
    ):
        assert part in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"pretrian": {}}, "pretrian"),
        ({"pretrain": {"num_token": 5}}, "pretrain.num_token"),
        ({"sources": [*CONTENT["sources"], source("x") | {"path": "y"}]}, "sources.2.path"),
    ],
)
def test_an_unknown_key_is_reported(change: dict[str, Any], key: str) -> None:
    """A misspelt key that is dropped in silence costs a night with the default."""
    assert key in refusal(CONTENT | change)


@pytest.mark.parametrize(
    ("sources", "part"),
    [
        ([source("a")], "none of kind chat"),
        ([source("a", "chat")], "none of kind pretrain"),
        ([source("a"), source("a", "chat")], "a appears more than once"),
        ([source("a"), source("b"), source("b"), source("c", "chat")], "b appears more than once"),
        ([source("a/b"), source("c", "chat")], "'a/b' may hold letters"),
        ([source(""), source("c", "chat")], "'' may hold letters"),
        ([source(".."), source("c", "chat")], "'..' may hold letters"),
        ([], "none of kind pretrain"),
    ],
)
def test_sources_have_both_kinds_and_names_of_their_own(sources: list[dict[str, str]], part: str) -> None:
    assert part in refusal(CONTENT | {"sources": sources})


def test_a_model_that_could_not_be_handed_out_is_refused_before_the_night() -> None:
    told = refusal(CONTENT | {"model": {"gate": "sparsemax", "num_shared_experts": 1}})
    assert "model.gate (sparsemax)" in told
    assert "model.num_shared_experts (1)" in told


def test_rows_longer_than_the_model_can_place_are_refused_with_both_numbers() -> None:
    told = refusal(CONTENT | {"data": {"sequence_length_tokens": 4096}})
    assert "(4096)" in told
    assert "(2048)" in told


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("a=1e-3", {"a": 0.001}),
        ("a=2.5", {"a": 2.5}),
        ("a=12", {"a": 12}),
        ("a=-12", {"a": -12}),
        ("a=true", {"a": True}),
        ("a=null", {"a": None}),
        ("a.0.b=some text", {"a.0.b": "some text"}),
        ('a="12"', {"a": "12"}),
        ("a=[1, x, 0.5]", {"a": [1, "x", 0.5]}),
        ("a=builtin:x", {"a": "builtin:x"}),
        ("a=b=c", {"a": "b=c"}),
        ("a=http://127.0.0.1/x?y=1", {"a": "http://127.0.0.1/x?y=1"}),
    ],
)
def test_settings_on_the_command_line(pair: str, expected: dict[str, object]) -> None:
    parsed = parse_settings([pair])
    assert parsed == expected
    assert [type(value) for value in parsed.values()] == [type(value) for value in expected.values()]


@settings(max_examples=60)
@given(st.integers() | st.floats(allow_nan=False))
def test_numbers_on_the_command_line_are_what_python_reads(number: float) -> None:
    [parsed] = parse_settings([f"a={number!r}"]).values()
    assert (parsed, type(parsed)) == (number, type(number))


def test_the_last_of_two_settings_of_a_key_counts() -> None:
    assert parse_settings(["a=1", "b=2", "a=3"]) == {"a": 3, "b": 2}


@pytest.mark.parametrize(
    ("words", "dense"), [(("true", "yes", "on", "1"), True), (("false", "no", "off", "0", '"false"'), False)]
)
def test_no_means_no_where_a_switch_is_set(words: tuple[str, ...], dense: bool) -> None:
    for word in words:
        assert recipe().with_overrides(parse_settings([f"model.dense={word}"])).model.dense is dense


def test_a_setting_without_a_value_is_refused() -> None:
    with pytest.raises(NightStopped, match=r"key\.path=value, not 'pretrain'"):
        parse_settings(["a=1", "pretrain"])


@pytest.mark.parametrize("value", ["[a, b", "{a: ", "'open", "a: b: c", "@x"])
def test_a_value_that_is_no_yaml_is_refused_by_its_key(value: str) -> None:
    with pytest.raises(NightStopped, match=r"evaluate\.prompts"):
        parse_settings([f"evaluate.prompts={value}"])


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads_and_survives_being_written(name: str) -> None:
    loaded = load_recipe(name)
    assert loaded.name == name
    assert recipe_from(json.loads(json.dumps(plain_recipe(loaded)))) == loaded


def test_the_recipes_people_are_told_about_are_there() -> None:
    assert {"demo", "small", "nightly", "minimind-moe"} <= set(recipe_names())


@pytest.mark.parametrize("name", ["dmeo", "by-hand", ""])
def test_an_unknown_recipe_is_told_the_known_ones(name: str) -> None:
    """`by-hand` is a deployment, but it runs no night."""
    with pytest.raises(NightStopped) as stop:
        load_recipe(name)
    assert f"no recipe {name!r}" in str(stop.value)
    assert all(known in str(stop.value) for known in recipe_names())
    assert "by-hand" not in recipe_names()


def test_recipes_of_another_file(tmp_path: Path) -> None:
    entry = {"entrypoint": "flows.retrain_nightly:retrain_nightly", "parameters": {"recipe": CONTENT}}
    path = tmp_path / "prefect.yaml"
    path.write_text(json.dumps({"deployments": [{"name": "mine", **entry}]}))
    assert recipe_names(path) == ["mine"]
    assert load_recipe("mine", path) == recipe()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("deployments: [", "cannot be read"),
        ("", "has no list `deployments`"),
        ("deployments: [{entrypoint: x}]", "has no list `deployments`"),
        ("deployments: 1", "has no list `deployments`"),
    ],
)
def test_a_broken_file_of_recipes_is_a_message(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "prefect.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(NightStopped, match=said) as stop:
        load_recipe("demo", path)
    assert str(path) in str(stop.value)


@pytest.mark.parametrize("parameters", [{}, {"parameters": None}, {"parameters": {"recipe": {"name": "mine"}}}])
def test_a_deployment_without_a_whole_recipe_is_a_message(tmp_path: Path, parameters: dict[str, Any]) -> None:
    path = tmp_path / "prefect.yaml"
    path.write_text(json.dumps({"deployments": [{"name": "mine", "entrypoint": ENTRYPOINT, **parameters}]}))
    with pytest.raises(NightStopped, match="sources: Field required"):
        load_recipe("mine", path)


def test_parameters_are_flat_strings_that_say_everything() -> None:
    params = as_params(recipe().with_overrides({"pretrain.optim.peak_lr": 0.25, "evaluate.prompts": ["é", "b"]}))
    assert all(isinstance(value, str) for value in params.values())
    assert params["name"] == "test"
    assert params["pretrain.optim.peak_lr"] == "0.25"
    assert json.loads(params["evaluate.prompts"]) == ["é", "b"]
    said = json.loads(params["sources"])
    assert [
        {key: source[key] for key in given} for source, given in zip(said, CONTENT["sources"], strict=True)
    ] == CONTENT["sources"]


@pytest.mark.parametrize("name", recipe_names())
def test_parameters_hold_every_value_under_its_own_key(name: str) -> None:
    def leaves(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, object]]:
        if isinstance(value, dict):
            for key, item in value.items():
                yield from leaves(item, (*path, key))
        else:
            yield ".".join(path), value

    expected, params = dict(leaves(plain_recipe(load_recipe(name)))), as_params(load_recipe(name))
    assert set(params) == set(expected)
    for key, value in expected.items():
        assert params[key] == value if isinstance(value, str) else json.loads(params[key]) == value


def test_a_setting_that_went_is_told_with_the_one_that_took_its_place() -> None:
    told = "promote.confidence is no setting any more: promote.false_promotions_a_year says how often"
    assert told in refusal(CONTENT | {"promote": {"confidence": 0.95}})
    with pytest.raises(NightStopped, match=told):
        recipe().with_overrides({"promote.confidence": 0.95})
    with pytest.raises(NightStopped, match=told):
        recipe().with_overrides({"promote": {"confidence": 0.95}})


def test_a_twin_of_changing_experts_has_none_to_change() -> None:
    change = {"kind": "prune", "at_share": 0.5, "num_experts_before": 8}
    recipe = recipe_from(CONTENT | {"twin": True, "pretrain": {"start": "scratch", "expert_changes": [change]}})
    twin = recipe.dense_twin()
    assert twin.model.dense and not twin.pretrain.expert_changes
