"""Nights that bring more data: each stage adds what is new, and touches nothing of what was there."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.sides.read import read_train, read_val
from data.sides.slices import read_slices
from tasks.errors import NightStopped
from tasks.home.contents.deduplicated import open_ledger
from tasks.home.contents.packed import SCORED_TEXT
from tasks.home.journal import Journal
from tasks.home.records import StageRecord
from tasks.night.opening import known_pieces
from tasks.recipes.recipe import Recipe, side_rules
from tasks.sources.resolve import resolve
from tasks.stage import Night
from tasks.stages.deduplicate import deduplicate
from tasks.stages.split import split
from tasks.stages.tokens import tokens
from tasks.stages.validate import validate
from tasks.tracking.mlflow_store import Store
from tests.tiny_recipe import tiny_recipe

pytestmark = pytest.mark.usefixtures("without_prefect")
STAGES = ("validate", "deduplicate", "split", "tokens")


def prepare(recipe: Recipe, home: Path, store: Store, last: str = "tokens") -> dict[str, StageRecord]:
    """The data stages of one night, or the first ones of them."""
    journal = Journal(home)
    raw = resolve(recipe.sources, home, known_pieces(journal, recipe), 0.0)
    parent = store.start_run("night", {})
    with journal.lease("test") as token:
        night = Night(recipe, "key", home, store.tracking_uri, parent, token, raw)
        validated = validate.fn(night)
        distinct = deduplicate.fn(night, validated)
        sides = split.fn(night, distinct)
        packed = [tokens.fn(night, sides)] if last == "tokens" else []
    return dict(zip(STAGES, (validated, distinct, sides, *packed), strict=False))


def more_text(count: int, start: int = 0) -> Iterator[str]:
    """Rows that are like nothing else."""
    for number in range(start, start + count):
        yield json.dumps({"text": " ".join(f"word{number * 31 + k * k}" for k in range(30))}) + "\n"


def inodes(record: StageRecord) -> dict[str, int]:
    return {name: (record.path / name).stat().st_ino for name in record.files}


def names(record: StageRecord, side: str) -> set[str]:
    """Texts of one side."""
    read = read_val if side == "val" else read_train
    return set(read(record.path, "pretrain")["text"])


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return tiny_recipe(tmp_path / "raw")


def text_of(recipe: Recipe) -> Path:
    return Path(recipe.sources[0].location)


def test_a_grown_file_costs_its_tail_and_touches_nothing_old(tmp_path: Path, store: Store, recipe: Recipe) -> None:
    first = prepare(recipe, tmp_path, store)
    with text_of(recipe).open("a") as stream:
        stream.writelines(more_text(40))
    second = prepare(recipe, tmp_path, store)
    assert second["validate"].counts["read"] == first["validate"].counts["read"] + 40
    assert second["validate"].counts["fresh_pieces"] == 1
    for stage in STAGES:
        before, after = inodes(first[stage]), inodes(second[stage])
        data = {
            name for name in before if name.endswith((".arrow", ".ids", ".sketches", ".facts", ".fates", ".parquet"))
        }
        kept = {name for name in data if ".val.all" not in name and name != SCORED_TEXT}
        assert kept, stage
        assert {name: before[name] for name in kept} == {name: after[name] for name in kept}, stage
        assert set(after) > kept, stage
    assert second["tokens"].files["tokenizer.json"] == first["tokens"].files["tokenizer.json"]


def test_no_row_changes_sides_and_every_new_one_has_one(tmp_path: Path, store: Store, recipe: Recipe) -> None:
    first = prepare(recipe, tmp_path, store)
    new = list(more_text(60))
    with text_of(recipe).open("a") as stream:
        stream.writelines(new)
    second = prepare(recipe, tmp_path, store)
    for side in ("train", "val"):
        assert names(first["split"], side) <= names(second["split"], side)
    added = {json.loads(line)["text"] for line in new}
    assert second["split"].counts["held_out_unused"] == 0, "no slice is full"
    assert 40 < len(added & names(second["split"], "train")) < 60
    assert added == added & (names(second["split"], "train") | names(second["split"], "val"))
    assert not names(second["split"], "train") & names(second["split"], "val")
    before, after = (read_slices(night["split"].path) for night in (first, second))
    assert all(after[name].versions[: len(its.versions)] == its.versions for name, its in before.items())


def test_the_same_data_again_is_found_done(tmp_path: Path, store: Store, recipe: Recipe) -> None:
    first = prepare(recipe, tmp_path, store)
    with text_of(recipe).open("a") as stream:
        stream.writelines(more_text(10))
    second, third = (prepare(recipe, tmp_path, store) for _ in range(2))
    assert not any(record.reused for record in (*first.values(), *second.values()))
    assert all(record.reused for record in third.values())
    assert {s: r.digest for s, r in third.items()} == {s: r.digest for s, r in second.items()}


def test_a_row_that_comes_again_is_a_duplicate_of_the_first_night(tmp_path: Path, store: Store, recipe: Recipe) -> None:
    first = prepare(recipe, tmp_path, store)
    lines = text_of(recipe).read_text().splitlines(keepends=True)[:7]
    with text_of(recipe).open("a") as stream:
        stream.writelines(lines)
    second = prepare(recipe, tmp_path, store)
    repeated = second["deduplicate"].counts["exact_duplicate"] - first["deduplicate"].counts["exact_duplicate"]
    assert repeated == len(lines)
    assert second["split"].counts == first["split"].counts


def test_a_changed_file_starts_the_sides_anew(tmp_path: Path, store: Store, recipe: Recipe) -> None:
    first = prepare(recipe, tmp_path, store)
    lines = text_of(recipe).read_text().splitlines(keepends=True)
    text_of(recipe).write_text("".join(lines[1:]))
    again = prepare(recipe, tmp_path, store)
    assert again["validate"].inputs["base"] == ""
    tokenizers = {record.files["tokenizer.json"] for record in (first["tokens"], again["tokens"])}
    assert len(tokenizers) == 1, "the trunk's weights know no other"
    assert prepare(recipe, tmp_path, store)["tokens"].reused
    larger = replace(recipe, model=replace(recipe.model, vocab_size=recipe.model.vocab_size + 50))
    assert prepare(larger, tmp_path, store)["tokens"].files["tokenizer.json"] not in tokenizers
    assert again["validate"].counts["fresh_pieces"] == 1, "the chat file's part is taken over"
    assert len(list(again["deduplicate"].path.glob("g*.fates"))) == 1


def test_an_empty_side_stops_the_night_and_the_share_it_names_helps(
    tmp_path: Path, store: Store, recipe: Recipe
) -> None:
    few = dataclasses.replace(recipe, split=dataclasses.replace(recipe.split, val_share=1e-9))
    with pytest.raises(NightStopped, match=r"no pretrain row fell on the val side: \d+ rows in \d+ clusters") as stop:
        prepare(few, tmp_path, store)
    assert not list((tmp_path / "data").glob("split@*[0-9a-f]"))
    share = float(str(stop.value).partition("set split.val_share to ")[2].partition(",")[0])
    rules = side_rules(dataclasses.replace(recipe, split=dataclasses.replace(recipe.split, val_share=share)))
    ledger = open_ledger(Journal(tmp_path).newest("deduplicate", recipe.name).path)
    clusters = np.concatenate([ledger.clusters_of(p) for p in ledger.parts if p.kind == "pretrain"])
    held_out = rules.is_val(clusters[clusters["hi"] > 0])
    assert held_out.any() and not held_out.all()


def test_another_threshold_starts_at_the_duplicates(tmp_path: Path, store: Store, recipe: Recipe) -> None:
    first = prepare(recipe, tmp_path, store)
    keep = dataclasses.replace(recipe, deduplicate=dataclasses.replace(recipe.deduplicate, near="keep"))
    second = prepare(keep, tmp_path, store)
    assert second["validate"].reused
    assert not second["deduplicate"].reused
    assert second["deduplicate"].counts["near_duplicate"] <= first["deduplicate"].counts["near_duplicate"]


def test_nights_of_new_files_leave_few_and_a_file_that_goes_is_in_none(
    tmp_path: Path, store: Store, recipe: Recipe
) -> None:
    folder = text_of(recipe).parent
    source = dataclasses.replace(recipe.sources[0], location=str(folder / "text*.jsonl"))
    recipe = dataclasses.replace(recipe, sources=(source, *recipe.sources[1:]))
    for number in range(7):
        lines = [*more_text(20, 100 * number), f'{{"text": 5, "night": "{number}x"}}\n']
        (folder / f"text{number}.jsonl").write_text("".join(lines))
        night = prepare(recipe, tmp_path, store, "split")
        ledger = open_ledger(night["deduplicate"].path)
        assert len(ledger.parts) == 3 + number and len(ledger.generations) == 1 + number
        for stage in STAGES[:3]:
            sorts = Counter(name.partition(".")[2] for name in night[stage].files if not name.endswith(".arrow"))
            assert max(sorts.values()) <= 3 + (number + 1).bit_length(), stage
        assert sum(".train." in name for name in night["split"].files) <= 3 + (number + 1).bit_length()
    (folder / "text2.jsonl").unlink()
    again = prepare(recipe, tmp_path, store, "split")
    assert again["validate"].counts["fresh_pieces"] == 0
    assert again["validate"].counts["read"] == night["validate"].counts["read"] - 21
    ledger, gone = open_ledger(again["deduplicate"].path), {json.loads(line)["text"] for line in more_text(20, 200)}
    kept = {text for p in ledger.parts if p.kind == "pretrain" for frame in p.part.rows() for text in frame["text"]}
    assert not kept & gone and {json.loads(line)["text"] for line in more_text(20, 300)} <= kept
    bad = b"".join(path.read_bytes() for path in (again["validate"].path / "parts").glob("*.quarantine.jsonl"))
    assert [f"{number}x".encode() in bad for number in range(7)] == [number != 2 for number in range(7)]
    assert names(again["split"], "train") < names(night["split"], "train")
