"""text that is safe inside a markdown table"""

from __future__ import annotations


def one_line(text: str) -> str:
    return " ".join(text.split())


def cell(text: str) -> str:
    return one_line(text).replace("|", "\\|")
