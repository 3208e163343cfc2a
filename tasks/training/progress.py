"""A training stage's progress for people, and their requests to stop it."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from tqdm import tqdm

from model.training.trainer import StepMetrics

log = logging.getLogger("nightschool")


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Turn Ctrl-C and SIGTERM into an event that is looked at between steps; a second Ctrl-C ends at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # signals belong to the main thread, which is not ours
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _frame: object) -> None:
        asked.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Progress:
    """A bar on a terminal, now and then a log line elsewhere, and Prefect's progress artifact."""

    def __init__(self, stage: str, num_steps: int, done: int) -> None:
        self.stage, self.num_steps = stage, num_steps
        self.bar = tqdm(
            total=num_steps, initial=done, desc=stage, unit="step", dynamic_ncols=True, disable=not sys.stderr.isatty()
        )
        created = create_progress_artifact(100 * done / num_steps, key=f"{stage}-progress", description=stage)
        self.artifact = cast(UUID, created)
        self.every = max(1, num_steps // 20)

    def update(self, step: StepMetrics, val_bpb: float | None) -> None:
        self.bar.set_postfix_str(f"loss {step.loss:.3f} · {step.tokens / step.seconds:,.0f} tokens/s", refresh=False)
        self.bar.update()
        if step.number % self.every == 0 or step.number == self.num_steps:
            update_progress_artifact(self.artifact, progress=100 * step.number / self.num_steps)
            if self.bar.disable:
                left = (self.num_steps - step.number) * step.seconds
                rate = step.tokens / step.seconds
                log.info(
                    "%-11s step %d/%d  loss %.3f  %.0f tokens/s  %.0f s left",
                    self.stage, step.number, self.num_steps, step.loss, rate, left,
                )  # fmt: skip
        if val_bpb is not None and not self.bar.disable:
            self.bar.write(
                f"{self.stage:<11} step {step.number}: validation {val_bpb:.4f} bits per byte", file=sys.stderr
            )
