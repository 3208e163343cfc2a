"""The page of a night that ended early: the reason, the cure in lines of its own, and never a traceback."""

from __future__ import annotations

import pytest

from tasks.errors import Diverged, Interrupted, NightStopped
from tasks.night.failure import explanation


def test_the_page_keeps_the_lines_of_the_reason() -> None:
    page = explanation("Night demo 2026-11-28", NightStopped("40 of 40 lines are bad\nRepair the data.\n\nAll: /x"))
    blocks = ["# Night demo 2026-11-28: stopped", "**40 of 40 lines are bad**", "Repair the data.", "All: /x"]
    assert page.split("\n\n")[:-1] == blocks


@pytest.mark.parametrize(
    ("error", "how", "why"),
    [
        (Diverged("pretrain: loss inf"), "diverged", "pretrain: loss inf"),
        (Interrupted("pretrain: asked at step 3"), "interrupted", "pretrain: asked at step 3"),
        (KeyboardInterrupt(), "interrupted", "interrupted"),
        (NightStopped(""), "stopped", ""),
        (ZeroDivisionError("a\nb"), "failed", "ZeroDivisionError: a b; the log of the run has the traceback"),
    ],
)
def test_the_heading_says_how_and_the_first_line_why(error: BaseException, how: str, why: str) -> None:
    heading, first = explanation("Night", error).split("\n\n")[:2]
    assert heading == f"# Night: {how}"
    assert first == f"**{why}**"
