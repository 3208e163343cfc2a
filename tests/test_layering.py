"""Who may import what. Imports point one way: flows → tasks → data → schemas, model; and one way between folders."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.shortcuts import LONGEST_FIRST

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
    "schemas": {"pandera", "polars", "orjson", "pydantic_core", "zstandard", "stdnum"},
    "model": {"torch", "numpy", "safetensors", "tokenizers", "entmax", "gguf"},
}
"""What else a package may import, beside the standard library; `tasks` may import anything installed."""
FLOORS = {
    "tasks": (
        "errors",
        "settings faults alive",
        "relocation",
        "recipes",
        "home pages services tracking.models tracking.moves",
        "home.contents pages.nights planning tracking",
        "tracking.removal",
        "sources retention",
        "stage",
        "training.watching night.lineage night.duty evaluation.measures",
        "training",
        "evaluation",
        "stages night",
        "trials questions in_use",
    ),
    "data": ("hashing files workers", "folding", "rows", "duplicates", "sides", "tokens", "lookup"),
    "model": (
        "files precision torch_internals",
        "config tokens dynamics",
        "experts optim parallel",
        "network",
        "training exchange",
        "generation",
    ),
    "benchmarks": ("machine memory", "data", "learning", "training", "generation", "evaluation", "gate", "year"),
}
"""Of each package its folders and loose files, lowest first. Each imports from lower floors, or from itself, alone."""
MAX_FILES = 12
MAX_CHAIN_IN_TASKS = 10
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 300
STANDARD = set(sys.stdlib_module_names)
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
ALL_FILES = [*FILES, *sorted((ROOT / "benchmarks").rglob("*.py"))]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in ALL_FILES}


@cache
def imports(path: Path) -> frozenset[str]:
    """Full names of the modules a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else str(node.module) for name in full}
    return frozenset(names)


def folder_of(module: str) -> str:
    """The folder a module lies in, as FLOORS names it: `home.contents`; a loose file goes by its own name."""
    path = MODULES[module]
    parts = path.relative_to(ROOT).parts[1:]
    return ".".join(parts[:-1]) if len(parts) > 1 else path.stem


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    tops = {name.partition(".")[0] for name in imports(path)} - STANDARD
    foreign = FOREIGN.get(package, tops - set(PACKAGES))
    assert tops <= OWN[package] | foreign, f"{path.name} imports {sorted(tops - OWN[package] - foreign)}"


@pytest.mark.parametrize("package", FLOORS)
def test_folders_import_from_lower_floors_alone(package: str) -> None:
    floor_of = {folder: floor for floor, folders in enumerate(FLOORS[package]) for folder in folders.split()}
    modules = [m for m, path in MODULES.items() if m.startswith(f"{package}.") and path.name != "__init__.py"]
    assert {folder_of(module) for module in modules} == set(floor_of), "every folder has a floor"
    for module in modules:
        for used in imports(MODULES[module]) & set(modules):
            here, there = folder_of(module), folder_of(used)
            assert here == there or floor_of[there] < floor_of[here], f"{module} imports {used}: not a lower floor"


def test_no_stage_imports_another() -> None:
    for path in (ROOT / "tasks" / "stages").glob("*.py"):
        others = {name for name in imports(path) if name.startswith("tasks.stages.")}
        assert not others, f"{path.name} imports {sorted(others)}"


def test_folders_stay_small() -> None:
    files = Counter(path.parent for path in ALL_FILES if path.name != "__init__.py")
    assert {str(f.relative_to(ROOT)): n for f, n in files.items() if n > MAX_FILES} == {}


def test_import_chains_stay_short() -> None:
    @cache
    def chain(module: str) -> tuple[str, ...]:
        own = (name for name in imports(MODULES[module]) if name.startswith("tasks."))
        return (module, *max((chain(name) for name in own), key=len, default=()))

    longest = max((chain(module) for module in MODULES if module.startswith("tasks.")), key=len)
    assert len(longest) <= MAX_CHAIN_IN_TASKS, " → ".join(longest)


def test_modules_form_no_circle() -> None:
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " → ".join([*above[above.index(module) :], module])
        if module not in done:
            for used in imports(MODULES[module]) & set(MODULES):
                visit(used, (*above, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_data_needs_no_torch() -> None:
    """Worker processes import `data` alone, and torch would take them seconds each."""
    of_data = [module for module in MODULES if module.partition(".")[0] == "data"]
    used = {name for module in of_data for name in imports(MODULES[module]) if name.startswith("model.")}
    assert used <= {name for name in MODULES if name.startswith("model.tokens.")}
    script = f"import sys, {', '.join(of_data)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


def test_only_tracking_imports_mlflow() -> None:
    """One folder and those below it: runs, registry, delivery and system metrics are modules of their own in it."""
    users = {p.parent.relative_to(ROOT).as_posix() for p in FILES if "mlflow" in {n.split(".")[0] for n in imports(p)}}
    assert users == {"tasks/tracking", "tasks/tracking/models", "tasks/tracking/moves", "tasks/tracking/removal"}


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
    for path in (ROOT / "flows").rglob("*.py"):
        called = {
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
        }
        assert not called & {"open", "read_text", "write_text", "read_bytes", "write_bytes", "mkdir", "unlink"}, (
            path.name
        )


def test_every_package_is_installed() -> None:
    """From another folder, so that this one is not on the path."""
    names = ", ".join(PACKAGES)
    script = f"import {names}; print({', '.join(f'{name}.__file__' for name in PACKAGES)})"
    found = subprocess.run([sys.executable, "-c", script], cwd="/", capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(ROOT / name / "__init__.py") for name in PACKAGES]


@pytest.mark.parametrize("path", ALL_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {
        f.name: f.end_lineno - f.lineno + 1
        for f in functions
        if (f.end_lineno or 0) - f.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_files_of_tests_that_begin_first_are_there() -> None:
    assert [name for name in LONGEST_FIRST if not (ROOT / "tests" / name).exists()] == []
