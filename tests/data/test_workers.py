"""Results in the order of the jobs, in this process or in others; and no process that stays behind."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from unittest.mock import patch

import psutil
import pytest

from data import workers
from data.workers import POOL_PAYS_BYTES, default_workers, run_jobs
from tests.killed import outliving

ENOUGH = POOL_PAYS_BYTES


def sum_up_to(limit: int) -> int:
    """Work that takes longer for some jobs than for others, and lets other threads run."""
    return sum(number for number in range(limit))


def process_id(_: int) -> int:
    return os.getpid()


def refuse_odd(number: int) -> int:
    if number % 2:
        raise ArithmeticError(f"{number} is odd")
    return number


def end_abruptly(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def ignores_interrupts(_: int) -> bool:
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def pool_processes() -> list[int]:
    """Workers of this process: children of the one that multiprocessing forks them from, which itself stays."""
    found = []
    for server in psutil.Process().children():
        try:
            if any("forkserver" in argument for argument in server.cmdline()):
                found += [child.pid for child in server.children() if child.status() != psutil.STATUS_ZOMBIE]
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture(autouse=True)
def _nothing_stays_behind() -> Iterator[None]:
    before = set(pool_processes())
    yield
    assert set(pool_processes()) <= before


@pytest.mark.parametrize(("num_bytes", "count"), [(0, 4), (ENOUGH - 1, 4), (ENOUGH, 1), (ENOUGH, 0)])
def test_little_work_stays_in_this_process(num_bytes: int, count: int) -> None:
    assert list(run_jobs(process_id, [1, 2, 3], num_bytes, count)) == [os.getpid()] * 3


def test_one_job_stays_in_this_process_and_none_is_none() -> None:
    assert list(run_jobs(process_id, [1], ENOUGH, 4)) == [os.getpid()]
    assert list(run_jobs(process_id, [], ENOUGH, 4)) == []


@pytest.mark.parametrize("jobs", [[3_000_000, 1, 200_000, 2], range(40)])
def test_results_come_in_the_order_of_jobs_from_other_processes_too(jobs: Sequence[int]) -> None:
    alone = list(run_jobs(sum_up_to, jobs, 0))
    assert alone == [limit * (limit - 1) // 2 for limit in jobs]
    assert list(run_jobs(sum_up_to, jobs, ENOUGH, 2)) == alone


def test_enough_work_goes_to_other_processes_that_leave_ctrl_c_to_this_one() -> None:
    found = set(run_jobs(process_id, range(4), ENOUGH, 2))
    assert os.getpid() not in found and 1 <= len(found) <= 2
    assert all(run_jobs(ignores_interrupts, range(2), ENOUGH, 2))
    assert not ignores_interrupts(0)


def test_the_default_is_a_worker_for_each_core_that_may_be_used() -> None:
    with patch.object(workers, "default_workers", return_value=1):
        assert set(run_jobs(process_id, range(3), ENOUGH)) == {os.getpid()}
    assert 1 <= default_workers() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("num_bytes", [0, ENOUGH])
def test_results_before_an_error_come_and_the_error_is_the_job_s(num_bytes: int) -> None:
    results, found = run_jobs(refuse_odd, [0, 2, 4, 5, 6, 8], num_bytes, 2), []
    with pytest.raises(ArithmeticError, match="5 is odd"):
        for result in results:
            found.append(result)
    assert found == [0, 2, 4]
    assert not pool_processes()


def test_a_worker_that_dies_is_an_error_and_no_endless_wait() -> None:
    with pytest.raises(Exception, match="terminated abruptly"):
        list(run_jobs(end_abruptly, range(4), ENOUGH, 2))
    assert not pool_processes()


def test_who_stops_asking_ends_the_workers() -> None:
    results = run_jobs(sum_up_to, [10, 10**9, 10**9, 10**9], ENOUGH, 2)  # minutes of work
    assert next(iter(results)) == 45
    assert pool_processes()
    results.close()
    assert not pool_processes()


def test_an_error_ends_the_work_that_others_still_do() -> None:
    with pytest.raises(TypeError):
        list(run_jobs(sum_up_to, ["no number", 10**10], ENOUGH, 2))
    assert not pool_processes()


def ask_and_wait(line: Connection) -> None:
    """Tell which workers still have hours of work."""
    results = run_jobs(sum_up_to, [10, 10**12, 10**12], ENOUGH, 2)
    next(results)
    line.send(pool_processes())
    line.recv()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker does not learn that its parent has died")
def test_workers_do_not_outlive_a_parent_that_is_killed() -> None:
    assert not outliving(ask_and_wait)
