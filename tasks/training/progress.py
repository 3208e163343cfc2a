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
from tasks.pages.text import SHOWN_BY_BAR, artifact_key

log = logging.getLogger("nightschool")


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Turn Ctrl-C and SIGTERM into an event that is read between steps; a second Ctrl-C ends the process at once."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested  # only the main thread gets signals, and this is another
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request_stop(number: int, _frame: object) -> None:
        requested.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, request_stop)
    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Progress:
    """A bar on a terminal, some twenty log lines elsewhere and in Prefect, and Prefect's progress artifact."""

    def __init__(self, stage: str, num_steps: int, steps_done: int, recipe: str) -> None:
        self.stage, self.num_steps = stage, num_steps
        self.bar = tqdm(
            total=num_steps,
            initial=steps_done,
            desc=stage,
            unit="step",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )
        key = artifact_key(recipe, stage, "progress")
        created = create_progress_artifact(100 * steps_done / num_steps, key=key, description=stage)
        self.artifact = cast(UUID, created)
        self.steps_per_line = max(1, num_steps // 20)

    def update(self, step: StepMetrics, val_bpb: float | None) -> None:
        """Show a step, with the validation after it if there was one; after a roll back its number goes back too."""
        self.bar.set_postfix_str(f"loss {step.loss:.3f} · {step.tokens / step.seconds:,.0f} tokens/s", refresh=False)
        self.bar.update(step.number - self.bar.n)
        if step.number % self.steps_per_line == 0 or step.number == self.num_steps:
            update_progress_artifact(self.artifact, progress=100 * step.number / self.num_steps)
            seconds_left = (self.num_steps - step.number) * step.seconds
            rate = step.tokens / step.seconds
            log.info(
                "%-11s step %d/%d  loss %.3f  %.0f tokens/s  %.0f s left",
                self.stage, step.number, self.num_steps, step.loss, rate, seconds_left,
                extra={SHOWN_BY_BAR: not self.bar.disable},
            )  # fmt: skip
        if val_bpb is not None and not self.bar.disable:
            self.bar.write(
                f"{self.stage:<11} step {step.number}: validation {val_bpb:.4f} bits per byte", file=sys.stderr
            )

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.close()
