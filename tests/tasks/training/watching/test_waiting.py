from __future__ import annotations

import pytest

from tasks.training.curve import waited_share
from tasks.training.watching.waiting import waiting_summary

GB = 10**9


def test_the_share_is_that_of_the_time_of_all_steps() -> None:
    """Three seconds, one of them waiting, then one without: 1 of 4 s."""
    points = [
        {"step": 0, "val/loss": 9.0},
        {"step": 1, "train/data_wait_share": 1 / 3, "train/tokens_seen": 300, "train/tokens_per_s": 100},
        {"step": 2, "train/data_wait_share": 0.0, "train/tokens_seen": 600, "train/tokens_per_s": 300},
    ]
    assert waited_share(points) == pytest.approx(0.25)
    assert waited_share(points[:1]) == 0


@pytest.mark.parametrize(
    ("rows_bytes", "load", "cause"),
    [
        (15 * GB, 1.0, "move the home to a faster disk"),
        (1 * GB, 9.0, "9 processes want the 4 cores"),
        (1 * GB, 1.0, "from a slow disk or over a network"),
    ],
)
def test_much_waiting_is_told_with_its_likely_cause(rows_bytes: int, load: float, cause: str) -> None:
    [told] = waiting_summary(0.12, rows_bytes, 16 * GB, load, 4)
    assert told.startswith("waited for rows 12% of the time")
    assert cause in told
    assert waiting_summary(0.05, rows_bytes, 16 * GB, load, 4) == []
