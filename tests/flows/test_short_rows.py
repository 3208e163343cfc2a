"""A night whose rows are too short for most answers: each place says how many, why, and which length holds them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from data.lookup.fates import UNPACKED, VALIDATION, Fate, fate_of
from data.tokens.answers import HeldAnswers
from flows.__main__ import main
from tasks.home.contents.inspected import read_losses
from tasks.home.contents.packed import all_answers, read_answers
from tasks.home.records import StageRecord
from tasks.night.report import NightReport
from tasks.questions.history import History
from tasks.recipes.recipe import Recipe, recipe_from
from tasks.stages.inspect import PAGE
from tests.lived_home import prepare
from tests.logged_night import logged_night
from tests.tiny_recipe import tiny_content, write_sources

SLOTS = 24


@dataclass(frozen=True)
class Lived:
    recipe: Recipe
    report: NightReport
    log: str
    home: Path

    def record(self, stage: str) -> StageRecord:
        return next(record for record in self.report.records if record.stage == stage)

    @property
    def held(self) -> HeldAnswers:
        return read_answers(self.record("tokens"))["talk"]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Lived:
    folder = tmp_path_factory.mktemp("short")
    content = tiny_content(write_sources(folder / "raw"))
    recipe = recipe_from(content | {"data": {"sequence_length_tokens": SLOTS}, "promote": {"mode": "never"}})
    return Lived(recipe, *logged_night(recipe, folder), folder / "home")


def test_the_count_is_told_in_headline_log_summary_and_report(lived: Lived) -> None:
    held, tokens = lived.held, lived.record("tokens")
    assert held.lost > held.answers / 2
    assert held.unpacked > held.conversations / 2
    said = (
        f"{held.lost:,} of {held.answers:,} answers too long for a row, "
        f"{held.unpacked:,} of {held.conversations:,} conversations in none"
    )
    assert said in tokens.headline
    assert said in lived.log
    assert said in lived.report.as_markdown()
    assert tokens.counts["answers_in_no_row"] == held.lost
    assert tokens.counts["conversations_in_no_row"] == held.unpacked
    assert tokens.figures["data/lost_answers_share"] == held.lost_share
    page = (lived.record("inspect").path / PAGE).read_text(encoding="utf-8")
    for place in (lived.log, lived.report.as_text(), page):
        assert f"source talk: {held.lost:,} of {held.answers:,} answers are too long for a packed row" in place
        assert f"data.sequence_length_tokens: {held.row_length_for(0.99)} would hold 99%" in place
    assert f"{held.unpacked:,}" in page.partition("<h2>Answers</h2>")[2].partition("</section>")[0]


def test_the_named_length_holds_what_it_says_and_a_slot_less_does_not(lived: Lived, tmp_path: Path) -> None:
    [loss] = read_losses(lived.record("inspect").path)
    named = int(re.findall(r"sequence_length_tokens: (\d+)", loss.cure)[0])
    for length, enough in ((named, True), (named - 1, False)):
        data = replace(lived.recipe.data, sequence_length_tokens=length)
        record = prepare(tmp_path / str(length), replace(lived.recipe, data=data))[-1]
        held = all_answers(read_answers(record))
        assert (held.conversations, held.answers) == (lived.held.conversations, lived.held.answers)
        assert (held.lost_share <= 0.01) == enough
        assert 1 - held.lost_share == pytest.approx(lived.held.share_held_by(length))


def test_why_row_gives_the_reason(
    lived: Lived, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = History(lived.home).newest_data("tiny")
    fates = [fate_of(data.corpus, row) for row in range(data.corpus.ledger.next_row)]
    unpacked = [fate for fate in fates if fate.what == UNPACKED]
    held_out = [fate for fate in fates if fate.what == VALIDATION and fate.lost]
    assert unpacked and held_out
    monkeypatch.setenv("NIGHTSCHOOL_HOME", str(lived.home))

    def told(fate: Fate) -> str:
        assert main(["why-row", f"{data.labels[fate.place.part.part.number]}:{fate.place.line}"]) == 0
        return capsys.readouterr().out

    for fate in (unpacked[0], held_out[0]):
        lost = fate.lost[0]
        assert lost.needed > SLOTS
        assert (
            f"answer {lost.number}, of {lost.tokens} tokens with {lost.needed - lost.tokens} of context, does not fit "
            f"into a row of {SLOTS} slots; data.sequence_length_tokens: {lost.needed} holds it"
        ) in told(fate)
    assert sum(len(fate.lost) for fate in fates) == lived.held.lost
