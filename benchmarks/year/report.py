"""What a year came to: its faults, what was promoted against the truth, and how the home grew; its figure."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.year.data_faults import newest
from benchmarks.year.faults import FAULTS, Fault
from benchmarks.year.finding import Finding, Year
from benchmarks.year.home import YearHome
from benchmarks.year.truth import Look
from tasks.pages.text import format_bytes, one_line

MESSAGE_CHARACTERS = 110
GROWING = {
    "files": "files", "inodes": "inodes", "num_bytes": "bytes", "bytes_a_raw_byte": "bytes a raw byte",
    "rows": "database rows", "journal_lines": "journal lines", "seconds": "seconds a night",
}  # fmt: skip
"""What may grow from night to night, and what it is called."""
FLAT = ("files", "bytes_a_raw_byte", "rows")
"""What must not, once retention has settled."""
SETTLED_NIGHTS, MOST_GROWTH = 120, 0.15
"""Of the last quarter over the third, in years of so many nights or more."""
FRACTIONS = ("seconds", "bytes_a_raw_byte")


def shown(what: str, value: float) -> str:
    if np.isnan(value):
        return "-"
    if what == "num_bytes":
        return format_bytes(round(value))
    return f"{value:,.1f}" if what in FRACTIONS else f"{value:,.0f}"


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a home takes."""

    files: int
    inodes: int
    """Files without further names of the same."""
    num_bytes: int
    raw_bytes: int
    """Of the raw files, which grow."""
    rows: int
    """Of both databases, all tables."""
    journal_lines: int

    @property
    def bytes_a_raw_byte(self) -> float:
        return self.num_bytes / self.raw_bytes


def size_of(year: YearHome) -> Size:
    home, seen = year.home, dict[tuple[int, int], int]()
    files = 0
    for path in home.rglob("*"):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            files += 1
            seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    databases = [home / "mlflow" / "mlflow.db", home / "prefect" / "prefect.db"]
    journal = home / "journal.jsonl"
    return Size(
        files=files, inodes=len(seen), num_bytes=sum(seen.values()),
        raw_bytes=sum(path.stat().st_size for path in year.raw.rglob("*") if path.is_file()),
        rows=sum(rows_in(path) for path in databases if path.exists()),
        journal_lines=len(journal.read_bytes().splitlines()) if journal.exists() else 0,
    )  # fmt: skip


def rows_in(database: Path) -> int:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return sum(connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables)


@dataclass(frozen=True, kw_only=True)
class Day:
    """One night of the year, with all that belonged to its fault."""

    number: int
    at: datetime
    fault: Fault | None
    finding: Finding | None
    wrong: tuple[str, ...]
    looks: tuple[Look, ...]
    champion: float | None
    """The champion's bits per byte by the truth, after the night."""
    seconds: float
    size: Size

    def as_text(self) -> str:
        promoted = sum(look.promoted for look in self.looks)
        fault = (
            f"  {self.fault.name}: {'found' if self.finding and self.finding.found else 'NOT FOUND'}"
            if self.fault
            else ""
        )
        wrong = "".join(f"\n    {problem}" for problem in (*self.wrong, *(self.finding.wrong if self.finding else ())))
        worth = f"{self.champion:.4f}" if self.champion else "-"
        return (
            f"{self.number + 1:4d}  {self.at:%Y-%m-%d}  {self.seconds:5.1f} s  champion {worth}"
            f"{'  promoted' * promoted}  {self.size.files:,} files{fault}{wrong}"
        )


