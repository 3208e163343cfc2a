"""The example of docs/model-in-20-lines.md runs as it is written, on a small budget; docs/log.md keeps to its rule."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUDGET = "num_tokens=300_000"
LINES_PER_TOPIC = 45


def example(page: str) -> str:
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return str(code)


def test_both_languages_show_the_same_code() -> None:
    assert example("docs/model-in-20-lines.md") == example("docs/zh/model-in-20-lines.md")


def test_it_is_twenty_lines_of_model_alone() -> None:
    code = example("docs/model-in-20-lines.md")
    assert len([line for line in code.splitlines() if line.strip()]) == 20
    modules = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(code))
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        )
    }  # fmt: skip
    assert modules - set(sys.stdlib_module_names) == {"model", "numpy"}


def test_it_learns_and_writes(capsys: pytest.CaptureFixture[str]) -> None:
    code = example("docs/model-in-20-lines.md")
    assert code.count(BUDGET) == 1
    exec(compile(code.replace(BUDGET, "num_tokens=12_000"), "model-in-20-lines", "exec"), {})
    said = capsys.readouterr().out
    losses = [float(found) for found in re.findall(r"([\d.]+) nats", said)]
    assert len(losses) == 12
    assert losses[-1] < losses[0] - 0.5
    assert "\nThe import statement" in said


def anchor_of(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_topic_of_the_log_is_in_its_index_in_order_and_fits_a_screen() -> None:
    text = (ROOT / "docs/log.md").read_text(encoding="utf-8")
    _, (first, *index), *sections = (part.splitlines() for part in re.split(r"^## ", text, flags=re.MULTILINE))
    assert first == "Index"
    entries = re.findall(r"^- \[(.+?)\]\(#(.+?)\): \S", "\n".join(index), flags=re.MULTILINE)
    headings = [heading for heading, *_ in sections]
    assert entries == [(heading, anchor_of(heading)) for heading in headings]
    assert set(re.findall(r"\]\(#(.+?)\)", text)) <= {anchor_of(heading) for heading in headings}
    assert {lines[0]: len(lines) for lines in sections if len(lines) > LINES_PER_TOPIC} == {}
