"""The machine's own load is logged beside the training curves."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from mlflow import MlflowClient

from tasks.tracking.mlflow_store import Store


def test_a_training_run_carries_system_metrics(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    tracker = store.tracker(store.start_run("training", {}), system_metrics=True)
    client, deadline, pause = MlflowClient(store.tracking_uri), time.monotonic() + 60, threading.Event()
    found: dict[str, float] = {}
    while not found and time.monotonic() < deadline:
        pause.wait(0.2)
        found = client.get_run(tracker.run_id).data.metrics
    tracker.close("FINISHED")
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_percentage"} <= found.keys()
    assert client.get_run(tracker.run_id).info.status == "FINISHED"