@dataclass
class Chronicle:
    """All nights of a year, and what is found at its end."""

    nights: int
    seed: int
    days: list[Day] = field(default_factory=list)
    silent: int = 0
    """Nights that left no line in the journal."""
    unread: int = 0
    """Raw lines that the last night's data do not account for."""

    def close(self, year: Year) -> None:
        """Count what went without a word."""
        self.silent = len(year.silent)
        validated, kept = newest(year, "validate"), newest(year, "deduplicate")
        if validated is None or kept is None:
            raise RuntimeError("the year left no data")
        counts = validated.counts
        self.unread = sum(year.home.lines.values()) - counts["valid"] - counts["quarantined"]

    @property
    def looks(self) -> list[Look]:
        return [look for day in self.days for look in day.looks]

    @property
    def wrong_promotions(self) -> int:
        return sum(look.wrong for look in self.looks)

    @property
    def broken(self) -> list[str]:
        """What went wrong in nights without a fault."""
        return [f"{day.at:%Y-%m-%d}: {problem}" for day in self.days for problem in day.wrong]

    def of_fault(self, fault: Fault) -> list[Finding]:
        return [day.finding for day in self.days if day.fault is fault and day.finding]

    @property
    def as_it_should_be(self) -> bool:
        missed = [finding for fault in FAULTS for finding in self.of_fault(fault) if not finding.found]
        return not (missed or self.wrong_promotions or self.silent or self.unread or self.broken or self.grown)

    @property
    def grown(self) -> list[str]:
        """What is not flat at the end of a year that is long enough to tell."""
        if self.nights < SETTLED_NIGHTS:
            return []
        grown = []
        for what in FLAT:
            third, last = self.quarter(3, what), self.quarter(4, what)
            if not last <= third * (1 + MOST_GROWTH):
                grown.append(
                    f"{GROWING[what]} went from {shown(what, third)} in the third quarter to {shown(what, last)} in "
                    f"the last, at most {MOST_GROWTH:.0%} are allowed"
                )
        return grown

    def quarter(self, number: int, what: str) -> float:
        """The median of what the home took after a night, in a quarter of the year, from 1; or of a night's seconds,
        where there was no fault."""
        days = self.days[(number - 1) * self.nights // 4 : number * self.nights // 4]
        if what == "seconds":
            return float(np.median([day.seconds for day in days if not day.fault] or [np.nan]))
        return float(np.median([getattr(day.size, what) for day in days] or [np.nan]))

    def as_text(self) -> str:
        promoted, compared = [k for k in self.looks if k.promoted], [k for k in self.looks if k.against is not None]
        better = [look for look in compared if look.against is not None and look.bits_per_byte < look.against]
        worths = [f"{day.champion:.4f}" for day in self.days if day.champion]
        minutes = sum(day.seconds for day in self.days) / 60
        figures = {
            "promotions": f"{len(promoted)}; of {len(compared)} models that were compared {len(better)} are better",
            "wrong promotions": self.wrong_promotions,
            "silent nights": self.silent,
            "lines unaccounted": self.unread,
            "champion": f"{worths[0]} to {worths[-1]} bits per byte on reserved text" if worths else "none",
        }
        return "\n".join([
            "", f"{self.nights} nights, seed {self.seed}, {minutes:.0f} minutes", "", *self._fault_table(), "",
            *(f"{name:20}{value}" for name, value in figures.items()), "", *self._growth_table(),
            *(["", *self.broken, *self.grown] if self.broken or self.grown else []),
        ])  # fmt: skip

    def _growth_table(self) -> list[str]:
        lines = [f"{'median of a quarter':20}" + "".join(f"{n:>12}" for n in ("1st", "2nd", "3rd", "4th"))]
        for what, name in GROWING.items():
            values = [self.quarter(number, what) for number in range(1, 5)]
            lines.append(f"{name:20}" + "".join(f"{shown(what, value):>12}" for value in values))
        return lines

    def _fault_table(self) -> list[str]:
        lines = [f"{'':3} {'fault':52} {'found':>7}  by"]
        for fault in FAULTS:
            findings = self.of_fault(fault)
            found = f"{sum(finding.found for finding in findings)}/{len(findings)}"
            message = next((finding.message for finding in findings if finding.message), "-")
            lines.append(f"{fault.number:3} {fault.name:52} {found:>7}  {one_line(message, MESSAGE_CHARACTERS)}")
            for finding in findings:
                problems = [*finding.wrong, *([] if finding.message else ["no sentence tells of it"])]
                lines += [f"      {problem}" for problem in problems]
        return lines

    def draw(self, path: Path) -> None:
        """The year in one picture."""
        figure = Figure(figsize=(9, 6.5), layout="constrained")
        worth, size = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        nights = np.array([day.number + 1 for day in self.days])
        looks = [(day.number + 1, look) for day in self.days for look in day.looks]
        worth.step(nights, [day.champion or np.nan for day in self.days], where="post", color="black", label="champion")
        kept = [(n, look.bits_per_byte) for n, look in looks if not look.promoted]
        moved = [(n, look.bits_per_byte) for n, look in looks if look.promoted]
        worth.plot(*zip(*kept, strict=True), ".", color="0.6", markersize=3, label="not promoted") if kept else None
        worth.plot(*zip(*moved, strict=True), "o", color="tab:blue", markersize=4, label="promoted") if moved else None
        for day in self.days:
            if day.fault and day.finding:
                worth.axvline(
                    day.number + 1, color="tab:orange" if day.finding.found else "tab:red", alpha=0.35, lw=0.8
                )
        ceiling = np.nanmax([day.champion or np.nan for day in self.days])
        worth.set(ylabel="bits per byte on reserved text", ylim=(None, ceiling * 1.04))
        worth.legend(loc="upper right", title="orange: a fault, found; red: not found", fontsize=8, title_fontsize=8)
        for what in FLAT:
            values = np.array([getattr(day.size, what) for day in self.days], float)
            label = f"{GROWING[what]}, at most {shown(what, values.max())}"
            size.plot(nights, values / values.max(), label=label, lw=1)
        size.set(xlabel="night", ylabel="the home after the night,\nas a share of its largest", ylim=(0, 1.05))
        size.legend(fontsize=8, loc="lower right")
        figure.savefig(path, dpi=120)
