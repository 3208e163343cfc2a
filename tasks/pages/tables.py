"""Tables for the terminal, as markdown and as HTML, each with its cells escaped and bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import quote

from markupsafe import Markup
from prettytable import PrettyTable

from tasks.pages.drawings import Bar
from tasks.pages.rendering import render
from tasks.pages.text import NAME_CHARACTERS, markdown_line, one_line

MAX_ROWS = 60
"""Most rows that are shown; the rest is counted."""
SENTENCE_CHARACTERS = 500
"""Most characters of a cell that holds sentences."""
PATH_CHARACTERS = 4096
"""Most characters of a cell that holds a path or an address, which must be whole to be of use."""
COLUMN_GAP = 2
"""Spaces between the columns of a terminal."""
URL_CHARACTERS = ":/?#@!$&'*+,;=%~"
"""What stays as it is in the address of a markdown link: nothing that could end the link or the cell."""

Kind = Literal["text", "number", "long", "category", "badge", "bar"]
"""How a column's cells are drawn.

`number` is aligned to the right; `long` gets a line of its own on a narrow screen; `category` holds `Category`, `bar`
holds `Bar` or None and is drawn in HTML alone; `badge` holds the name of a CSS class.
"""


@dataclass(frozen=True)
class Category:
    """A name beside a dot of its colour."""

    name: str
    colour: str = ""
    """As CSS writes it; no dot if empty."""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Link:
    """Text that leads to an address where the target has links: in markdown."""

    text: str
    url: str

    def __str__(self) -> str:
        return self.text

    def as_markdown(self) -> str:
        return f"[{markdown_line(self.text)}]({quote(self.url, safe=URL_CHARACTERS)})"


Cell = str | int | Category | Link | Bar | None


@dataclass(frozen=True)
class Column:
    """The heading of a column, and how its cells are drawn."""

    heading: str
    kind: Kind = "text"
    max_characters: int = NAME_CHARACTERS
    """Of a cell; longer text is cut."""

    def text(self, cell: Cell) -> str:
        """A cell for the terminal."""
        return f"{cell:,}" if isinstance(cell, int) else one_line(cell, self.max_characters)

    def markdown(self, cell: Cell) -> str:
        """A cell as markdown."""
        if isinstance(cell, Link):
            return cell.as_markdown()
        return f"{cell:,}" if isinstance(cell, int) else markdown_line(cell, self.max_characters)


@dataclass(frozen=True)
class Table:
    """Rows of cells, a cell for each column; `total` is a last row that is always shown."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    total: Sequence[Cell] = ()

    def __post_init__(self) -> None:
        for row in (*self.rows, *([self.total] if self.total else ())):
            if len(row) != len(self.columns):
                raise ValueError(f"a row has {len(row)} cells, the table has {len(self.columns)} columns")

    @classmethod
    def of_pairs(cls, pairs: Sequence[tuple[str, str]], max_characters: int) -> Table:
        """(name, text) a row, without headings; a text has at most `max_characters`."""
        return cls([Column(""), Column("", max_characters=max_characters)], pairs)

    @property
    def shown_rows(self) -> Sequence[Sequence[Cell]]:
        return self.rows[:MAX_ROWS]

    @property
    def num_hidden_rows(self) -> int:
        return max(0, len(self.rows) - MAX_ROWS)

    def only(self, *headings: str) -> Table:
        """The columns of these headings, in the table's order."""
        return self._columns([index for index, column in enumerate(self.columns) if column.heading in headings])

    def without_empty_columns(self) -> Table:
        """The columns in which some row, or the total, has a cell."""
        rows = [*self.rows, *([self.total] if self.total else [])]
        return self._columns([i for i in range(len(self.columns)) if any(row[i] not in ("", None) for row in rows)])

    def _columns(self, indices: Sequence[int]) -> Table:
        def pick(row: Sequence[Cell]) -> list[Cell]:
            return [row[index] for index in indices]

        return replace(
            self,
            columns=[self.columns[index] for index in indices],
            rows=[pick(row) for row in self.rows],
            total=pick(self.total) if self.total else (),
        )

    def as_text(self) -> str:
        """For a terminal, as wide as its cells; empty without rows."""
        table = self._without_bars()
        layout = PrettyTable([str(index) for index in range(len(table.columns))])
        layout.header = layout.border = False
        layout.left_padding_width, layout.right_padding_width = 0, COLUMN_GAP
        for name, column in zip(layout.field_names, table.columns, strict=True):
            layout.align[name] = "r" if column.kind == "number" else "l"
        headings = [column.heading for column in table.columns]
        layout.add_rows([*([headings] if any(headings) else []), *table._lines(Column.text)])
        return "\n".join(line.rstrip() for line in layout.get_string().splitlines()) if self.rows else ""

    def as_markdown(self) -> str:
        """A table as GitHub Flavored Markdown has it; empty without rows."""
        table = self._without_bars()
        rule = "|".join("---:" if column.kind == "number" else "---" for column in table.columns)
        headings = [markdown_line(column.heading) for column in table.columns]
        head, *lines = (f"| {' | '.join(cells)} |" for cells in (headings, *table._lines(Column.markdown)))
        return "\n".join([head, f"|{rule}|", *lines]) if self.rows else ""

    def as_html(self) -> Markup:
        """A table that scrolls by itself on a narrow screen; empty without rows."""
        return render("table.html.j2", table=self) if self.rows else Markup("")

    def _without_bars(self) -> Table:
        return self._columns([index for index, column in enumerate(self.columns) if column.kind != "bar"])

    def _lines(self, format_cell: Callable[[Column, Cell], str]) -> Iterator[list[str]]:
        """The cells of each row that is shown, of a row that counts the others, and of the total."""
        for row in self.shown_rows:
            yield [format_cell(column, cell) for column, cell in zip(self.columns, row, strict=True)]
        if self.num_hidden_rows:
            yield [f"and {self.num_hidden_rows:,} more", *("" for _ in self.columns[1:])]
        if self.total:
            yield [format_cell(column, cell) for column, cell in zip(self.columns, self.total, strict=True)]
