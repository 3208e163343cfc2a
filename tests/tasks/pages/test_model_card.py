"""The card of a model: a head that hubs read, the data with its licences, the training, the numbers, the limits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from data.rows.statistics import Fates, NightStatistics
from tasks.evaluation.card import lineage_lines, on_card, training_of
from tasks.pages.model_card import ModelFacts, SourceOnCard, TrainingOnCard, licence_of, model_card
from tasks.recipes.stage_configs import SourceConfig
from tasks.sources.builtin import MAKERS, origin_of
from tests.tasks.rows import stage_record

BOOKS = SourceOnCard(name="books", kind="pretrain", rows=1_200, origin="a file", licence="CC-BY-4.0")
TALK = SourceOnCard(name="talk", kind="chat", rows=None, origin="hub:owner/name", licence="")
SFT = TrainingOnCard(stage="sft", tokens=450_000, steps=220, peak_lr=0.0015, schedule="5% warm-up", seconds=125.4)


def facts(**changes: object) -> ModelFacts:
    values: dict[str, object] = {
        "recipe": "demo", "day": "2026-11-29", "size": "3,986,624 parameters", "architecture": "qwen3_moe",
        "max_tokens": 2048, "languages": ["en", "zh"], "sources": [BOOKS, TALK], "trainings": [SFT],
        "hardware": "2 cores of a CPU (x86_64), no GPU", "figures": {"val/bpb": 1.95912, "unknown": 1.0},
        "decision": "better: by | a little", "evidence": {"difference_bpb": -0.0123, "refused": False},
        "lineage": ["night of 2026-11-28, version 3"],
    }  # fmt: skip
    return ModelFacts(**(values | changes))  # type: ignore[arg-type]


def parted(card: str) -> tuple[dict[str, object], str]:
    """Its head, as YAML, and what follows."""
    found = re.fullmatch(r"---\n(.*?)\n---\n\n(.*)", card, re.DOTALL)
    assert found is not None
    return yaml.safe_load(found[1]), found[2]


def test_a_card_says_where_the_model_comes_from_how_good_it_is_and_what_it_is_not_for() -> None:
    head, body = parted(model_card(facts()))
    assert head == {
        "library_name": "transformers", "pipeline_tag": "text-generation", "language": ["en", "zh"],
        "license": "unknown", "tags": ["nightschool", "qwen3_moe", "demo"],
    }  # fmt: skip
    for part in (
        "| books | pretrain | 1,200 | a file | CC-BY-4.0 |", "| talk | chat |  | hub:owner/name | not stated |",
        "No licence is stated of talk", "| sft | 450,000 | 220 | 0.0015 | 5% warm-up | 2 min 5 s |",
        "Hardware: 2 cores of a CPU (x86_64), no GPU.", "side: 1.959\n", "better: by \\| a little",
        "- difference_bpb: -0.0123\n", "- night of 2026-11-28, version 3\n", "## What it is not for",
        'load_model("models:/nightschool-demo@champion")',
    ):  # fmt: skip
        assert part in body, part
    assert "refused" not in body and "unknown:" not in body


def test_a_first_night_says_that_it_began_with_random_weights() -> None:
    assert "from this one night, from random ones" in model_card(facts(lineage=[]))


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        (["MIT", "mit"], {"license": "mit"}),
        (["MIT", "BSD-3-Clause"], {"license": "other"}),
        (["PSF-2.0"], {"license": "other"}),
        (["MIT", ""], {"license": "unknown"}),
        ([], {"license": "unknown"}),
    ],
)
def test_licences_are_named_as_hubs_name_them(licences: list[str], expected: dict[str, str]) -> None:
    named = licence_of(licences)
    assert named["license"] == expected["license"]
    assert ("license_name" in named) == (named["license"] == "other")


@given(st.text(min_size=1, max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_no_name_breaks_the_head_or_a_table(name: str, licence: str, line: str) -> None:
    source = SourceOnCard(name=name, kind="chat", rows=1, origin=line, licence=licence)
    head, body = parted(model_card(facts(recipe=name, sources=[source], decision=line, lineage=[line])))
    assert head["tags"] == ["nightschool", "qwen3_moe", name]
    [row] = [found for found in body.splitlines() if " | chat | 1 | " in found]
    assert len(re.findall(r"(?<!\\)\|", row)) == 6


def test_built_in_text_states_its_licence_and_a_path_of_this_machine_is_not_shown() -> None:
    for name in MAKERS:
        assert all(origin_of(f"builtin:{name}"))
    own = SourceConfig(name="own", kind="chat", location="/somewhere/talk.jsonl", licence="CC0-1.0")
    card = on_card(own, NightStatistics())
    assert (card.origin, card.licence, card.rows) == ("a file", "CC0-1.0", None)
    builtin = SourceConfig(name="b", kind="chat", location="builtin:chat-english")
    assert on_card(builtin, NightStatistics()).licence == "BSD-3-Clause"
    kept = NightStatistics(fates={"b": Fates(read=5, kept=3, exact_duplicates=2)})
    assert on_card(builtin, kept).rows == 3, "what is left after deduplication"
    remote = SourceConfig(name="r", kind="chat", location="https://example.org/x.jsonl")
    assert on_card(remote, NightStatistics()).origin == "https://example.org/x.jsonl"


def test_nights_of_a_lineage_are_lines_and_the_oldest_are_counted() -> None:
    nights = [{"day": f"2026-11-{day:02}", "night": "a" * 64, "version": day} for day in range(1, 16)]
    assert lineage_lines([]) == []
    lines = lineage_lines(nights)
    assert lines[0] == "3 earlier nights"
    assert lines[1] == "night of 2026-11-04, version 4, night aaaaaaaaaaaa"


def test_a_training_stage_is_told_with_its_schedule(tmp_path: Path) -> None:
    config = {"train": {"optim": {"peak_lr": 0.003, "warmup_share": 0.05, "stable_share": 0.75, "decay": "linear"}}}
    record = stage_record(tmp_path, stage="sft", config=config, counts={"steps": 220, "tokens_seen": 450_000})
    told = training_of(record)
    assert (told.steps, told.tokens, told.peak_lr) == (220, 450_000, 0.003)
    assert told.schedule == "5% warm-up, 75% constant, then linear decay"
