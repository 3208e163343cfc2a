"""The page of a night: what it says with all of its values, with none, and with hostile ones."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.pages.nights.curves import StageEvent, Training
from tasks.pages.nights.night import (
    Change,
    Check,
    Comparison,
    DataCounts,
    Domain,
    NightFacts,
    Reply,
    StageLine,
    write_night_page,
)
from tasks.pages.nights.words import phrase
from tests.tasks.pages.nights.reading import PageReader, read_page

HOSTILE = "</style></script><script>alert('x')</script>\" onload=\"y' & \u202etfel \x00 \ud800 http://evil.example"
SECTIONS = ("changes", "curves", "domains", "replies", "experts", "plan", "data", "gate", "stages")
CURVE = [{"step": 0, "val/loss": 6.0}] + [
    {"step": n, "train/loss": 6 - n / 10, "train/lr": 0.01, "val/loss": 6 - n / 10} for n in range(1, 9)
]
BARE = NightFacts(recipe="demo", key="k0", day="2026-11-28", run_id="r0", ending="kept", reason="why", version=3)


def full(text: str = "words") -> NightFacts:
    """A night of which everything is known; every text that comes from outside is `text`."""
    by_domain = {f"loss.domain.{text}": 2.5, f"targets.domain.{text}": 64.0}
    changed = CURVE[4] | {"change/bpb_before": 2.5, "change/bpb_after": 2.4}
    training = Training(
        name=text, points=[*CURVE[:4], changed, *(point | by_domain for point in CURVE[5:])],
        events=[StageEvent(step=5, kind="roll_back", detail=text), StageEvent(step=6, kind=text)], tokens=1000,
        plan={"steps": 8, "seconds": 10.0, "peak_memory_mb": 100.0}, outcome={"steps": 8, "seconds": 12.0},
        load=[[1.0, 3.0], [4.0, 0.1]],
    )  # fmt: skip
    return NightFacts(
        recipe=text, key=text, day=text, run_id=text, ending="promoted", reason=text, version=7, decided_at=text,
        bpb=1.9, bpb_bounds=(1.8, 2.05), told=[text], audit=text,
        changes=[Change(what=text, before=text, now=text)], trainings=[training],
        comparison=Comparison(champion=6, champion_bpb=1.92, difference_bpb=-0.0212, lower_bpb=-0.0261,
                              upper_bpb=-0.0164, minimum_detectable_bpb=0.0061),
        domains=[
            Domain(name=text, documents=1203, bpb=1.98, champion_bpb=2.01, difference_bpb=-0.031, lower_bpb=-0.037,
                   upper_bpb=-0.025, tolerance_bpb=0.02, passed=True),
            Domain(name="zh", difference_bpb=0.034, lower_bpb=0.013, upper_bpb=0.055, passed=False),
        ],
        replies=[Reply(prompt=text, now=text, champion=text), Reply(prompt="p", now=" ", champion=None)],
        expert_figures={"eval/dead_experts": 1.0, "eval/load_entropy": 0.96, "eval/route_drift": 0.13},
        quality_figures={"eval/ece": (0.03, 0.04), f"eval/{text}": (1.0, None)},
        data=DataCounts(read=100, kept=80, exact=10, near=5, quarantined=5, train_rows=70, val_rows=10),
        data_told=[text], checks=[Check(name=text, value="0.3", limit="0.2", passed=False, sentence=text)],
        budget=[(text, text)], parameters=3_986_624,
        stages=[StageLine(name=text, seconds=61.0, reused=False, headline=text, run_id=text)],
    )  # fmt: skip


def written(facts: NightFacts, folder: Path) -> PageReader:
    return read_page(write_night_page(folder / "pages" / "night.html", facts).read_text(encoding="utf-8"))


def test_the_first_screen_answers_four_questions(tmp_path: Path) -> None:
    page = written(full(), tmp_path)
    top = page.source.split("<nav")[0]
    for told in (
        "registered as version <bdi>7</bdi>", "<bdi>\u22120.0212</bdi> bits per byte against version <bdi>6</bdi>",
        "between <bdi>\u22120.0261</bdi> and <bdi>\u22120.0164</bdi>", "<bdi>1 min 01 s</bdi> of work",
        "takes <bdi>1.9000</bdi> bits per byte (<bdi>1.8000 – 2.0500</bdi>)", "The champion takes <bdi>1.9200</bdi>",
    ):  # fmt: skip
        assert told in top
    assert "成功：" in top and "区间" in top


def test_every_section_is_there_in_both_languages(tmp_path: Path) -> None:
    page = written(full(), tmp_path)
    for name in SECTIONS:
        assert 'class="missing"' not in page.section(name) or name in ("replies",)
    assert "passed" in page.text["en"] and "passed" not in page.text["zh-CN"]
    assert "通过" in page.text["zh-CN"] and "通过" not in page.text["en"]


def test_a_night_of_which_nothing_is_known_says_so_section_by_section(tmp_path: Path) -> None:
    facts = replace(BARE, no_comparison=phrase("better.first"), no_changes=phrase("missing.first_model"))
    page = written(facts, tmp_path)
    for name in SECTIONS:
        assert page.section(name).count('class="missing"') == 1, name
    assert "there was no champion to compare with" in page.text["en"]


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    page = written(full(HOSTILE), tmp_path)
    source = page.source
    assert "<script" not in source and "\u202e" not in source and "\x00" not in source
    assert "alert('x')" in page.text["en"], "it is shown as it is"


def test_events_are_numbered_and_named_below_their_chart(tmp_path: Path) -> None:
    curves = written(full("pretrain"), tmp_path).section("curves")
    assert curves.count('<path class="event ') == 6  # three events in each of two charts
    named = curves.split('<ol class="events">')[1].split("</ol>")[0]
    assert named.count("<li>") == 3
    assert "experts changed" in named and "2.500 → 2.400" in named and "rolled back" in named


@pytest.mark.parametrize(
    ("comparison", "words"),
    [
        (Comparison(difference_bpb=0.03, lower_bpb=0.01, upper_bpb=0.05), "No, clearly worse"),
        (Comparison(difference_bpb=0.03, clearly_worse=True), "No, clearly worse"),
        (Comparison(difference_bpb=0.001, lower_bpb=-0.01, upper_bpb=0.02), "Not shown"),
        (Comparison(difference_bpb=-0.01, upper_bpb=-0.002), "Yes"),
        (Comparison(), "Nothing was compared"),
    ],
)
def test_better_is_told_as_the_numbers_have_it(comparison: Comparison, words: str) -> None:
    assert replace(BARE, comparison=comparison).better.in_language("en").startswith(words)


def test_lines_that_do_not_add_up_are_told(tmp_path: Path) -> None:
    data = DataCounts(read=100, kept=80, exact=10, near=5, quarantined=4, train_rows=70, val_rows=10)
    assert "does not add up" in written(replace(BARE, data=data), tmp_path).section("data")
    assert "does not add up" not in written(full(), tmp_path).section("data")


def test_a_dead_expert_is_marked_by_more_than_a_colour(tmp_path: Path) -> None:
    experts = written(full(), tmp_path).section("experts")
    assert experts.count('class="dead"') == 1 and "0.05" in experts


def test_what_is_not_finite_is_drawn_nowhere(tmp_path: Path) -> None:
    points = [{"step": 1, "train/loss": math.nan}, {"step": 2, "train/loss": 5.0, "train/lr": 0.1}]
    page = written(replace(BARE, trainings=[Training(name="sft", points=points)]), tmp_path)
    assert "nan" not in page.section("curves").replace("nan" + "o", "")


def test_the_loss_by_domain_is_that_of_all_targets_at_both_ends_of_the_curve(tmp_path: Path) -> None:
    """Of 20 steps the first two and the last two."""
    points = [{"step": 0, "val/loss": 6.0}] + [
        {"step": n, "train/loss": 1.0, "loss.domain.chat/en": float(n), "targets.domain.chat/en": float(n)}
        | ({"loss.domain.pretrain/zh": math.nan, "targets.domain.pretrain/zh": 5.0} if n == 20 else {})
        for n in range(1, 21)
    ]
    training = Training(name="sft", points=points)
    chat, text = training.by_domain
    assert (chat.name, text.name) == ("chat/en", "pretrain/zh")
    assert chat.first == pytest.approx((1 + 4) / 3)
    assert chat.last == pytest.approx((19**2 + 20**2) / 39)
    assert (text.first, text.last) == (None, None)
    assert chat.share + text.share == pytest.approx(1)
    assert text.share == pytest.approx(5 / 215)
    section = written(replace(BARE, trainings=[training]), tmp_path).section("curves")
    assert "chat/en" in section and "97.7%" in section and "19.513" in section
    assert Training(name="sft", points=CURVE).by_domain == []


def test_a_limit_that_nothing_was_compared_with_is_not_said_to_be_met(tmp_path: Path) -> None:
    found = [Check(name="max_rise", value="–", limit="1", passed=passed) for passed in (None, True, False)]
    section = written(replace(BARE, checks=found), tmp_path).section("gate")
    assert [section.count(word) for word in ("not checked", "passed", "failed")] == [1, 1, 1]
