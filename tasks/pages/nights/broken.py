"""The page of a night that did not come to its end: why, what it cost, and how it goes on."""

from __future__ import annotations

from pathlib import Path

from tasks.home.outcomes import NightOutcome
from tasks.pages.nights.rendering import write_page


def write_broken_page(path: Path, night: NightOutcome) -> Path:
    """Write the page; returns its path."""
    return write_page(path, "nights/broken.html.j2", night=night)
