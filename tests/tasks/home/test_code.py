"""A change inside a stage's import closure changes its key; one outside it, or in words alone, does not."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tasks.home.code import OURS, PACKAGES, WITHOUT_EFFECT, SourceTree, code_version, read_source, source_of
from tasks.home.stage_table import STAGES, StageEntry
from tests.tasks.rows import write_files

FILES = {
    "ripe/__init__.py": "",
    "ripe/one.py": "from ripe.deep import name\nimport ripe.two\n\n\ndef f():\n    from ripe import late\n",
    "ripe/two.py": "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from ripe import typed\nX = 1\n",
    "ripe/late.py": "X = 1\n",
    "ripe/typed.py": "X = 1\n",
    "ripe/apart.py": "import ripe.one\n",
    "ripe/deep/__init__.py": "",
    "ripe/deep/name.py": "from ripe.told import X\n",
    "ripe/deep/two.py": "X = 1\n",
    "ripe/told.py": "import ripe.apart\nX = 1\n",
}


def tree(root: Path, **without_effect: str) -> SourceTree:
    return SourceTree(root, ("ripe",), {f"ripe.{name}": why for name, why in without_effect.items()})


@pytest.fixture
def ripe(tmp_path: Path) -> Path:
    write_files(tmp_path, FILES)
    return tmp_path


def version_after(root: Path, file: str, text: str, module: str = "ripe.one", **without_effect: str) -> str:
    """The version of a module with another text in one file."""
    changed = root.parent / f"{root.name}-changed"
    shutil.copytree(root, changed, dirs_exist_ok=True)
    write_files(changed, {file: text})
    read_source.cache_clear()
    return tree(changed, **without_effect).code_version(module)


def test_a_closure_is_what_is_imported_anywhere_but_for_types(ripe: Path) -> None:
    closure = tree(ripe).closure("ripe.one")
    assert closure == {
        "ripe", "ripe.one", "ripe.two", "ripe.late", "ripe.deep", "ripe.deep.name", "ripe.told", "ripe.apart"
    }  # fmt: skip
    assert tree(ripe, told="reports").closure("ripe.one") == closure - {"ripe.told", "ripe.apart"}
    assert "ripe.deep.name" not in tree(ripe, deep="draws").closure("ripe.one"), "a package ends it with all it holds"


@pytest.mark.parametrize("file", FILES)
def test_a_change_counts_where_the_closure_goes(ripe: Path, file: str) -> None:
    before, inside = tree(ripe).code_version("ripe.one"), tree(ripe).closure("ripe.one")
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    assert (version_after(ripe, file, FILES[file] + "Y = 2\n") != before) == (module in inside)


def test_two_files_of_one_name_in_two_folders_are_two(ripe: Path) -> None:
    """Named by bare name, the contents of `ripe/two.py` and `ripe/deep/two.py` could be exchanged unseen."""
    text = "import ripe.two, ripe.deep.two\n"
    write_files(ripe, {"ripe/one.py": text, "ripe/two.py": "A = 1\n", "ripe/deep/two.py": "B = 2\n"})
    before = tree(ripe).code_version("ripe.one")
    write_files(ripe, {"ripe/two.py": "B = 2\n", "ripe/deep/two.py": "A = 1\n"})
    read_source.cache_clear()
    assert tree(ripe).code_version("ripe.one") != before


@pytest.mark.parametrize(
    "text",
    [
        '"""Said."""\n\nX = 1  # why\n', 'X = 1\n"""Of X."""\n', "X    =    1\n", "# a comment\nX = (\n    1\n)\n",
    ],
)  # fmt: skip
def test_words_and_layout_change_no_version(ripe: Path, text: str) -> None:
    before = tree(ripe).code_version("ripe.one")
    assert version_after(ripe, "ripe/late.py", text) == before
    assert version_after(ripe, "ripe/late.py", text.replace("1", "2")) != before


LOGGER = 'import logging\n\nlog = logging.getLogger("ripe")\n\n\ndef f(x, y=None):\n    '
SAID = 'log.info("%s of %d rows", x, 2)'


@pytest.mark.parametrize(
    ("call", "other"),
    [
        (SAID, 'log.info("%s rows, %d in all", x, 2)'),
        (SAID, 'log.info("%s of %d "\n        "rows", x, 2)'),
        ('log.warning(f"{x} rows")', 'log.warning(f"of rows there are {x}, which are many")'),
        ('log.error("%s: %s", "rows", x)', 'log.error("%s - %s", "lines", x)'),
    ],
)
def test_the_wording_of_a_log_line_changes_no_version(ripe: Path, call: str, other: str) -> None:
    write_files(ripe, {"ripe/late.py": LOGGER + call + "\n"})
    before = tree(ripe).code_version("ripe.one")
    assert version_after(ripe, "ripe/late.py", LOGGER + other + "\n") == before


@pytest.mark.parametrize(
    ("call", "other"),
    [
        (SAID, 'log.info("%s of %d rows", y, 2)'),
        (SAID, 'log.info("%s of %d rows", x, 3)'),
        (SAID, 'log.info("%s of %d rows", x.pop(), 2)'),
        (SAID, 'log.info("%s of %d rows", x, 2, exc_info="no")'),
        (SAID, SAID + "; x.clear()"),
        (SAID, 'log.warning("%s of %d rows", x, 2)'),
        ('log.info(f"{x:.2f} rows")', 'log.info(f"{x:.3d} rows")'),
        ('log.info(f"{x} rows")', 'log.info(f"{x!r} rows")'),
        ('log.info("%s", x["a"])', 'log.info("%s", x["b"])'),
        ('log.info("%s", "a" if x else y)', 'log.info("%s", "b" if x else y)'),
        ('log.info("%s", x.pop("a"))', 'log.info("%s", x.pop("b"))'),
        ('log.setLevel("INFO")', 'log.setLevel("DEBUG")'),
        ('log.addHandler("a")', 'log.addHandler("b")'),
        ('logging.info("a")', 'logging.info("b")'),
        ('x.info("a")', 'x.info("b")'),
        ('x.log.info("a")', 'x.log.info("b")'),
        ('return "a"', 'return "b"'),
        ('raise ValueError("a")', 'raise ValueError("b")'),
    ],
)
def test_whatever_else_a_log_line_does_changes_the_version(ripe: Path, call: str, other: str) -> None:
    write_files(ripe, {"ripe/late.py": LOGGER + call + "\n"})
    before = tree(ripe).code_version("ripe.one")
    assert version_after(ripe, "ripe/late.py", LOGGER + other + "\n") != before


@pytest.mark.parametrize(
    "head",
    [
        'def f(x, log):\n    log.info("{}")\n',
        'from ripe.two import log\nlog.info("{}")\n',
        'import logging\nfrom ripe.two import *\nlog = logging.getLogger("a")\nlog.info("{}")\n',
        'import logging\nlog = logging.getLogger("a")\n\n\ndef f(x):\n    for log in x:\n        log.info("{}")\n',
        'import logging\nlog = logging.getLogger("a")\n\n\ndef f(log):\n    log.info("{}")\n',
        'import logging\nlog = logging.getLogger("a")\n\n\nclass log:\n    pass\n\n\nlog.info("{}")\n',
        'import logging\nlog = logging.getLogger("a")\ntry:\n    pass\nexcept E as log:\n    log.info("{}")\n',
        'import logging\nlog = logging.getLogger("a")\nmatch log:\n    case [*log]:\n        log.info("{}")\n',
        'import logging\nlog = logging.getLogger("a")\ndel log\nlog.info("{}")\n',
        'import ripe.two as logging\nlog = logging.getLogger("a")\nlog.info("{}")\n',
        'import logging\nlog = logging.getLogger("a")\nlogging = 3\nlog.info("{}")\n',
        'import logging\n\n\ndef f():\n    log = logging.getLogger("a")\n    log.info("{}")\n',
    ],
)
def test_words_that_may_go_elsewhere_than_to_a_logger_count(ripe: Path, head: str) -> None:
    write_files(ripe, {"ripe/late.py": head.format("a")})
    before = tree(ripe).code_version("ripe.one")
    assert version_after(ripe, "ripe/late.py", head.format("b")) != before


def test_the_words_of_the_training_loop_can_be_reworded(copy: Path) -> None:
    """The same of a file of ours."""
    before, path = versions(copy), copy / "tasks/training/run.py"
    text = path.read_text(encoding="utf-8")
    reworded = text.replace("goes on at step %d", "continues after step %d")
    assert reworded != text
    path.write_text(reworded, encoding="utf-8")
    try:
        assert versions(copy) == before
    finally:
        path.write_text(text, encoding="utf-8")


def test_a_module_that_is_none_of_ours_has_no_version() -> None:
    with pytest.raises(TypeError, match="no source for module nowhere"):
        code_version("nowhere")


def test_what_counts_for_nothing_is_there() -> None:
    for module in WITHOUT_EFFECT:
        assert module in OURS.modules, f"{module} is gone"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        shutil.copytree(OURS.root / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.fixture(scope="module", autouse=True)
def _each_text_is_parsed_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.home.code.source_of", cache(source_of))
        yield


def versions(root: Path) -> dict[str, str]:
    read_source.cache_clear()
    return {entry.name: SourceTree(root).code_version(entry.module) for entry in STAGES}


SAMPLE = sorted(random.Random(0).sample(sorted(set(OURS.modules) - set(PACKAGES)), 16))


@pytest.mark.parametrize("module", SAMPLE)
def test_a_change_of_a_module_changes_the_stages_that_import_it(copy: Path, module: str) -> None:
    before, path = versions(copy), copy / OURS.modules[module].relative_to(OURS.root)
    text = path.read_text(encoding="utf-8")
    path.write_text(text + "\nCHANGED = True\n", encoding="utf-8")
    try:
        after = versions(copy)
    finally:
        path.write_text(text, encoding="utf-8")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {entry.name for entry in STAGES if module in OURS.closure(entry.module)}


TRAINING = {"pretrain", "sft"}
ALL = {entry.name for entry in STAGES}
MUST_CHANGE = {
    "data.sides.read": {"split", "tokens", "evaluate"},
    "model.tokens.chat": {"tokens", "register", "evaluate"},
    "model.training.checkpoint": TRAINING | {"evaluate", "register"},
    "model.network.layers": TRAINING | {"evaluate", "register", "find-lr"},
    "model.tokens.packing": TRAINING | {"tokens"},
    "tasks.evaluation.gate": {"register"},
    "data.rows.drift": {"inspect"},
    "tasks.planning.cost": TRAINING,
    "tasks.planning.probe": TRAINING,
    "tasks.training.watching.watcher": TRAINING,
    "tasks.home.links": {"validate", "deduplicate", "split", "tokens"},
    "model.generation.generate": {"evaluate"},
    "tasks.evaluation.measures.choices": {"evaluate"},
}
MUST_NOT_CHANGE = {
    "model.generation.generate": ALL - {"evaluate"},
    "model.generation.sampling": ALL - {"evaluate"},
    "model.tokens.chat": {"pretrain", "sft", "split", "find-lr"},
    "tasks.planning.plan": ALL,
    "tasks.training.meters": ALL,
    "tasks.pages.figures": ALL,
    "tasks.tracking.mlflow_store": ALL,
    "tasks.recipes.stage_configs": ALL,
    "tasks.night.report": ALL,
    "tasks.questions.answers": ALL,
    "tasks.evaluation.gate": ALL - {"register"},
    "schemas.jsonl": ALL - {"validate"},
}


@pytest.mark.parametrize("entry", STAGES, ids=lambda entry: entry.name)
def test_what_each_stage_depends_on(entry: StageEntry) -> None:
    closure = OURS.closure(entry.module)
    assert {module for module, stages in MUST_CHANGE.items() if entry.name in stages} <= closure
    assert not {module for module, stages in MUST_NOT_CHANGE.items() if entry.name in stages} & closure
