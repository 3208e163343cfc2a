"""A home in which a year passes in minutes: nights at times of their own, in this process or in one of their own."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import time_machine
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from benchmarks.year.corpus import Corpus, Row
from tasks.home.journal import Journal
from tasks.home.outcomes import NightOutcome, noted, outcomes
from tasks.night.report import NightReport
from tasks.night.skipping import SkippedNight
from tasks.recipes.recipe import Recipe, plain_recipe, recipe_from
from tasks.settings import child_environment
from tasks.tracking.mlflow_store import Store
from tasks.tracking.registry import Registry

NAME = "year"
PATIENCE_SECONDS = 300
SETTLED_SECONDS = 3_600
"""Files were written this long before the night that reads them."""
NO_HEARTBEAT = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
"""Nothing here reads the sign of life that a run gives every 180 s, and each flow ends up to a second later for it."""
SERVER_TIMES = (
    ("flow_run", "end_time"),
    ("artifact", "created"),
    ("events", "occurred"),
    ("event_resources", "occurred"),
)
"""Columns of Prefect's tables that its server fills by its own clock, and that say how old a row is."""
log = logging.getLogger("nightschool")


def recipe_of_year(raw: Path) -> Recipe:
    """A model of a few thousand weights that is trained for seconds, judged as any other."""
    train = {
        "batch_rows": 4,
        "micro_batch_rows": 4,
        "eval_every_steps": 12,
        "checkpoint_every_steps": 3,
        "eval_rows": 16,
        "precision": "fp32",  # in bf16, which `auto` is on some CPUs, the same seed makes another year
    }
    return recipe_from({
        "name": NAME,
        "sources": [
            {"name": "text", "kind": "pretrain", "location": str(raw / "text" / "*")},
            {"name": "talk", "kind": "chat", "location": str(raw / "chat" / "*")},
        ],
        "validate": {"min_lines_to_judge": 50},
        "inspect": {"max_drift_psi": 1.0, "max_lost_share_per_source": 1.0},
        "split": {"val_share": 0.1, "val_bytes_per_slice": 30_000},
        "data": {"sequence_length_tokens": 128},
        "model": {
            "vocab_size": 1_000, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 16, "num_experts": 4, "moe_intermediate_size": 32,
        },
        "pretrain": train | {
            "num_tokens": 128 * 4 * 60, "night_tokens": 128 * 4 * 15, "optim": {"peak_lr": 0.01, "stable_share": 0.7},
        },
        "sft": train | {"num_tokens": 128 * 4 * 8, "optim": {"peak_lr": 0.004}},
        "evaluate": {"max_new_tokens": 8, "held_out_prompts": 8, "choices": 10, "prompts": ["Hello!"]},
        # Whether a model of this size ends a reply, or repeats itself, is chance: limits on that would be, too.
        "promote": {"resamples": 2_000, "max_self_ending_fall": 1.0, "max_repetition_rise": 1.0},
        "retention": {"nights": 5, "tracked_nights": 6, "versions": 8, "unfinished_days": 3, "prefect_days": 7},
    })  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What came back from a night, and what was said meanwhile."""

    at: datetime
    came: NightReport | SkippedNight | None
    error: BaseException | None
    said: tuple[str, ...]
    """Lines of the log, then the night's reason or its error."""
    seconds: float

    def sentence(self, pattern: str) -> str:
        """The first line in which a pattern is found; empty if none has it."""
        return next((line for line in self.said if re.search(pattern, line)), "")

    @property
    def reused(self) -> list[str]:
        """Stages that were found done."""
        return [r.name for r in self.came.records if r.reused] if isinstance(self.came, NightReport) else []


