"""Modules, functions and files that benchmarks, the Makefile and the documentation name as text exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = re.compile(r"\b(benchmarks(?:\.[a-z_]+)+)(?::([a-z_]+))?\b")
"""A module, and perhaps a function of it: `module:function` is what `benchmarks.memory.measure` calls."""
FILE = re.compile(r"(?<![/\w])benchmarks/[a-z_/]+\.py\b")
PATTERNS = ("Makefile", "*.md", "docs/**/*.md", "benchmarks/**/*.py")
PAGES = [str(path.relative_to(ROOT)) for pattern in PATTERNS for path in sorted(ROOT.glob(pattern))]


def defined_in(module: Path) -> set[str]:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def missing_target(name: str, function: str) -> bool:
    """Whether a dotted name is no package, no module and nothing defined in one, or lacks the function."""
    path = ROOT / name.replace(".", "/")
    if path.is_dir():
        return bool(function)
    if path.with_suffix(".py").is_file():
        return bool(function) and function not in defined_in(path.with_suffix(".py"))
    module = path.parent.with_suffix(".py")
    return bool(function) or not module.is_file() or path.name not in defined_in(module)


@pytest.mark.parametrize("page", PAGES)
def test_what_is_named_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [file for file in FILE.findall(text) if not (ROOT / file).is_file()] == []
    assert [target for target in TARGET.findall(text) if missing_target(*target)] == []
