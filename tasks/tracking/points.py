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
    """The points of calls, but those that the run logged before it was reopened; samples are counted on.

    At step 0, where figures without a step are too, it is the name that tells.
    """
    for call in calls:
        step = int(call.values["step"])
        for key, value in call.values["values"].items():
            if key.startswith(LOAD):
                yield Metric(key, value, call.at, step + progress.samples)
            elif step > progress.logged_until if step > 0 else key not in progress.begun:
                yield Metric(key, value, call.at, step)


def curve_points(client: MlflowClient, mlflow_id: str, call: Call) -> Iterator[Metric]:
    """The points of a whole curve that the run does not have, whoever logged them and when."""
    had: dict[str, set[int]] = {}
    for step, values in call.values["points"]:
        for key, value in values.items():
            if key not in had:
                had[key] = {metric.step for metric in client.get_metric_history(mlflow_id, key)}
            if step not in had[key]:
                yield Metric(key, value, call.at, step)


def log_points(client: MlflowClient, mlflow_id: str, points: Iterable[Metric], size: int) -> None:
    """Send points, at most `size` at a time."""
    metrics = list(points)
    for start in range(0, len(metrics), size):
        client.log_batch(mlflow_id, metrics=metrics[start : start + size])


def newest_step(client: MlflowClient, mlflow_id: str, key: str) -> int:
    """The step at which a run logged a metric last, -1 if it never did: after a roll back not the greatest one."""
    newest = max(client.get_metric_history(mlflow_id, key), key=lambda m: (m.timestamp, m.step), default=None)
    return newest.step if newest else -1
