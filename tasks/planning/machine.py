"""The machine a night runs on: its accelerator, and memory as the system counts it."""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import torch


def best_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def keep_freed_memory() -> None:
    """Make glibc keep freed memory: returning each step's buffers and faulting them in again costs a tenth of a step.

    Does nothing where the C library has no mallopt.
    """
    m_trim_threshold, m_mmap_max = -1, -4
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def held_memory_bytes() -> int:
    """What this process holds now, of the accelerator if there is one, else of main memory."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    return int(psutil.Process().memory_info().rss)


def peak_memory_bytes() -> int:
    """The most this process has held so far: of the accelerator if there is one, else of main memory.

    Linux lets a child inherit `ru_maxrss`, so a child of a large process would count that one's peak; VmHWM is its own.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists() and (line := re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), flags=re.MULTILINE)):
        return int(line[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
