"""A page as a strict reader sees it: every tag closed in order, every id once, every reference inside the page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "input", "br", "hr", "img", "link"}
ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "input", "header", "a", "div", "label", "svg", "defs",
    "symbol", "b",
    "path", "circle", "use", "main", "h1", "h2", "p", "dl", "dt", "dd", "section", "nav", "ul", "ol", "li", "figure",
    "figcaption", "desc", "text", "tspan", "table", "caption", "thead", "tbody", "tr", "th", "td", "span", "bdi",
    "small", "code", "footer", "details", "summary",
}  # fmt: skip
REFERENCES = ("href", "src", "for", "aria-labelledby", "xlink:href", "srcset", "action", "data")


class PageReader(HTMLParser):
    """Tags with their attributes, and the text that one language shows."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[tuple[str, str]] = []
        self.text: dict[str, str] = {"en": "", "zh-CN": ""}
        self.feed(source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        assert len(values) == len(attrs), f"{tag} has an attribute twice"
        self.tags.append((tag, values))
        if tag not in VOID:
            self.open.append((tag, values.get("lang", "") if tag in ("span", "tspan") else ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"{tag} is closed and was not open"
        opened, _ = self.open.pop()
        assert opened == tag, f"{opened} is open where {tag} is closed"

    def handle_data(self, data: str) -> None:
        if any(tag == "style" for tag, _ in self.open):
            return
        languages = {language for _, language in self.open if language}
        for language in self.text:
            if languages <= {language}:
                self.text[language] += data

    def section(self, name: str) -> str:
        """The HTML of a section by its id."""
        return re.split(r"</section>", self.source.split(f'<section id="{name}"')[1])[0]


def read_page(source: str) -> PageReader:
    """Read a page and hold it to all that every page of nights keeps to."""
    page = PageReader(source)
    assert {tag for tag, _ in page.tags} <= ALLOWED
    ids = [values["id"] for _, values in page.tags if "id" in values]
    assert len(ids) == len(set(ids)), "ids are unique"
    for tag, values in page.tags:
        assert not [name for name in values if name.startswith("on")], f"{tag} has a handler"
        for name in REFERENCES:
            for target in values.get(name, "").split() if name in values else ():
                inside = target.lstrip("#") in ids if name != "href" or target.startswith("#") else False
                local = tag == "a" and re.fullmatch(r"[\w%.@-]+\.html", target)
                assert inside or local, f"{tag} {name}={target}"
    style = source.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style and "//" not in style
    drawings = [values for tag, values in page.tags if tag == "svg"]
    assert all(v.get("aria-hidden") or v.get("aria-label") or v.get("aria-labelledby") for v in drawings)
    assert source.count("<table") == source.count("<caption")
    return page
