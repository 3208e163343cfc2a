"""Made-up homes need not outlive the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="package")
def nothing_is_flushed() -> Iterator[None]:
    """Thousands of flushes are most of the time that these tests would take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
