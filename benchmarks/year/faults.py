"""The fifteen situations that a scheduled night must survive, each brought about in a year, and how it is found.

Each is a function of the year and the time of its night. It returns what was found, by which sentence, or why not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from benchmarks.year import data_faults, machine_faults, model_faults
from benchmarks.year.finding import Finding, Year

Act = Callable[[Year, datetime], Finding]


@dataclass(frozen=True)
class Fault:
    """One situation."""

    number: int
    name: str
    act: Act


FAULTS = (
    Fault(1, "nothing is new", data_faults.nothing_new),
    Fault(2, "a file is half written", data_faults.half_written),
    Fault(3, "rows of another schema", data_faults.other_schema),
    Fault(4, "a flood of one kind of row", data_faults.flood),
    Fault(5, "a corrupt archive among good files", data_faults.corrupt_archive),
    Fault(6, "the disk is full", machine_faults.disk_full),
    Fault(7, "five nights are missed, and the clock steps back", machine_faults.missed_nights),
    Fault(8, "two nights at once", machine_faults.two_at_once),
    Fault(9, "a stopped owner wakes up after a take-over", machine_faults.woken_owner),
    Fault(10, "a kill in the middle", machine_faults.killed),
    Fault(11, "a damaged checkpoint", machine_faults.damaged_checkpoint),
    Fault(12, "a model that is worse", model_faults.worse_model),
    Fault(13, "a gate that cannot pass", model_faults.closed_gate),
    Fault(14, "the tracking store is away, two promote at once", model_faults.store_away),
    Fault(15, "a notifier that fails on a good night", model_faults.failing_notifier),
)
