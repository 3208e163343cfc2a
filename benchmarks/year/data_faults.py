"""Faults of what arrives: nothing, half a file, another schema, a flood, a corrupt archive."""

from __future__ import annotations

import gzip
import json
from datetime import datetime, timedelta

from benchmarks.year.finding import TEXTS, Finding, Year, is_skipped
from benchmarks.year.home import NAME
from tasks.home.records import StageRecord
from tasks.night.report import NightReport

SKIPPED_SECONDS = 5
HOUR = timedelta(hours=1)
LINES = 120


def nothing_new(year: Year, at: datetime) -> Finding:
    """A night, and the same again an hour later."""
    wrong: list[str] = []
    year.deliver(at)
    year.good_night(at, wrong)
    champion, runs = year.champion(), tracked_runs(year)
    again = year.night(at + HOUR)
    if not is_skipped(again):
        wrong.append("the second night was not skipped")
    if again.seconds > SKIPPED_SECONDS:
        wrong.append(f"skipping took {again.seconds:.1f} s, {SKIPPED_SECONDS} are allowed")
    if (year.champion(), tracked_runs(year)) != (champion, runs):
        wrong.append("a skipped night moved the champion or left a run")
    return Finding(message=again.sentence("no row is new"), wrong=tuple(wrong))


def half_written(year: Year, at: datetime) -> Finding:
    """The last line is torn when the night reads it, and whole in the next."""
    wrong: list[str] = []
    year.deliver(at)
    path = year.home.raw / "text" / "day.jsonl"
    [row], _ = year.home.corpus.deal(year.season(at), 1, 0, year.rng)
    line = json.dumps(row).encode() + b"\n"
    with path.open("ab") as stream:
        stream.write(line[: len(line) // 2])
    first = year.good_night(at, wrong)
    if isinstance(first.came, NightReport) and not any("day.jsonl was left out" in told for told in first.came.losses):
        wrong.append("the night's report does not name the file")
    read = lines_read(year)
    with path.open("ab") as stream:
        stream.write(line[len(line) // 2 :])
    year.home.lines[path] += 1
    year.good_night(at + HOUR, wrong, "the night after")
    if lines_read(year) != read + 1:
        wrong.append(f"{lines_read(year) - read} lines were read once the torn one was whole, it is 1")
    return Finding(message=first.sentence(r"left for the next night"), wrong=tuple(wrong))


def other_schema(year: Year, at: datetime) -> Finding:
    """A file whose key was renamed stops the night before anything is trained; corrected, its rows are read."""
    wrong: list[str] = []
    year.deliver(at)
    rows, _ = year.home.corpus.deal(year.season(at), LINES // 2, 0, year.rng)

    def body(key: str) -> bytes:
        return b"".join(json.dumps({key: row["text"]}).encode() + b"\n" for row in rows)

    name = f"export-{at:%j}.jsonl"
    year.home.put(name, body("body"), len(rows))
    stopped = year.stopped_night(at, wrong, "half of a file has no text")
    year.home.put(name, body("text"), len(rows))
    year.good_night(at + HOUR, wrong, "the night with the corrected file")
    return Finding(message=stopped.sentence(rf"{name}.*quarantine|quarantine.*{name}|{name}"), wrong=tuple(wrong))


def flood(year: Year, at: datetime) -> Finding:
    """As many rows of junk as there are good ones: their drift stops the night. Taken away, the night goes on."""
    wrong: list[str] = []
    year.deliver(at)
    number = max(LINES, lines_read(year))
    junk = [json.dumps({"text": " ".join(f"{n * 7919 + m * 104_729:x}" for m in range(4))}) for n in range(number)]
    path = year.home.put(f"flood-{at:%j}.jsonl", ("\n".join(junk) + "\n").encode(), number)
    stopped = year.stopped_night(at, wrong, f"{number:,} rows of junk arrived")
    year.home.take_away(path)
    year.good_night(at + HOUR, wrong, "the night without the flood")
    return Finding(message=stopped.sentence("max_drift_psi"), wrong=tuple(wrong))


def corrupt_archive(year: Year, at: datetime) -> Finding:
    """An archive that breaks off: what comes before is read, the rest reported, and everything else trains."""
    wrong: list[str] = []
    year.deliver(at)
    rows, _ = year.home.corpus.deal(year.season(at), TEXTS, 0, year.rng)
    whole = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0)
    name = f"upload-{at:%j}.jsonl.gz"
    path = year.home.put(name, whole[: len(whole) // 2], 0)
    ended = year.good_night(at, wrong)
    message = ended.sentence(name)
    year.home.take_away(path)
    year.home.put(name, whole, len(rows))
    year.good_night(at + HOUR, wrong, "the night with the whole archive")
    return Finding(message=message, wrong=tuple(wrong))


def newest(year: Year, stage: str) -> StageRecord | None:
    return year.home.journal.newest(stage, NAME)


def lines_read(year: Year) -> int:
    """Of the newest data."""
    record = newest(year, "validate")
    return record.counts["read"] if record else 0


def tracked_runs(year: Year) -> int:
    return len(year.home.registry.versions()) + len(list((year.home.home / "nights").glob("*.json")))
