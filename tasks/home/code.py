"""The code part of a stage's key: what the stage's module imports, less what cannot change its result.

The import closure of a module is it and, over and over, every module of ours that it imports, anywhere in the file: an
import inside a function counts, one under TYPE_CHECKING does not. Files count by their path, and by their syntax tree
without docstrings: a comment, a docstring or the layout of the text changes no key.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from tasks.home.digests import digest_of

PACKAGES = ("flows", "tasks", "data", "schemas", "model")
WITHOUT_EFFECT = {
    "tasks.tracking": "tracks",
    "tasks.pages": "draws",
    "tasks.training.progress": "reports",
    "tasks.training.meters": "reports",
    "tasks.training.curve": "reports",
    "tasks.planning.plan": "reports",
    "tasks.planning.memory": "reports",
    "tasks.planning.probe": "measures time",
    "data.lookup": "notes what was read, for questions about it",
    "model.generation": "samples that are shown; nothing is decided by them",
    "tasks.stage": "the frame around every stage",
    "tasks.home.code": "the frame",
    "tasks.home.digests": "the frame",
    "tasks.home.journal": "the frame",
    "tasks.home.records": "the frame",
    "tasks.home.stage_table": "the frame",
    "tasks.night": "the frame",
    "tasks.recipes": "reads recipes; their values are in the key",
    "tasks.sources": "finds pieces of raw files; their digests are in the key",
    "tasks.errors": "words of messages",
    "tasks.settings": "where things are",
    "tasks.services": "servers",
    "model.files": "how files are written, not what is in them",
    "data.workers": "which process does a piece of work, not what it gives",
}
"""Modules and packages at which a closure ends, and why what they do cannot change what a stage makes."""


@dataclass(frozen=True)
class SourceTree:
    """Our packages below a folder."""

    root: Path
    packages: tuple[str, ...] = PACKAGES
    without_effect: Mapping[str, str] = field(default_factory=lambda: WITHOUT_EFFECT)

    @cached_property
    def modules(self) -> dict[str, Path]:
        """Every module's file by its full name; a package's is its `__init__.py`."""
        files = (path for package in self.packages for path in sorted((self.root / package).rglob("*.py")))
        return {self._name(path): path for path in files}

    def _name(self, path: Path) -> str:
        parts = path.relative_to(self.root).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def closure(self, module: str) -> frozenset[str]:
        """Names of the modules whose code can change what `module` makes. Raises TypeError if it is none of ours."""
        if module not in self.modules:
            raise TypeError(f"no source for module {module} below {self.root}")
        reached, waiting = {module}, [module]
        while waiting:
            for imported in self._read(waiting.pop()).imports - reached:
                if not self._ends_at(imported):
                    reached.add(imported)
                    waiting.append(imported)
        return frozenset(reached)

    def _ends_at(self, module: str) -> bool:
        return any(module == end or module.startswith(f"{end}.") for end in self.without_effect)

    def code_version(self, module: str) -> str:
        """Digest of the code that can change what `module` makes."""
        names = sorted(self.closure(module))
        return digest_of({str(self.modules[n].relative_to(self.root)): self._read(n).digest for n in names})

    def _read(self, module: str) -> Source:
        return read_source(self.modules[module], module, frozenset(self.modules))


@dataclass(frozen=True)
class Source:
    """What a file says."""

    digest: str
    """Of its syntax tree without docstrings."""
    imports: frozenset[str]
    """Modules of ours that it imports, with the packages they lie in."""


@cache
def read_source(path: Path, module: str, modules: frozenset[str]) -> Source:
    """Read a file once in the life of the process: code that was imported does not change under it either."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = frozenset(name for node in running(tree) for name in imported_by(node, modules))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [statement for statement in node.body if not is_text(statement)] or [ast.Pass()]
    return Source(hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports - {module})


def is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a string by itself: a docstring, of an attribute too."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield from running(child)


def imported_by(node: ast.AST, modules: frozenset[str]) -> Iterator[str]:
    """Modules of ours that an import statement imports, with the packages above them."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    for name in names:
        parts = name.split(".")
        yield from (prefix for n in range(1, len(parts) + 1) if (prefix := ".".join(parts[:n])) in modules)


OURS = SourceTree(Path(__file__).resolve().parents[2])


def code_version(module: str) -> str:
    """Digest of the code that can change what a module of ours makes."""
    return OURS.code_version(module)
