"""The nights of a year, one after another, each with what the seed picked for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np

from benchmarks.year.faults import FAULTS, Fault
from benchmarks.year.finding import FIRST_CHATS, FIRST_TEXTS, Year, rows_of_year
from benchmarks.year.home import YearHome, first_night
from benchmarks.year.report import Chronicle, Day, size_of
from benchmarks.year.truth import Oracle

SETTLING_NIGHTS = 3
"""Without a fault, so that there is a champion."""
FAULT_SHARE = 0.125
"""Of the nights that follow; where nights are few, as many as there are faults."""


def planned_faults(nights: int, rng: np.random.Generator) -> dict[int, Fault]:
    """The fault of each night that has one, by its number from 0; each as often as the others."""
    free = range(SETTLING_NIGHTS, nights)
    number = min(len(free), max(len(FAULTS), round(FAULT_SHARE * nights)))
    when = sorted(rng.choice(free, size=number, replace=False).tolist())
    rounds = -(-number // len(FAULTS))
    order = [int(n) for _ in range(rounds) for n in rng.permutation(len(FAULTS))]
    return {night: FAULTS[fault] for night, fault in zip(when, order, strict=False)}


def live(year: Year, oracle: Oracle) -> Iterator[Day]:
    """The nights of the year, one after another."""
    year.home.deliver(*year.home.corpus.deal(0.0, FIRST_TEXTS, FIRST_CHATS, year.rng))
    faults = planned_faults(year.nights, year.rng)
    for number in range(year.nights):
        at = year.start + timedelta(days=number) + year.slept
        fault, finding, wrong = faults.get(number), None, list[str]()
        began = time.perf_counter()
        if fault:
            finding = fault.act(year, at)
        else:
            year.deliver(at)
            year.good_night(at, wrong)
        seconds = time.perf_counter() - began
        yield Day(
            number=number, at=at, fault=fault, finding=finding, wrong=tuple(wrong), looks=oracle.look(),
            champion=oracle.champion_worth(), seconds=seconds, size=size_of(year.home),
        )  # fmt: skip


def simulate(folder: Path, nights: int, seed: int) -> Chronicle:
    """Live a year in `folder`/home, which NIGHTSCHOOL_HOME must name; Prefect must be reached. Raises ValueError for
    more nights than there is text for."""
    home = YearHome.create(folder, seed)
    home.corpus.require(*rows_of_year(nights))
    year = Year(home, nights, first_night(), np.random.default_rng(seed))
    chronicle = Chronicle(nights=nights, seed=seed)
    for day in live(year, Oracle(home)):
        chronicle.days.append(day)
        print(day.as_text(), flush=True)
    chronicle.close(year)
    return chronicle
