"""The code part of a stage's key: what the stage's module imports, less what cannot change its result.

The import closure of a module is it and, over and over, every module of ours that it imports, anywhere in the file: an
import inside a function counts, one under TYPE_CHECKING does not. Files count by their path, and by their syntax tree
without docstrings and without the words of log lines: a comment, a docstring, the wording of a log line or the layout
of the text changes no key. The values that a log line shows do count, and so do the words of an error: some are kept
in what a stage makes.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from tasks.home.digests import digest_of

LOG = "log"
"""What a module calls its logger."""
SPOKEN = {"debug", "info", "warning", "error", "exception", "critical"}
"""Methods of a logger that say something."""
PACKAGES = ("flows", "tasks", "data", "schemas", "model")
WITHOUT_EFFECT = {
    "tasks.tracking": "tracks",
    "tasks.pages": "draws",
    "tasks.training.progress": "reports",
    "tasks.training.meters": "figures for the curve; watchers are not given them, so they decide nothing",
    "tasks.training.curve": "reports",
    "tasks.home.contents.story": "told to pages",
    "tasks.planning.plan": "tells before a night what it will cost; what a stage decides by is in tasks.planning.cost",
    "tasks.planning.memory": "planned memory, which is reported; nothing is decided by it",
    "data.lookup": "notes what was read, for questions about it",
    "tasks.stage": "the frame around every stage",
    "tasks.home.code": "the frame",
    "tasks.home.digests": "the frame",
    "tasks.home.journal": "the frame",
    "tasks.home.lease": "the frame",
    "tasks.home.lines": "the frame",
    "tasks.home.notes": "what nights note of themselves, for later ones and for questions",
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

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(self.modules)

    def code_version(self, module: str) -> str:
        """Digest of the code that can change what `module` makes."""
        names = sorted(self.closure(module))
        return digest_of({str(self.modules[n].relative_to(self.root)): self._read(n).digest for n in names})

    def _read(self, module: str) -> Source:
        return read_source(self.modules[module], module, self.names)


@dataclass(frozen=True)
class Source:
    """What a file says."""

    digest: str
    """Of its syntax tree without docstrings and the words of log lines."""
    imports: frozenset[str]
    """Modules of ours that it imports, with the packages they lie in."""


@cache
def read_source(path: Path, module: str, modules: frozenset[str]) -> Source:
    """Read a file once in the life of the process: code that was imported does not change under it either."""
    return source_of(path.read_text(encoding="utf-8"), module, modules)


def source_of(text: str, module: str, modules: frozenset[str]) -> Source:
    """What the text of a module says. Raises SyntaxError if it is no Python."""
    tree = ast.parse(text)
    imports = frozenset(name for node in running(tree) for name in imported_by(node, modules))
    if has_logger(tree):
        leave_out_log_words(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [statement for statement in node.body if not is_text(statement)] or [ast.Pass()]
    return Source(hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports - {module})


def is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a string by itself: a docstring, of an attribute too."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def has_logger(tree: ast.Module) -> bool:
    """Whether `log` is `logging.getLogger(…)` wherever the file reads it: both names are bound once, at the top."""
    top = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.Assign)]
    made = any(statement.startswith(f"{LOG} = logging.getLogger(") for statement in top) and "import logging" in top
    bound = [name for node in ast.walk(tree) for name in names_bound_by(node)]
    return made and bound.count(LOG) == bound.count("logging") == 1


def names_bound_by(node: ast.AST) -> Iterator[str]:
    """Names that a node gives a value to, or takes it from; `*` for an import of whatever a module has."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            yield name
        case ast.alias(name=name, asname=given):
            yield from (LOG, "logging") if name == "*" else (given or name.partition(".")[0],)
        case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
        case ast.MatchMapping(rest=str(name)):
            yield name


def leave_out_log_words(tree: ast.Module) -> None:
    """Empty the strings that stand as arguments of `log.info(…)` and the like, and the words of f-strings there.

    The values that are formatted stay, with how they are: an expression may do something, and a format may fail.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=said)) if name == LOG and said in SPOKEN:
                node.args = [without_words(argument) for argument in node.args]


def without_words(argument: ast.expr) -> ast.expr:
    match argument:
        case ast.Constant(value=str()):
            return ast.Constant("")
        case ast.JoinedStr(values=values):
            return ast.JoinedStr([value for value in values if not isinstance(value, ast.Constant)])
    return argument


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


@cache
def code_version(module: str) -> str:
    """Digest of the code that can change what a module of ours makes, which stays in the life of the process."""
    return OURS.code_version(module)
