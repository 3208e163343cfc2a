"""What a training stage read is what its steps, walked one by one, have read."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tokens.order import Reading, rows_of_step

quick = settings(max_examples=60)


@quick
@given(num_rows=st.integers(1, 40), batch_rows=st.integers(1, 9), steps=st.integers(0, 30), seed=st.integers(0, 3))
def test_times_and_steps_are_those_of_a_walk(num_rows: int, batch_rows: int, steps: int, seed: int) -> None:
    reading = Reading(num_rows, batch_rows, seed, steps)
    walked = [rows_of_step(num_rows, batch_rows, seed, step).tolist() for step in range(steps)]
    times = Counter(row for rows in walked for row in rows)
    assert reading.times_read().tolist() == [times[row] for row in range(num_rows)]
    assert reading.whole_epochs == min(times[row] for row in range(num_rows))
    assert reading.epochs == steps * batch_rows / num_rows
    last = {row: step for step, rows in enumerate(walked, start=1) for row in rows}
    expected = [last[row] if times[row] > reading.whole_epochs else 0 for row in range(num_rows)]
    assert reading.last_steps().tolist() == expected


def test_nothing_is_read_of_nothing() -> None:
    reading = Reading(0, 4, 1, 10)
    assert (reading.epochs, reading.whole_epochs, reading.times_read().tolist()) == (0.0, 0, [])


def test_the_order_stays_the_same_when_other_orders_were_asked_for() -> None:
    first = rows_of_step(50, 8, 1, 3).tolist()
    for seed in (2, 3):
        rows_of_step(50, 8, seed, 9)
    assert rows_of_step(50, 8, 1, 3).tolist() == first
    assert sorted(np.concatenate([rows_of_step(50, 10, 1, step) for step in range(5)]).tolist()) == list(range(50))
