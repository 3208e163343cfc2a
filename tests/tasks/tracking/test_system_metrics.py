"""The machine's own load is logged beside the training curves, whether or not the store answers."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.tracking import system_metrics
from tasks.tracking.mlflow_store import Store
from tasks.tracking.system_metrics import SystemMetrics

LOAD = {"system/cpu_utilization_percentage", "system/system_memory_usage_percentage"}


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_metrics, "SAMPLE_SECONDS", 0.05)


def test_load_is_reported_from_the_start_to_the_stop() -> None:
    reports: list[tuple[set[str], int]] = []
    third = threading.Event()

    def report(metrics: Mapping[str, float], number: int) -> None:
        reports.append((set(metrics), number))
        if number == 2:
            third.set()

    load = SystemMetrics(report)
    assert third.wait(60)
    load.stop()
    after = len(reports)
    assert [number for _, number in reports] == list(range(after))
    assert all(names >= LOAD for names, _ in reports)
    assert not any(thread.name == "system-metrics" for thread in threading.enumerate())


def test_a_training_run_carries_system_metrics(store: Store) -> None:
    run_id = store.start_run("training", {})
    tracker = store.tracker(run_id, system_metrics=True)
    pause = threading.Event()
    for _ in range(1_200):
        if store.waiting():
            break
        pause.wait(0.05)
    tracker.close("FINISHED")
    run = MlflowClient(store.tracking_uri).get_run(run_id)
    assert run.data.metrics.keys() >= LOAD
    assert run.info.status == "FINISHED"
    assert store.waiting() == 0


def test_a_stage_that_is_done_at_once_needs_no_sample(store: Store, tmp_path: Path) -> None:
    tracker = store.tracker(store.start_run("training", {}), system_metrics=True)
    tracker.close("FINISHED")
    assert store.waiting() == 0
