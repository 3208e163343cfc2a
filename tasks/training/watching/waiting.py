"""Whether a training stage waited for its rows, and why that may be."""

from __future__ import annotations

from tasks.pages.text import format_bytes

MOST_SHARE = 0.05
"""Of the time of the steps: more is worth a word."""


def waiting_summary(share: float, rows_bytes: int, memory_bytes: int, load: float, cores: int) -> list[str]:
    """A sentence with the likely cause for a share above MOST_SHARE, else nothing.

    rows_bytes: of the packed rows; memory_bytes: of the machine; load: processes that want a core, of the last minutes.
    """
    if share <= MOST_SHARE:
        return []
    if rows_bytes > memory_bytes / 2:
        cause = (
            f"its packed rows take {format_bytes(rows_bytes)} of {format_bytes(memory_bytes)} of memory: "
            "they are read from the disk again and again; move the home to a faster disk"
        )
    elif load > cores + 1:
        cause = f"{load:.0f} processes want the {cores} cores of this machine: end what else runs on it"
    else:
        cause = (
            "its packed rows fit into memory, so they were read for the first time from a slow disk or over a network"
        )
    return [f"waited for rows {share:.0%} of the time ({MOST_SHARE:.0%} is usual at most): {cause}"]