@dataclass
class YearHome:
    """The home, its raw files, and how many lines were ever put into them."""

    folder: Path
    home: Path
    corpus: Corpus
    recipe: Recipe
    lines: dict[Path, int] = field(default_factory=dict)
    """Of each raw file, lines that are whole."""

    @classmethod
    def create(cls, folder: Path, seed: int) -> YearHome:
        """In `folder`/home, which is where NIGHTSCHOOL_HOME must point."""
        for kind in ("text", "chat"):
            (folder / "raw" / kind).mkdir(parents=True)
        return cls(folder, folder / "home", Corpus(seed), recipe_of_year(folder / "raw"))

    @property
    def raw(self) -> Path:
        return self.folder / "raw"

    @property
    def journal(self) -> Journal:
        return Journal(self.home)

    @property
    def registry(self) -> Registry:
        return Store(f"sqlite:///{self.home}/mlflow/mlflow.db", self.home).registry(NAME)

    def last_outcome(self) -> NightOutcome | None:
        """Of the line that was written last."""
        return next(reversed(list(noted(self.journal.entries()))), None)

    @contextmanager
    def copied(self) -> Iterator[YearHome]:
        """A copy of the home as it is now, with the same raw files; gone at the end of the block."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            copy = replace(self, home=Path(folder) / "home")
            shutil.copytree(self.home, copy.home)
            with mock.patch.dict(os.environ, {"NIGHTSCHOOL_HOME": str(copy.home)}):
                yield copy

    def outcomes(self) -> list[NightOutcome]:
        return outcomes(self.journal.entries(), NAME)

    def deliver(self, texts: Sequence[Row], chats: Sequence[Row] = ()) -> None:
        """Append rows to the two files that grow from night to night."""
        for path, rows in ((self.raw / "text" / "day.jsonl", texts), (self.raw / "chat" / "day.jsonl", chats)):
            with path.open("a", encoding="utf-8") as stream:
                stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            self.lines[path] = self.lines.get(path, 0) + len(rows)

    def put(self, name: str, body: bytes, lines: int) -> Path:
        """A file of text beside the one that grows."""
        path = self.raw / "text" / name
        path.write_bytes(body)
        self.lines[path] = lines
        return path

    def take_away(self, path: Path) -> None:
        path.unlink()
        del self.lines[path]

    def settle(self, at: datetime) -> None:
        """Have all raw files written before a night."""
        for path in self.raw.rglob("*"):
            os.utime(path, (at.timestamp() - SETTLED_SECONDS,) * 2)

    def night(self, at: datetime, recipe: Recipe | None = None, settled: bool = True, **parameters: Any) -> Ended:
        """A night in this process, by the clock of the year."""
        from flows.retrain_nightly import retrain_nightly  # Prefect reads its settings when it is imported

        if settled:
            self.settle(at)
        came, error, started, since = None, None, time.perf_counter(), time.time()
        with lines_said() as said, time_machine.travel(at), temporary_settings(NO_HEARTBEAT):
            try:
                came = retrain_nightly(recipe=recipe or self.recipe, **parameters)
            except Exception as raised:
                error = raised
        self.date_all(at, since)
        why = getattr(came, "reason", "") or (str(came.decision["reason"]) if isinstance(came, NightReport) else "")
        return Ended(
            at=at, came=came, error=error, said=(*said, why, str(error or "")), seconds=time.perf_counter() - started
        )

    def date_all(self, at: datetime, since: float = 0.0) -> None:
        """Give what a night wrote, from `since` on by the machine's clock, the time of the night."""
        for path in (*self.home.glob("data/*"), *self.home.glob("data/*/record.json"), *self.home.glob("nights/*")):
            if path.exists() and path.stat().st_mtime >= since:
                os.utime(path, (at.timestamp(),) * 2)
        date_rows(self.home / "prefect" / "prefect.db", at)

    @contextmanager
    def night_apart(self, at: datetime) -> Iterator[subprocess.Popen[str]]:
        """The same night in a process of its own, which is killed at the end of the block if it still runs."""
        self.settle(at)
        recipe = self.folder / "recipe.json"
        recipe.write_text(json.dumps(plain_recipe(self.recipe)), encoding="utf-8")
        environment = child_environment(
            NIGHTSCHOOL_HOME=str(self.home), PREFECT_HOME=str(self.home / "prefect"),
            PREFECT_API_URL=str(PREFECT_API_URL.value()),
        )  # fmt: skip
        words = [sys.executable, "-m", "benchmarks.year.apart", str(recipe), at.isoformat()]
        with (self.folder / "apart.log").open("w") as told:
            process = subprocess.Popen(words, env=environment, stdout=told, stderr=subprocess.STDOUT, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def said_apart(self) -> str:
        return (self.folder / "apart.log").read_text(encoding="utf-8", errors="replace")

    def wait_for(self, what: str, process: subprocess.Popen[str]) -> None:
        """Until there is a file of that pattern in the home, for as long as the process runs."""
        self.wait_until(lambda: any(self.home.glob(what)), process, what)

    def wait_until(self, happened: Callable[[], object], process: subprocess.Popen[str], what: str) -> None:
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not happened():
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"a night that was to reach {what} did not:\n{self.said_apart()[-3_000:]}")
            time.sleep(0.005)


def date_rows(database: Path, at: datetime) -> None:
    """Give rows to which Prefect's server, a process of its own, gave the machine's time the time of the night: by it
    they get old."""
    if not database.exists():
        return
    with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
        for table, column in SERVER_TIMES:
            later, night = (when.strftime("%Y-%m-%d %H:%M:%S.%f") for when in (at + timedelta(days=1), at))
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE {column} > ?", (night, later))


@contextmanager
def lines_said() -> Iterator[list[str]]:
    """What the project's log says inside."""
    said: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    handler = Keep()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield said
    finally:
        log.removeHandler(handler)


def first_night(year: int = 2024) -> datetime:
    """Two o'clock in the first night, years before the files of the simulation are written: what is younger than that
    is of tonight."""
    return datetime(year, 1, 1, 2, 0, tzinfo=UTC)
