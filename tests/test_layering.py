"""Who may import what. Imports point one way: flows → tasks → data → schemas, model."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("flows", "tasks", "data", "schemas", "model")
OWN = {
    "flows": {"flows", "tasks"},
    "tasks": {"tasks", "data", "schemas", "model"},
    "data": {"data", "schemas", "model"},
    "schemas": {"schemas"},
    "model": {"model"},
}
FOREIGN = {
    "flows": {"prefect", "yaml"},
    "data": {"numpy", "polars", "pyarrow", "scipy", "tokenizers", "gigatoken", "awkward"},
    "schemas": {"pandera", "polars", "orjson", "zstandard"},
    "model": {"torch", "numpy", "safetensors", "tokenizers", "entmax"},
}
"""What else a package may import, beside the standard library; `tasks` may import anything installed."""
STANDARD = set(__import__("sys").stdlib_module_names)
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """Full names of the modules a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    tops = {name.partition(".")[0] for name in imports(path)} - STANDARD
    foreign = FOREIGN.get(package, tops - set(PACKAGES))
    assert tops <= OWN[package] | foreign, f"{path.name} imports {sorted(tops - OWN[package] - foreign)}"


def test_only_tracking_imports_mlflow() -> None:
    users = [p.relative_to(ROOT).as_posix() for p in FILES if any(n.partition(".")[0] == "mlflow" for n in imports(p))]
    assert users == ["tasks/tracking.py"]


def test_only_settings_reads_the_environment() -> None:
    """Environment variables are read and written in one module."""
    users = {
        p.relative_to(ROOT).as_posix()
        for p in FILES
        for node in ast.walk(ast.parse(p.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "putenv")
    }
    assert users == {"tasks/settings.py"}


def test_flows_hold_no_file_handling() -> None:
    for path in (ROOT / "flows").glob("*.py"):
        called = {
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
        }
        assert not called & {"open", "read_text", "write_text", "read_bytes", "write_bytes", "mkdir", "unlink"}, (
            path.name
        )


def test_every_package_is_listed_for_installation() -> None:
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert listed == list(PACKAGES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
