"""A night with rows that share a long prompt, beside other chat: they stay, and a source that is lost is named."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from data.duplicates.ledger import KEPT
from flows.retrain_nightly import retrain_nightly
from tasks.errors import NightStopped
from tasks.home.contents.deduplicated import open_ledger
from tasks.home.contents.inspected import read_losses
from tasks.night.report import NightReport
from tasks.recipes.recipe import Recipe, recipe_from, side_rules
from tasks.stages.inspect import PAGE
from tests.logged_night import logged_night
from tests.tiny_recipe import tiny_content, write_sources

NUM_ROWS = 300
WORDS = [a + b for a in ("ba", "co", "du", "fey", "gi", "ho") for b in ("lan", "mer", "nost", "pi", "qua", "rel")]


def words(count: int, seed: str) -> str:
    generator = random.Random(seed)
    return " ".join(generator.choice(WORDS) for _ in range(count))


def one_prompt(number: int) -> list[dict[str, str]]:
    """A system turn of 330 words that all have, a question and an answer that no other has."""
    return turns(words(330, "prompt"), words(8, f"question {number}"), words(10, f"answer {number}"))


def one_answer(number: int) -> list[dict[str, str]]:
    """The same question and answer each time, but for a word."""
    return turns("Be brief.", words(40, "question"), f"{words(60, 'answer')} {number}")


def turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": role, "content": c} for role, c in zip(("system", "user", "assistant"), contents, strict=True)]


@dataclass(frozen=True)
class Lived:
    recipe: Recipe
    report: NightReport
    log: str


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Lived:
    folder = tmp_path_factory.mktemp("prompts")
    content = tiny_content(write_sources(folder / "raw", rows=200))
    for name, conversation in (("prompted", one_prompt), ("repeated", one_answer)):
        path = folder / "raw" / f"{name}.jsonl"
        lines = (json.dumps({"conversations": conversation(number)}) + "\n" for number in range(NUM_ROWS))
        path.write_text("".join(lines))
        content["sources"].append({"name": name, "kind": "chat", "location": str(path)})
    recipe = recipe_from(content | {"inspect": {"max_lost_share_per_source": 1.0, "warn_lost_answers_share": 1.0}})
    return Lived(recipe, *logged_night(recipe, folder))


def folder_of(lived: Lived, stage: str) -> Path:
    return next(record.path for record in lived.report.records if record.stage == stage)


def kept_and_held_out(lived: Lived, source: str) -> tuple[int, int]:
    ledger, held_out = open_ledger(folder_of(lived, "deduplicate")), side_rules(lived.recipe).is_val
    [part] = [p for p in ledger.parts if p.source == source]
    kept = ledger.fates_of(part) == KEPT
    return int(kept.sum()), int(held_out(ledger.clusters_of(part)[kept]).sum())


def test_rows_that_share_a_prompt_stay_and_both_sides_get_some(lived: Lived) -> None:
    kept, held_out = kept_and_held_out(lived, "prompted")
    assert kept >= 290
    assert 10 <= held_out <= 60, "a tenth of them"


def test_a_source_that_is_lost_is_named_everywhere_with_both_numbers(lived: Lived) -> None:
    assert kept_and_held_out(lived, "repeated")[0] == 1
    said = "source repeated: 299 of 300 rows are near duplicates of others (deduplicate)"
    assert [loss.source for loss in read_losses(folder_of(lived, "inspect"))] == ["repeated"]
    assert said in lived.log
    assert said in lived.report.as_text()
    assert "299 of 300 rows are near duplicates" in lived.report.as_markdown()
    assert said in (folder_of(lived, "inspect") / PAGE).read_text(encoding="utf-8")
    assert "prompted" not in lived.report.as_text()


def test_above_the_limit_it_stops_the_night(lived: Lived, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSCHOOL_HOME", str(folder_of(lived, "inspect").parent.parent))
    with pytest.raises(NightStopped, match=r"max_lost_share_per_source") as stop:
        retrain_nightly(recipe=lived.recipe, overrides={"inspect.max_lost_share_per_source": 0.95})
    assert "source repeated: 299 of 300 rows" in str(stop.value)
    assert "deduplicate.near: keep" in str(stop.value), "the cure"
