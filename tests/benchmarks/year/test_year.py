"""A short year with every fault, lived by the real flow; and a year that is told as it was, whatever went wrong."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from benchmarks.year.corpus import Corpus
from benchmarks.year.faults import FAULTS
from benchmarks.year.finding import Finding, rows_of_year
from benchmarks.year.home import SERVER_TIMES, date_rows, first_night
from benchmarks.year.nights import SETTLING_NIGHTS, planned_faults, simulate
from benchmarks.year.report import SETTLED_NIGHTS, Chronicle
from benchmarks.year.simulate import in_memory
from benchmarks.year.truth import Look

NIGHTS = 20


@pytest.fixture(scope="module")
def chronicle(prefect_server: None) -> Chronicle:
    with TemporaryDirectory(dir=in_memory()) as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIGHTSCHOOL_HOME", f"{folder}/home")
        return simulate(Path(folder), NIGHTS, seed=1)


def test_every_fault_is_found_and_no_model_is_promoted_that_is_worse(chronicle: Chronicle) -> None:
    assert {day.fault.number for day in chronicle.days if day.fault} == set(range(1, 16))
    assert chronicle.as_it_should_be, chronicle.as_text()
    promotions = sum(look.promoted for look in chronicle.looks)
    assert promotions >= 2, "a year in which nothing is promoted shows nothing"


def test_every_model_is_looked_at_whichever_process_registered_it(chronicle: Chronicle) -> None:
    versions = {look.version for look in chronicle.looks}
    assert versions == set(range(1, max(versions) + 1))


def test_the_year_is_drawn(chronicle: Chronicle, tmp_path: Path) -> None:
    chronicle.draw(tmp_path / "year.svg")
    assert "</svg>" in (tmp_path / "year.svg").read_text()


def test_what_goes_wrong_is_told(chronicle: Chronicle) -> None:
    faulty = next(day for day in chronicle.days if day.fault)
    missed = replace(faulty, finding=Finding(message=""))
    harmed = replace(faulty, finding=Finding(message="found", wrong=("a row was lost",)))
    fooled = replace(faulty, looks=(Look(9, True, bits_per_byte=2.0, against=1.9),))
    broken = replace(faulty, wrong=("the night did not come to its end",))
    for day in (missed, harmed, fooled, broken):
        assert not Chronicle(nights=NIGHTS, seed=1, days=[day]).as_it_should_be
    assert not Chronicle(nights=NIGHTS, seed=1, days=[faulty], silent=1).as_it_should_be
    assert not Chronicle(nights=NIGHTS, seed=1, days=[faulty], unread=1).as_it_should_be
    assert "a row was lost" in Chronicle(nights=NIGHTS, seed=1, days=[harmed]).as_text()


@pytest.mark.parametrize("what", ["files", "rows", "num_bytes"])
def test_a_home_that_grows_without_its_data_is_told(chronicle: Chronicle, what: str) -> None:
    quiet = next(day for day in chronicle.days if not day.fault)
    flat = Chronicle(nights=SETTLED_NIGHTS, seed=1, days=[quiet] * SETTLED_NIGHTS)
    assert flat.as_it_should_be
    grown = [
        replace(quiet, size=replace(quiet.size, **{what: round(getattr(quiet.size, what) * (1 + number / 100))}))
        for number in range(SETTLED_NIGHTS)
    ]
    told = Chronicle(nights=SETTLED_NIGHTS, seed=1, days=grown)
    assert not told.as_it_should_be
    assert told.grown[0] in told.as_text()


def test_rows_get_old_by_the_clock_of_the_year(tmp_path: Path) -> None:
    """Those to which another process gave the machine's time."""
    night, database = first_night(), tmp_path / "prefect.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        for table, column in SERVER_TIMES:
            connection.execute(f"CREATE TABLE {table} ({column} TEXT)")
            rows = [("2023-12-31 02:00:00.000000",), ("2026-11-29 18:43:00.000000",), (None,)]
            connection.executemany(f"INSERT INTO {table} VALUES (?)", rows)
        date_rows(database, night)
        for table, column in SERVER_TIMES:
            found = [time for (time,) in connection.execute(f"SELECT {column} FROM {table} ORDER BY rowid")]
            assert found == ["2023-12-31 02:00:00.000000", "2024-01-01 02:00:00.000000", None]


def test_there_is_text_for_a_year_and_too_many_nights_are_refused_at_once() -> None:
    corpus = Corpus(1)
    corpus.require(*rows_of_year(365))
    with pytest.raises(ValueError, match=r"so many nights take .* texts"):
        corpus.require(*rows_of_year(500))


@pytest.mark.parametrize("nights", [20, 100, 365])
def test_each_fault_comes_about_as_often_as_the_others_and_never_in_the_first_nights(nights: int) -> None:
    planned = planned_faults(nights, np.random.default_rng(3))
    times = Counter(fault.number for fault in planned.values())
    assert set(times) == {fault.number for fault in FAULTS}
    assert max(times.values()) - min(times.values()) <= 1
    assert min(planned) >= SETTLING_NIGHTS and max(planned) < nights
