"""The same text is always on the same side, and order is a function of seed and content alone."""

from __future__ import annotations

from pathlib import Path
from random import Random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tasks.artifacts import DatasetRef
from tasks.errors import NightStopped
from tasks.journal import Journal
from tasks.recipe import SplitConfig, recipe_from
from tasks.split import KINDS, SIDES, position, read_rows, split, split_rows
from tasks.stage import Night
from tasks.tracking import Store
from tests.tasks.rows import chat_rows, text_rows

HALF = SplitConfig(val_share=0.5)
ids = st.lists(st.text(alphabet="0123456789abcdef", min_size=1, max_size=6), unique=True, max_size=30)
quick = settings(max_examples=50, deadline=None, derandomize=True)


def table(row_ids: list[str]) -> pl.DataFrame:
    """Each row carries its own name as payload, so that a row put together from two is seen."""
    return pl.DataFrame(
        {"row_id": row_ids, "text": [f"text of {i}" for i in row_ids]}, schema={"row_id": pl.String, "text": pl.String}
    )


def side_of(row_ids: list[str], config: SplitConfig = HALF) -> dict[str, str]:
    return {i: side for side, rows in split_rows(table(row_ids), config).items() for i in rows["row_id"]}


def orders(row_ids: list[str], config: SplitConfig = HALF) -> dict[str, list[str]]:
    return {side: rows["row_id"].to_list() for side, rows in split_rows(table(row_ids), config).items()}


@quick
@given(ids)
def test_the_sides_are_the_input_parted(row_ids: list[str]) -> None:
    sides = split_rows(table(row_ids), HALF)
    assert set(sides) == set(SIDES)
    assert_frame_equal(pl.concat(sides.values()).sort("row_id"), table(row_ids).sort("row_id"))


@quick
@given(ids, ids)
def test_a_row_is_on_the_same_side_whatever_else_is_there(row_ids: list[str], others: list[str]) -> None:
    """So appending moves none, and nothing once trained on is ever validated with."""
    before = side_of(row_ids)
    after = side_of([*row_ids, *(i for i in others if i not in row_ids)])
    assert {i: after[i] for i in row_ids} == before
    alone = {i: side for row in row_ids for i, side in side_of([row]).items()}
    assert alone == before


@quick
@given(ids, st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(row_ids: list[str], random: Random) -> None:
    mixed = list(row_ids)
    random.shuffle(mixed)
    assert orders(mixed) == orders(row_ids)


def test_appending_keeps_the_order_of_the_rows_before() -> None:
    few, many = [f"{n}" for n in range(0, 300, 3)], [f"{n}" for n in range(300)]
    for side, order in orders(many).items():
        assert [i for i in order if i in few] == orders(few)[side]


MANY = [f"row {number}" for number in range(5_000)]


def test_another_shuffle_seed_changes_the_order_only() -> None:
    one, other = orders(MANY), orders(MANY, SplitConfig(val_share=0.5, shuffle_seed=2))
    for side in SIDES:
        assert one[side] != other[side]
        assert set(one[side]) == set(other[side])
        assert sorted(one[side]) != one[side]


def test_another_salt_changes_the_sides_and_not_the_order() -> None:
    one, other = orders(MANY), orders(MANY, SplitConfig(val_share=0.5, salt="other"))
    assert 0.45 < len(set(one["val"]) & set(other["val"])) / len(one["val"]) < 0.55, "salts are independent"
    common = set(one["train"]) & set(other["train"])
    assert [i for i in one["train"] if i in common] == [i for i in other["train"] if i in common]


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_the_share_is_about_what_was_asked_for(share: float) -> None:
    """Within four standard deviations."""
    found = len(orders(MANY, SplitConfig(val_share=share))["val"]) / len(MANY)
    assert abs(found - share) < 4 * (share * (1 - share) / len(MANY)) ** 0.5


def test_a_larger_share_keeps_what_was_on_the_validation_side() -> None:
    small, large = (set(orders(MANY, SplitConfig(val_share=s))["val"]) for s in (0.1, 0.2))
    assert small < large


def test_order_and_side_are_independent() -> None:
    """Else the first rows trained on would be those that nearly went to the other side."""
    order = orders(MANY)["train"]
    ahead = sum(position(i, HALF.salt) for i in order[:1_000]) / 1_000
    assert ahead == pytest.approx(0.75, abs=0.02)


@quick
@given(st.text(max_size=20), st.text(max_size=5))
def test_a_position_is_a_share(row_id: str, salt: str) -> None:
    assert 0 <= position(row_id, salt) < 1


def night(store: Store, home: Path, val_share: float) -> Night:
    """A night that holds the newest token of its home."""
    sources = [{"name": f"{kind}-rows", "kind": kind, "location": "x"} for kind in KINDS]
    recipe = recipe_from({"name": "test", "sources": sources, "split": {"val_share": val_share}})
    with Journal(home).lease("test") as token:
        return Night(recipe, "key", home, store.tracking_uri, store.start_run("night", {}), token)


def validated(folder: Path) -> DatasetRef:
    folder.mkdir()
    text_rows([f"text {n}" for n in range(40)]).write_parquet(folder / "pretrain.parquet")
    chat_rows([[(f"question {n}", "answer")] for n in range(30)]).write_parquet(folder / "chat.parquet")
    return DatasetRef(folder, "validated")


def test_the_stage_writes_what_is_read_back(tmp_path: Path, store: Store) -> None:
    rows, tonight = validated(tmp_path / "rows"), night(store, tmp_path, 0.3)
    record = split.fn(tonight, rows)
    found = {
        (kind, side): read_rows(DatasetRef(record.path, record.digest), kind, side) for kind in KINDS for side in SIDES
    }
    for kind in KINDS:
        whole = pl.read_parquet(rows.path / f"{kind}.parquet")
        expected = split_rows(whole, tonight.recipe.split)
        for side in SIDES:
            assert_frame_equal(found[kind, side], expected[side])
            assert record.counts[f"{kind}_{side}"] == len(found[kind, side]) > 0
    assert split.fn(tonight, rows).reused


def test_an_empty_side_stops_the_night(tmp_path: Path, store: Store) -> None:
    with pytest.raises(NightStopped, match=r"no pretrain row fell on the val side: 40 rows at split\.val_share 1e-06"):
        split.fn(night(store, tmp_path, 1e-6), validated(tmp_path / "rows"))
    assert not list((tmp_path / "data").glob("split@*[0-9a-f]"))
