"""How programs that show them read tables: markdown as CommonMark with GitHub's tables, HTML with its entities."""

from __future__ import annotations

from html.parser import HTMLParser

from markdown_it import MarkdownIt


class TableReader(HTMLParser):
    """The cells of the tables of an HTML text, as rows of what is shown in them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.in_cell = False
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.in_cell:
            self.rows[-1][-1] += data


TABLE_TAGS = {"table", "thead", "tbody", "tr", "th", "td"}


def cells_of_markdown(source: str) -> list[list[str]]:
    """Headings and rows of a text that is one table of plain text and nothing else."""
    reader = TableReader(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(source))
    assert reader.tags == TABLE_TAGS
    return reader.rows
