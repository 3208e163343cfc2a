"""The machine's load while a stage runs, under the names that MLflow has for it.

MLflow's own monitor talks to the store by itself, ends at the first call that fails, and waits for the store when it is
stopped; so only its probes are used.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

from tasks.faults import in_a_line

log = logging.getLogger("nightschool")
SAMPLE_SECONDS = 2.0
SAMPLES = 2
"""In the mean that is reported."""


class SystemMetrics:
    """Samples the load in a thread of its own, from now on until it is stopped."""

    def __init__(self, report: Callable[[Mapping[str, float], int], None]) -> None:
        """`report(metrics, number)` is called in that thread; the number counts reports from 0."""
        self._report = report
        self._probes = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        for accelerator in (GPUMonitor, ROCMMonitor):
            with suppress(Exception):  # each library has errors of its own for a machine without its accelerators
                self._probes.append(accelerator())
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="system-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stopped.is_set():
            for _ in range(SAMPLES):
                for probe in self._probes:
                    probe.collect_metrics()
                if self._stopped.wait(SAMPLE_SECONDS):
                    return
            means: dict[str, float] = {}
            for probe in self._probes:
                means |= probe.aggregate_metrics()
                probe.clear_metrics()
            try:
                self._report({f"system/{name}": value for name, value in means.items()}, number)
            except OSError as error:  # the stage meets the same disk, and says what is to be done
                log.warning("the load of the machine is not reported any more: %s", in_a_line(error))
                return
            number += 1
