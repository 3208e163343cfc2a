"""The folder of a home with its pages for people: one of each night, one over all nights of a recipe."""

from __future__ import annotations

from pathlib import Path

from tasks.home.journal import KEY_CHARACTERS

PAGES = "pages"


def night_page_path(home: Path, recipe: str, key: str) -> Path:
    """Where the page of a recipe's night lies."""
    return home / PAGES / f"{recipe}@{key[:KEY_CHARACTERS]}.html"


def nights_page_path(home: Path, recipe: str) -> Path:
    """Where the page over all nights of a recipe lies."""
    return home / PAGES / f"{recipe}-nights.html"
