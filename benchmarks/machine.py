"""Facts about the machine of a measurement."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import time
from pathlib import Path
from typing import Any

PACKAGES = (
    "datasets",
    "datatrove",
    "gigatoken",
    "numpy",
    "orjson",
    "polars",
    "pyarrow",
    "rensa",
    "tokenizers",
)
PROBE_BYTES, PROBE_BLOCK_BYTES = 512_000_000, 4_000_000


def machine_facts(folder: Path) -> dict[str, Any]:
    """Processor, cores, memory, versions, load, and the write speed of the folder's disk over 512 MB."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": int(memory[1]) * 1024 if memory else None,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {package: version_of(package) for package in PACKAGES},
        "load_average_at_start": os.getloadavg()[0],
        "disk_write_mb_per_s": round(disk_write_mb_per_s(folder), 1),
    }


def version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def disk_write_mb_per_s(folder: Path) -> float:
    """One file written from end to end and synced; random bytes, as some disks do not store zeros."""
    block, path = os.urandom(PROBE_BLOCK_BYTES), folder / "probe"
    os.sync()
    started = time.perf_counter()
    with path.open("wb", buffering=0) as sink:
        for _ in range(PROBE_BYTES // PROBE_BLOCK_BYTES):
            sink.write(block)
        os.fsync(sink.fileno())
    seconds = time.perf_counter() - started
    path.unlink()
    return PROBE_BYTES / 1e6 / seconds
