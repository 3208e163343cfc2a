"""Points of a run's curves, and which of them it has already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mlflow import MlflowClient
from mlflow.entities import Metric

from tasks.tracking.spool import Call, Progress

LOAD, LOAD_SAMPLED = "system/", "system/cpu_utilization_percentage"
"""Prefix of metrics of the machine, whose steps count samples and not training steps, and one that every sample has."""


def batches(calls: Iterable[Call], size: int) -> Iterator[list[Call]]:
    """Calls one by one, metrics that follow each other together until they have `size` points."""
    metrics: list[Call] = []
    for call in calls:
        full = sum(len(c.values["values"]) for c in metrics) >= size
        if metrics and (call.kind != "metrics" or full):
            yield metrics
            metrics = []
        if call.kind == "metrics":
            metrics.append(call)
        else:
            yield [call]
    if metrics:
        yield metrics


def points_of(calls: Iterable[Call], progress: Progress) -> Iterator[Metric]:
    """The points of calls, but those of steps that the run logged before it was reopened; samples are counted on."""
    for call in calls:
        step = int(call.values["step"])
        for key, value in call.values["values"].items():
            if key.startswith(LOAD):
                yield Metric(key, value, call.at, step + progress.samples)
            elif step <= 0 or step > progress.logged_until:
                yield Metric(key, value, call.at, step)


def last_step(client: MlflowClient, mlflow_id: str, key: str) -> int:
    """The last step at which a run has a metric, -1 if it has none."""
    return max((metric.step for metric in client.get_metric_history(mlflow_id, key)), default=-1)
