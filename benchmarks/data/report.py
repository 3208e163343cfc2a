"""The table of a run, what it was to reach, and whether it did."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.data.corpora import Census
    from benchmarks.data.measurement import Measurement


SPEED_TARGETS = {"validate": 150, "shuffle": 100, "tokens": 80, "chain": 50}
"""MB/s at the largest size."""
MIN_RATIO = 3.0
MAX_PEAK_MB = 1_000
FLAT_FROM_BYTES, MAX_GROWTH = 100_000_000, 1.3
NOTES = (
    "Peak is private memory of the whole process tree; pages that forked processes share count in each of them.",
    "datasets reads a copy without the lines that break its reader, made beforehand and not timed; it has no step for "
    "near duplicates, and its chain does without.",
)


@dataclass(frozen=True)
class Cell:
    """One side, step and size over its repeats."""

    mb_per_s: float
    """Median."""
    seconds: float
    """Median."""
    peak_mb: float
    """Highest."""


@dataclass(frozen=True)
class Target:
    name: str
    found: str
    met: bool


Cells = Mapping[tuple[str, str, int], Cell]
"""By side, step and size in bytes."""


def cells_of(found: Iterable[Measurement]) -> dict[tuple[str, str, int], Cell]:
    """Repeats drawn together; a step that failed once has no cell."""
    groups: dict[tuple[str, str, int], list[Measurement]] = {}
    for one in found:
        groups.setdefault((one.side, one.step, one.size_bytes), []).append(one)
    return {
        key: Cell(
            statistics.median(one.mb_per_s for one in group),
            statistics.median(one.usage.seconds for one in group if one.usage),
            max(one.usage.peak_anonymous_bytes for one in group if one.usage) / 1e6,
        )
        for key, group in groups.items()
        if all(one.usage for one in group)
    }


def size_name(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:g} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:g} MB"


def table(cells: Cells, keys: Iterable[tuple[str, int]]) -> Iterator[str]:
    titles = ("size", "MB/s ours", "datasets", "ratio", "peak MB ours", "datasets")
    yield "step          {:>7} {:>11} {:>9} {:>6} {:>13} {:>9}".format(*titles)
    for step, size in keys:
        ours, theirs = cells.get(("ours", step, size)), cells.get(("datasets", step, size))
        speeds = [f"{cell.mb_per_s:.1f}" if cell else "-" for cell in (ours, theirs)]
        peaks = [f"{cell.peak_mb:,.0f}" if cell else "-" for cell in (ours, theirs)]
        ratio = f"{ours.mb_per_s / theirs.mb_per_s:.1f}" if ours and theirs else "-"
        yield f"{step:13} {size_name(size):>7} {speeds[0]:>11} {speeds[1]:>9} {ratio:>6} {peaks[0]:>13} {peaks[1]:>9}"


def targets(cells: Cells) -> Iterator[Target]:
    """What of the targets this run has measured."""
    ours = {(step, size): cell for (side, step, size), cell in cells.items() if side == "ours"}
    if not ours:
        return
    largest = max(size for _, size in ours)
    at = size_name(largest)
    for step, least in SPEED_TARGETS.items():
        if cell := ours.get((step, largest)):
            yield Target(f"{step} at {at}: at least {least} MB/s", f"{cell.mb_per_s:.1f}", cell.mb_per_s >= least)
    for (step, size), cell in ours.items():
        theirs = cells.get(("datasets", step, size))
        if theirs and size == largest:
            ratio = cell.mb_per_s / theirs.mb_per_s
            yield Target(f"{step} at {at}: at least {MIN_RATIO:g} x datasets", f"{ratio:.1f}", ratio >= MIN_RATIO)
    (step, size), worst = max(ours.items(), key=lambda item: item[1].peak_mb)
    found = f"{worst.peak_mb:,.0f} ({step}, {size_name(size)})"
    yield Target(f"peak: at most {MAX_PEAK_MB:,} MB", found, worst.peak_mb <= MAX_PEAK_MB)
    for step in dict.fromkeys(step for step, _ in ours):
        peaks = [cell.peak_mb for (name, size), cell in ours.items() if name == step and size >= FLAT_FROM_BYTES]
        if len(peaks) > 1:
            growth = max(peaks) / min(peaks)
            yield Target(
                f"{step}: peak within {MAX_GROWTH} x from {size_name(FLAT_FROM_BYTES)}", f"{growth:.2f}",
                growth <= MAX_GROWTH,
            )  # fmt: skip


def second_nights(cells: Cells) -> Iterator[str]:
    for (side, step, size), cell in cells.items():
        first = cells.get((side, "chain", size))
        if step == "second night" and first:
            share = cell.seconds / first.seconds
            yield f"second night over first, {side}, {size_name(size)}: {share:.2f} of {first.seconds:.1f} s"


def counts(found: Sequence[Measurement], censuses: Mapping[int, Census]) -> Iterator[str]:
    """Sides whose rows after validation are not the good and distinct ones that were generated."""
    for one in found:
        kept = (one.usage.result or {}).get("kept") if one.usage and one.step == "validate" else None
        good = censuses[one.size_bytes].distinct
        if kept is not None and kept != good:
            yield f"{one.side} kept {kept:,} rows at {size_name(one.size_bytes)}, {good:,} are good and distinct"


def report(found: Sequence[Measurement], censuses: Mapping[int, Census], facts: Mapping[str, Any]) -> tuple[str, bool]:
    """The report as text, and whether every measurement went well and the sides agree on the rows."""
    cells = cells_of(found)
    keys = dict.fromkeys((one.step, one.size_bytes) for one in found if one.side in ("ours", "datasets"))
    memory, disk, load = (facts[name] for name in ("memory_bytes", "disk_write_mb_per_s", "load_average_at_start"))
    lines = [
        f"{facts['processor']}, {facts['cores']} cores, {memory / 1e9:.0f} GB, disk {disk:.0f} MB/s, "
        f"load {load:.1f} at start"
    ]
    lines += ["", *table(cells, keys), ""]
    lines += [
        f"{side} {step}, {size_name(size)}: {cell.mb_per_s:.1f} MB/s, {cell.peak_mb:,.0f} MB"
        for (side, step, size), cell in cells.items()
        if side == "datatrove"
    ]
    if facts["versions"]["datatrove"] == "not installed":
        lines.append("datatrove is not installed: left out")
    lines += [*NOTES, "", *second_nights(cells)]
    lines += [f"{'met   ' if target.met else 'missed'}  {target.name}: {target.found}" for target in targets(cells)]
    wrong = list(counts(found, censuses))
    failed = [f"{one.side} {one.step} failed: {one.error}" for one in found if one.error]
    return "\n".join([*lines, *wrong, *failed]), not (wrong or failed)
