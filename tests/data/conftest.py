"""Real text that needs no building: what the standard library says of itself."""

from __future__ import annotations

import ast
import asyncio
import email
import logging
from pathlib import Path
from types import ModuleType

import pytest

PACKAGES: tuple[ModuleType, ...] = (asyncio, email, logging)


@pytest.fixture(scope="session")
def docstrings() -> list[str]:
    """Docstrings of at least thirty words; many are alike."""
    found: set[str] = set()
    for package in PACKAGES:
        for path in sorted(Path(str(package.__file__)).parent.glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
                    found.add(ast.get_docstring(node) or "")
    return sorted(text for text in found if len(text.split()) >= 30)
