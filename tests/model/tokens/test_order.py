"""What a training stage read is what its steps, walked one by one, have read."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tokens.order import Reading, TextReplay, TrunkReplay, mixed, rows_of_step

quick = settings(max_examples=60)


@quick
@given(num_rows=st.integers(1, 40), batch_rows=st.integers(1, 9), steps=st.integers(0, 30), seed=st.integers(0, 3))
def test_times_and_steps_are_those_of_a_walk(num_rows: int, batch_rows: int, steps: int, seed: int) -> None:
    reading = Reading(num_rows, batch_rows, seed, steps)
    walked = [rows_of_step(num_rows, batch_rows, seed, step).tolist() for step in range(steps)]
    times = Counter(row for rows in walked for row in rows)
    assert reading.times_read().tolist() == [times[row] for row in range(num_rows)]
    [pool] = reading.pools
    assert pool.whole_epochs == min(times[row] for row in range(num_rows))
    assert reading.epochs == steps * batch_rows / num_rows
    last = {row: step for step, rows in enumerate(walked, start=1) for row in rows}
    expected = [last[row] if times[row] > pool.whole_epochs else 0 for row in range(num_rows)]
    assert reading.last_steps().tolist() == expected


def test_nothing_is_read_of_nothing() -> None:
    reading = Reading(0, 4, 1, 10)
    assert (reading.epochs, reading.pools[0].whole_epochs, reading.times_read().tolist()) == (0.0, 0, [])


def test_the_order_stays_the_same_when_other_orders_were_asked_for() -> None:
    first = rows_of_step(50, 8, 1, 3).tolist()
    for seed in (2, 3):
        rows_of_step(50, 8, seed, 9)
    assert rows_of_step(50, 8, 1, 3).tolist() == first
    assert sorted(np.concatenate([rows_of_step(50, 10, 1, step) for step in range(5)]).tolist()) == list(range(50))


replays = st.builds(
    TrunkReplay,
    before=st.lists(st.integers(0, 3), min_size=1, max_size=40).map(lambda times: np.array(times, dtype=np.uint32)),
    share=st.floats(0, 1),
    salt=st.integers(0, 10**9),
)


def possible(replay: TrunkReplay) -> TrunkReplay:
    """With the share that its pools allow."""
    return TrunkReplay(replay.before, mixed(replay.share, 1e9, replay.before, 10**9), replay.salt)


@quick
@given(replay=replays.map(possible), batch_rows=st.integers(1, 9), steps=st.integers(0, 30), seed=st.integers(0, 3))
def test_what_is_read_beside_a_replay_is_that_of_a_walk(
    replay: TrunkReplay, batch_rows: int, steps: int, seed: int
) -> None:
    num_rows = len(replay.before)
    reading = Reading(num_rows, batch_rows, seed, steps, replay)
    walked = [rows_of_step(num_rows, batch_rows, seed, step, replay).tolist() for step in range(steps)]
    times = Counter(row for rows in walked for row in rows)
    assert reading.times_read().tolist() == [times[row] + int(replay.before[row]) for row in range(num_rows)]
    last = {row: step for step, rows in enumerate(walked, start=1) for row in rows}
    expected = [last[row] if times[row] > reading.pool_of(row).whole_epochs else 0 for row in range(num_rows)]
    assert reading.last_steps().tolist() == expected
    for pool in ([row for row in range(num_rows) if bool(replay.before[row]) == old] for old in (False, True)):
        counts = [times[row] for row in pool]
        assert not counts or max(counts) - min(counts) <= 1, "each pool is read epoch after epoch"


@quick
@given(replay=replays.map(possible), batch_rows=st.integers(1, 9), steps=st.integers(1, 30))
def test_replayed_rows_are_spread_as_evenly_as_can_be(replay: TrunkReplay, batch_rows: int, steps: int) -> None:
    rows = np.concatenate([rows_of_step(len(replay.before), batch_rows, 1, n, replay) for n in range(steps)])
    replayed = np.cumsum(replay.before[rows] > 0)
    assert np.abs(replayed - replay.share * np.arange(1, len(rows) + 1)).max() <= 1 + 1e-6


@quick
@given(
    replay=st.builds(TextReplay, own_rows=st.integers(1, 30), text_rows=st.integers(1, 30), share=st.floats(0, 1)),
    batch_rows=st.integers(1, 9), steps=st.integers(0, 30), seed=st.integers(0, 3),
)  # fmt: skip
def test_what_is_read_of_a_stage_s_rows_and_of_text_beside_them_is_that_of_a_walk(
    replay: TextReplay, batch_rows: int, steps: int, seed: int
) -> None:
    num_rows = replay.own_rows + replay.text_rows
    walked = [rows_of_step(num_rows, batch_rows, seed, step, replay).tolist() for step in range(steps)]
    times = Counter(row for rows in walked for row in rows)
    last = {row: step for step, rows in enumerate(walked, start=1) for row in rows}
    firsts = 0, replay.own_rows
    for first, reading in zip(firsts, replay.readings(batch_rows, seed, steps), strict=True):
        rows = range(first, first + reading.num_rows)
        [pool] = reading.pools
        assert reading.times_read().tolist() == [times[row] for row in rows]
        assert reading.epochs == sum(times[row] for row in rows) / len(rows)
        expected = [last[row] if times[row] > pool.whole_epochs else 0 for row in rows]
        assert reading.last_steps().tolist() == expected
    text = sum(times[row] for row in range(replay.own_rows, num_rows))
    assert text == int(replay.share * steps * batch_rows)


def test_new_rows_are_read_only_so_often_and_the_rest_is_replayed() -> None:
    before = np.array([0] * 10 + [1] * 90)
    assert mixed(0.25, 4, before, 40) == 0.25  # 30 of the 40 are new rows, three times each
    assert mixed(0.25, 4, before, 100) == 0.6  # 40 of the 100 are, four times each
    assert mixed(0.25, 4, before[:10], 100) == 0.0
    assert mixed(0.25, 4, before[10:], 100) == 1.0


def test_nights_of_one_trunk_read_in_different_orders() -> None:
    before = np.ones(50, dtype=np.uint32)
    first, second = (rows_of_step(50, 50, 1, 0, TrunkReplay(before, 1.0, salt)).tolist() for salt in (1, 2))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
