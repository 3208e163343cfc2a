"""The page over all nights, for one and for a thousand: no night is left out, and none is told by colour alone."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from tasks.home.outcomes import NightOutcome
from tasks.pages.nights.all_nights import ENDINGS, ByHand, NightsFacts, write_nights_page
from tests.tasks.pages.nights.reading import PageReader, read_page

HOSTILE = "</td></table><script>alert('x')</script>\"' \u202e"


def year(count: int, same_day: bool = False) -> list[NightOutcome]:
    rng, nights = random.Random(count), []
    for number in range(count):
        day = str(date(2026, 1, 1) + timedelta(days=0 if same_day else number))
        ending = ENDINGS[number % len(ENDINGS)]
        night = NightOutcome(
            recipe="demo", key=f"{number:064x}", day=day, at=f"{day}T02:00:00+00:00", ending=ending,  # type: ignore[arg-type]
            reason=f"reason {number}", home_bytes=10**8 + number, seconds=60.0 + number,
        )  # fmt: skip
        if ending in ("promoted", "kept", "waits", "refused"):
            difference = rng.gauss(0, 0.01)
            night = replace(
                night, version=number + 1, bits_per_byte=2 + difference, difference_bpb=difference, rows=1000 + number,
                lower_bpb=difference - 0.01, upper_bpb=difference + 0.01, validation=f"v{1 + number // 50} d",
                new_bytes=1_000,
            )  # fmt: skip
        nights.append(night)
    return nights


def written(facts: NightsFacts, folder: Path) -> PageReader:
    return read_page(write_nights_page(folder / "all.html", facts).read_text(encoding="utf-8"))


@pytest.mark.parametrize("count", [1, 2, 9, 400])
def test_every_night_has_its_row_and_every_ending_its_count(count: int, tmp_path: Path) -> None:
    facts = NightsFacts(recipe="demo", nights=year(count))
    page = written(facts, tmp_path)
    rows = page.section("every_night").count("<tr><td>")
    assert rows == count == sum(number for _, number in facts.endings)
    for night in facts.nights:
        assert f"<bdi>{night.reason}</bdi>" in page.source
    lanes = page.section("over_nights").split('aria-labelledby="nights-endings-title')[1].split("</svg>")[0]
    assert lanes.count("<use ") == count + len(facts.endings)


def test_nights_that_failed_or_were_skipped_have_their_shape_and_row(tmp_path: Path) -> None:
    page = written(NightsFacts(recipe="demo", nights=year(9)), tmp_path)
    for ending in ENDINGS:
        assert f'<symbol id="shape-{ending}"' in page.source
        assert f'<span class="ending {ending}">' in page.section("every_night")
    assert "The newest night did not come to its end" in page.text["en"]
    assert "没有走到终点" in page.text["zh-CN"]


def test_a_night_without_a_score_draws_no_bits_per_byte(tmp_path: Path) -> None:
    page = written(NightsFacts(recipe="demo", nights=[year(9)[5]]), tmp_path)
    assert 'id="nights-bpb-title"' not in page.source and "No night came to a score" in page.text["en"]


def test_nights_of_one_day_stand_side_by_side() -> None:
    facts = NightsFacts(recipe="demo", nights=year(5, same_day=True))
    assert facts.places == [1, 2, 3, 4, 5] and not facts.named_x
    apart = NightsFacts(recipe="demo", nights=[*year(3), replace(year(1)[0], day="2026-01-10")])
    assert [b - a for a, b in zip(apart.places, apart.places[1:], strict=False)] == [1, 1, 7], "a gap is a gap"


def test_other_validation_documents_are_marked(tmp_path: Path) -> None:
    page = written(NightsFacts(recipe="demo", nights=year(120)), tmp_path)
    assert page.source.count('class="event validation"') == 2
    assert "scores from here on are on validation" in page.text["en"]


def test_what_a_person_did_stands_beside_the_nights(tmp_path: Path) -> None:
    moved = ByHand(at="2026-01-02T09:00:00+00:00", version=3, rolled_back=4)
    facts = NightsFacts(recipe="demo", nights=year(4), by_hand=[moved])
    told = written(facts, tmp_path).section("by_hand")
    assert "version <bdi>3</bdi> the champion" in told and "Version <bdi>4</bdi> was rolled back" in told
    assert "Nobody" in written(replace(facts, by_hand=()), tmp_path).section("by_hand")


def test_hostile_text_stays_text_and_pages_are_linked(tmp_path: Path) -> None:
    nights = [replace(night, reason=HOSTILE, went_back=HOSTILE) for night in year(2)]
    facts = NightsFacts(recipe=HOSTILE, nights=nights, pages={nights[0].at: "demo%40k.html"})
    page = written(facts, tmp_path)
    assert "<script" not in page.source and "\u202e" not in page.source
    assert '<a href="demo%40k.html">' in page.source


def test_the_table_of_the_terminal_is_bounded_and_newest_first() -> None:
    lines = NightsFacts(recipe="demo", nights=year(400)).as_table().as_text().splitlines()
    assert len(lines) == 62 and lines[-1].startswith("and 340 more")
    assert lines[1].startswith("2027-02-04") and max(map(len, lines)) <= 200
