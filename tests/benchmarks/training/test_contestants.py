from __future__ import annotations

import functools
import os

import pytest

from benchmarks.training.contestants import contestant


def test_a_contestant_works_each_time_it_is_asked() -> None:
    with contestant("powers", functools.partial, pow, 2) as power:
        found = [power(5), power(6)]
    assert [work.result for work in found] == [32, 64]
    assert all(work.seconds > 0 and work.held_bytes > 0 for work in found)


def test_a_contestant_that_is_gone_is_named() -> None:
    with (
        contestant("lost", os._exit, 3) as lost,
        pytest.raises(SystemExit, match="lost: its process ended during a call"),
    ):
        lost()
