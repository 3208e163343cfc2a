"""Templates escape what they show, refuse names that nobody defined, and are installed with the package."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from jinja2 import UndefinedError

import tasks.pages
from tasks.pages.data_report import DataReport
from tasks.pages.rendering import environment, isolated, render
from tests.tasks.pages.test_data_report import night

FOLDER = Path(tasks.pages.__file__).parent


def test_text_is_escaped_unless_a_template_made_it() -> None:
    template = environment().from_string("{{ text }}{{ text|isolated }}{{ ''|isolated }}")
    assert template.render(text="<&'\"") == "&lt;&amp;&#39;&#34;<bdi>&lt;&amp;&#39;&#34;</bdi>"
    assert isolated("a\n\x1b" + "b" * 99, 5) == "<bdi>a \ufffdb…</bdi>"


@pytest.mark.parametrize("template", ["bar.html.j2", "histogram.html.j2", "table.html.j2", "data_report.html.j2"])
def test_a_value_that_is_missing_is_an_error(template: str) -> None:
    with pytest.raises(UndefinedError, match="is undefined"):
        render(template)


def test_the_style_sheet_is_in_the_page_as_it_is_in_its_file() -> None:
    page = DataReport(night(), None, [], "t").as_html()
    assert type(page) is str
    assert (FOLDER / "templates" / "style.css").read_text(encoding="utf-8").strip() in page


def test_templates_are_part_of_the_package() -> None:
    content = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = content["tool"]["setuptools"]["package-data"]["tasks.pages"]
    files = {path for path in (FOLDER / "templates").rglob("*") if path.is_file()}
    assert len(files) == 14
    globs = {found for pattern in patterns for found in FOLDER.glob(pattern)}  # as setuptools reads them
    assert files <= globs
