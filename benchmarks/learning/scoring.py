"""What both sides of `benchmarks/learning/learn.py` share: scoring, and the clock of their training.

Imports nothing of this project's packages: a MiniMind checkout has a package `model` of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

IGNORED = -100
SCORE_SLOTS = 4096
"""Slots of one forward pass, so that its logits stay small."""
CURVE_SHARES = tuple(sorted({n / 16 for n in range(1, 16)} | {1 / 32, 1 / 24, 1 / 12, 1 / 6}))
"""When the curve is measured, as shares of the budget; denser early on, where the other side may be overtaken."""
FIRST_GUESS_STEPS = 1_000


@dataclass(frozen=True)
class Job:
    """One side, one seed, for a process of its own."""

    side: str
    seed: int
    budget_seconds: float
    threads: int
    text: str
    """Folder of the prepared text."""
    tokens_per_row: int
    checkout: str
    """Of the side's own code; empty for ours."""
    options: dict[str, Any]
    """The side's recipe."""

    @classmethod
    def read(cls, text: str) -> Job:
        return cls(**json.loads(text))

    def as_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Chunks:
    """Slots of many chunks of documents, one after another; each is read alone, from position 0."""

    inputs: np.ndarray
    """(S,) int64, S = sum of lengths."""
    labels: np.ndarray
    """(S,) int64, what each slot must predict."""
    label_bytes: np.ndarray
    """(S,) UTF-8 bytes of each target."""
    lengths: np.ndarray
    """(N,)"""
    starts_document: np.ndarray
    """(N,) bool: whether a chunk is the first of its document."""

    def save(self, path: Path) -> None:
        np.savez(path, **asdict(self))

    @classmethod
    def load(cls, path: Path) -> Chunks:
        with np.load(path) as arrays:
            return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})

    def head(self, num_targets: int) -> Chunks:
        """The first whole chunks that together hold `num_targets` targets or a few more."""
        count = int(np.searchsorted(np.cumsum(self.lengths), num_targets)) + 1
        slots = int(self.lengths[:count].sum())
        columns = self.inputs[:slots], self.labels[:slots], self.label_bytes[:slots]
        return Chunks(*columns, self.lengths[:count], self.starts_document[:count])

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
        ends = np.cumsum(self.lengths)
        for end, length, starts in zip(ends, self.lengths, self.starts_document, strict=True):
            yield self.inputs[end - length : end], self.labels[end - length : end], bool(starts)


Rows = list[tuple[np.ndarray, np.ndarray]]
"""Inputs and labels of each chunk."""


def plain_rows(chunks: Chunks) -> Rows:
    return [(inputs, labels) for inputs, labels, _ in chunks]


def marked_rows(chunks: Chunks, end_of_text: int, begin: int, end: int) -> Rows:
    """The same targets for a model that begins every row with `begin` and ends documents with `end`.

    A chunk from the middle of a document is also read from `begin` on, as such a model never saw a row without it.
    """
    rows = []
    for inputs, labels, starts in chunks:
        labels = np.where(labels == end_of_text, end, labels)
        if starts:
            rows.append((np.concatenate([[begin], inputs[1:]]), labels))
        else:
            rows.append((np.concatenate([[begin], inputs]), np.concatenate([[IGNORED], labels])))
    return rows


@torch.no_grad()
def nats_of(rows: Rows, network: nn.Module, logits_of: Callable[[Tensor], Tensor]) -> np.ndarray:
    """-log p of the targets of each row, summed, (N,) float64; leaves the network in the mode it was in.

    Rows of like length share a batch, padded behind their end, where a causal model does not look.
    """
    was_training = network.training
    network.eval()
    nats = np.zeros(len(rows))
    waiting = sorted(range(len(rows)), key=lambda number: -len(rows[number][0]))
    while waiting:
        longest = len(rows[waiting[0]][0])
        chosen, waiting = waiting[: max(1, SCORE_SLOTS // longest)], waiting[max(1, SCORE_SLOTS // longest) :]
        ids_BT = torch.zeros(len(chosen), longest, dtype=torch.int64)
        labels_BT = torch.full_like(ids_BT, IGNORED)
        for place, number in enumerate(chosen):
            inputs, labels = map(torch.from_numpy, rows[number])
            ids_BT[place, : len(inputs)], labels_BT[place, : len(labels)] = inputs, labels
        loss_BT = nn.functional.cross_entropy(
            logits_of(ids_BT).float().mT, labels_BT, ignore_index=IGNORED, reduction="none"
        )
        nats[chosen] = loss_BT.double().sum(dim=1).numpy()
    network.train(was_training)
    return nats


def bits_per_byte(nats: np.ndarray, chunks: Chunks, firsts_only: bool = False) -> float:
    """Of all chunks, or of the first of each document: MiniMind's loader reads no more of one."""
    firsts = chunks.starts_document if firsts_only else np.ones(len(chunks.lengths), dtype=bool)
    num_bytes = int(chunks.label_bytes[np.repeat(firsts, chunks.lengths)].sum())
    return float(nats[firsts].sum() / (np.log(2) * num_bytes))


@dataclass
class TrainingClock:
    """Training under a budget of wall-clock seconds that count only while it trains.

    Ask `go_on` before each step: it stops the clock to measure a point of the curve when one is due. A step that has
    begun is finished, so a budget is exceeded by less than a step.
    """

    budget_seconds: float
    measure: Callable[[], float]
    curve: list[tuple[float, int, float]] = field(default_factory=list)
    """Training seconds, steps done, bits per byte of the curve's documents."""
    trained_seconds: float = 0.0
    cpu_seconds: float = 0.0
    """CPU time of the process while the clock ran; less than wall-clock time when it waited for a core."""
    _since: tuple[float, float] | None = None

    @property
    def elapsed_seconds(self) -> float:
        return self.trained_seconds + (time.perf_counter() - self._since[0] if self._since else 0.0)

    @property
    def share(self) -> float:
        """Of the budget, at most 1."""
        return min(1.0, self.elapsed_seconds / self.budget_seconds)

    def pause(self) -> None:
        if self._since:
            self.trained_seconds += time.perf_counter() - self._since[0]
            self.cpu_seconds += time.process_time() - self._since[1]
            self._since = None

    def note(self, steps: int) -> None:
        """Measure a point of the curve, with the clock stopped."""
        self.pause()
        self.curve.append((self.trained_seconds, steps, self.measure()))

    def go_on(self, steps: int) -> bool:
        """Whether there is time for another step; afterwards the clock runs, or has stopped for good."""
        share = self.share
        if share >= 1:
            self.pause()
            return False
        noted = self.curve[-1][0] / self.budget_seconds if self.curve else 0.0
        if any(noted < due <= share for due in CURVE_SHARES):
            self.note(steps)
        if not self._since:
            self._since = time.perf_counter(), time.process_time()
        return True

    def expected_steps(self, steps: int) -> int:
        """How many steps the budget will hold, extrapolated from the steps done so far."""
        return max(steps + 1, round(steps / self.share)) if steps else FIRST_GUESS_STEPS


def answer(run: Callable[[Job], dict[str, Any]], arguments: list[str]) -> None:
    """The child's side of `benchmarks.learning.learn.run_job`: the job comes as JSON, its result goes to a file."""
    job, path = arguments
    Path(path).write_text(json.dumps(run(Job.read(job))))
