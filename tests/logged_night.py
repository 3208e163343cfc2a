"""A night of a home of its own, with what it logged."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from flows.retrain_nightly import retrain_nightly
from tasks.night.report import NightReport
from tasks.recipes.recipe import Recipe


def logged_night(recipe: Recipe, folder: Path) -> tuple[NightReport, str]:
    """Run a recipe in the home `folder`/home; its report, and its log."""
    handler = logging.FileHandler(folder / "log")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIGHTSCHOOL_HOME", str(folder / "home"))
        logging.getLogger("nightschool").addHandler(handler)
        try:
            report = retrain_nightly(recipe=recipe)
        finally:
            logging.getLogger("nightschool").removeHandler(handler)
    return report, (folder / "log").read_text()
