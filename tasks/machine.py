"""The machine a night runs on: its accelerator, and memory as the system counts it."""

from __future__ import annotations

import ctypes
import resource
import sys
from contextlib import suppress

import psutil
import torch


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory: returning each step's buffers and faulting them in again costs a tenth.

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
    """The most this process has held so far: of the accelerator if there is one, else of main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
