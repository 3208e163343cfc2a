"""Which sources are said to have lost most of their rows, and which of those stop a night."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.duplicates.decide import NearDuplicateRules
from data.rows.statistics import Fates
from data.tokens.answers import HeldAnswers
from tasks.errors import NightStopped
from tasks.home.contents.inspected import (
    FEWEST_ROWS,
    lost_answers,
    lost_lines,
    lost_sides,
    stop_if_too_much,
    worth_naming,
)
from tasks.recipes.stage_configs import InspectConfig
from tests.data.corpus import RULES, Home, Piece, document, edited, plain

FATES = Fates(
    read=400, kept=1, exact_duplicates=60, near_duplicates=239, quarantined=100, rules={"role_missing": 90, "rest": 10}
)


def test_each_stage_is_measured_by_the_rows_it_was_given() -> None:
    found = {(loss.stage, loss.lost, loss.of, loss.may_stop) for loss in lost_lines({"talk": FATES})}
    assert found == {("validate", 100, 400, True), ("deduplicate", 60, 300, False), ("deduplicate", 239, 240, True)}
    assert "most by role_missing" in next(lost_lines({"talk": FATES})).sentence


def test_only_more_than_the_share_is_named_most_rows_first() -> None:
    few = Fates(read=FEWEST_ROWS - 1, kept=0, near_duplicates=FEWEST_ROWS - 1)
    half = Fates(read=200, kept=100, near_duplicates=100)
    every = list(lost_lines({"talk": FATES, "few": few, "half": half, "more": replace(half, near_duplicates=101)}))
    named = worth_naming(every, InspectConfig())
    assert [(loss.source, loss.lost) for loss in named] == [("talk", 239), ("more", 101)]


@pytest.mark.parametrize(
    ("changes", "stops"),
    [
        ({}, True),
        ({"max_lost_share_per_source": 1.0}, False),
        ({"min_rows_to_judge": 241}, False),
        ({"min_rows_to_judge": 240}, True),
    ],
)
def test_the_limit_stops_the_night(changes: dict[str, float], stops: bool) -> None:
    config = InspectConfig(**changes)
    losses = worth_naming(list(lost_lines({"talk": FATES})), config)
    if not stops:
        stop_if_too_much(losses, config, Path("page"))
        return
    with pytest.raises(NightStopped, match=r"source talk: 239 of 240 rows.*near_threshold"):
        stop_if_too_much(losses, config, Path("page"))


def test_copies_that_are_delivered_again_stop_nothing() -> None:
    again = Fates(read=1_000, kept=1, exact_duplicates=999)
    [loss] = worth_naming(list(lost_lines({"talk": again})), InspectConfig())
    stop_if_too_much([loss], InspectConfig(), Path("page"))
    assert "999 of 1,000 rows are exact copies" in loss.sentence


def test_a_source_on_one_side_is_told_with_its_clusters(tmp_path: Path) -> None:
    its = Home(tmp_path, NearDuplicateRules(threshold=0.8, drop=False))
    family = [plain(document(5, 80)), *(edited(document(5, 80), seed) for seed in range(19))]
    its.add(Piece(family, source="books"), Piece([plain(document(n)) for n in range(30, 60)], source="web"))
    low, high = (replace(RULES, val_share=share) for share in (1e-9, 1 - 1e-9))
    by_source = {loss.source: loss for loss in lost_sides(its.ledger, high)}
    assert by_source["books"].may_stop and "20 of 20 rows lie on the validation side" in by_source["books"].sentence
    assert "in 1 cluster, the largest of 20 rows" in by_source["books"].sentence
    assert not list(lost_sides(its.ledger, low)), "so few are expected there that none is no wonder"
    assert {loss.source for loss in lost_sides(its.ledger, RULES)} <= {"books"}


HELD = HeldAnswers(conversations=90, unpacked=2, answers=200, needed={100: 5, 300: 1, 50_000: 2})


@pytest.mark.parametrize(
    ("held", "longest", "cure"),
    [
        (HELD, 1_024, "data.sequence_length_tokens: 300 would hold 99% of the source's answers"),
        (
            HELD,
            256,
            "300 would hold 99% of the source's answers (model.max_position_embeddings, 256, must be as large)",
        ),
        (replace(HELD, needed={100: 1}), 1_024, "data.sequence_length_tokens: 100 would hold 100% of the source's"),
        (replace(HELD, needed={50_000: 20}), 1_024, "99% of them need 50,000 slots, more than rows can have"),
        (replace(HELD, needed={50_000: 20}), 1_024, "data.sequence_length_tokens: 32768 would hold 90.0%"),
    ],
)
def test_lost_answers_name_the_row_that_would_hold_them(held: HeldAnswers, longest: int, cure: str) -> None:
    [loss] = lost_answers({"talk": held}, 64, longest)
    assert f"talk: {held.lost} of 200 answers are too long for a packed row of 64 slots, 2 of 90 conversations" in (
        loss.sentence
    )
    assert cure in loss.sentence


def test_a_few_lost_answers_are_worth_a_word_and_fewer_are_not() -> None:
    every = list(lost_answers({"talk": HELD, "other": replace(HELD, needed={100: 2})}, 64, 1_024))
    assert [loss.source for loss in worth_naming(every, InspectConfig())] == ["talk"]
    assert len(worth_naming(every, InspectConfig(warn_lost_answers_share=0.009))) == 2
    assert not worth_naming(every, InspectConfig(warn_lost_answers_share=0.05))


@given(st.dictionaries(st.integers(65, 400), st.integers(1, 30)), st.integers(0, 500), st.floats(0.01, 1))
def test_the_row_length_for_a_share_is_the_shortest_that_holds_it(
    needed: dict[int, int], others: int, share: float
) -> None:
    held = HeldAnswers(answers=others + sum(needed.values()), needed=needed)
    length = held.row_length_for(share)
    if not length:
        assert 1 - held.lost_share >= share - 1e-12
        return
    assert held.share_held_by(length) >= share - 1e-12 > held.share_held_by(length - 1) - 1e-9
    assert HeldAnswers.from_dict(held.as_dict()) == held
