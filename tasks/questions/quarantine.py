"""Lines that were not kept: counted by rule and file, shown, and searched for a text."""

from __future__ import annotations

import json
import mmap
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, islice
from pathlib import Path

import numpy as np
import orjson

from data.rows.folding import Lines, Parts, bad_lines_of
from data.rows.keys import row_ids
from tasks.errors import NightStopped
from tasks.home.contents.validated import PARTS, PIECES, ScannedPiece, read_pieces
from tasks.pages.text import plural
from tasks.questions.history import History, listed

SEARCHED_LINES = 100_000
"""Quarantined lines that a search reads at most: no index has their texts."""
NEEDLE_CHARACTERS, NEEDLE_BYTES = 200, 1_000
"""How much of a text a line must contain, in letters and in bytes of JSON, where one character may take twelve: the
quarantine may keep no more than the beginning of a line."""
GROUPS_SHOWN, RAW_SHOWN = 30, 160
ESCAPE, NO_LETTERS = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL), re.compile(r"[\W_]+")


@dataclass(frozen=True)
class BadLine:
    """A quarantined line."""

    file: str
    line: int
    byte_offset: int
    rule: str
    detail: str
    raw: str
    """Its beginning."""

    def as_text(self) -> str:
        where = f"{self.file}:{self.line}  byte {self.byte_offset:,}"
        return f"{where}  {self.rule}: {self.detail}\n    {shortened(self.raw)}"


@dataclass(frozen=True)
class Validation:
    """Pieces of a validation, and where their quarantined lines lie."""

    folder: Path
    recipe: str | None
    """None if the validation stopped its night, as nothing records whose it was then."""
    pieces: list[ScannedPiece]

    @cached_property
    def parts(self) -> Parts:
        return Parts.read(self.folder / PARTS)

    def lines(self, piece: ScannedPiece) -> Lines:
        return bad_lines_of(self.parts.of(piece.number))


def shortened(raw: str) -> str:
    """The beginning of a line, printable."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in raw[:RAW_SHOWN])
    return f"{shown} …" if len(raw) > RAW_SHOWN else shown


def newest_validation(history: History, recipe: str | None) -> Validation:
    """The last validation of a recipe, or of any: then one that stopped its night counts, too, if it is the last."""
    folders = [path.parent for path in (history.home / "data").glob(f"validate@*.partial/{PIECES}")]
    stopped = max(folders, key=age_of, default=None)
    names = history.recipes()
    if stopped and (not names or recipe not in (None, *names)):
        return Validation(stopped, None, read_pieces(stopped))
    name = history.recipe(recipe)
    record = history.journal.newest("validate", name)
    if record is None:
        raise NightStopped(
            f"the last validation of recipe {name} is not in {history.home / 'data'} any more; run {name}"
        )
    if stopped and recipe is None and age_of(stopped) > age_of(record.path):
        return Validation(stopped, None, read_pieces(stopped))
    return Validation(record.path, name, read_pieces(record.path))


def age_of(folder: Path) -> int:
    return (folder / PIECES).stat().st_mtime_ns


def line_at(lines: Lines, line: int) -> BadLine | None:
    """The line of this number, by binary search: a part's lines stand in order."""
    if not lines.num_bytes:
        return None
    with lines.path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        low, high = lines.start, lines.stop
        while low < high:
            middle = (low + high) // 2
            start = content.rfind(b"\n", low, middle) + 1 or low
            end = content.find(b"\n", middle)
            entry = orjson.loads(content[start:end])
            if entry["line"] == line:
                return BadLine(**entry)
            low, high = (end + 1, high) if entry["line"] < line else (low, start)
    return None


def text_of(raw: str) -> str | None:
    """The text of a raw row, as far as it is known without the format of its source; None if it is not a row."""
    try:
        row = orjson.loads(raw)
    except ValueError:
        return None
    if not isinstance(row, dict):
        return None
    turns = next((row[key] for key in ("conversations", "messages") if isinstance(row.get(key), list)), None)
    if turns is not None:
        contents = [turn.get("content", turn.get("value")) for turn in turns if isinstance(turn, dict)]
        return "\n".join(text for text in contents if isinstance(text, str))
    texts = [row.get(key) for key in ("text", "content", "instruction", "input", "output")]
    return "\n".join(text for text in texts if isinstance(text, str)) or None


def letters_of(text: str) -> str:
    """Letters and digits alone: what a text and the JSON it was written in, whole or broken, have in common."""
    return NO_LETTERS.sub("", unicodedata.normalize("NFC", text))


def beginning_of(text: str) -> str:
    """As much of a text as is NEEDLE_BYTES long in JSON that escapes all it can."""
    sizes = accumulate(len(json.dumps(character)) - 2 for character in text[:NEEDLE_BYTES])
    return text[: sum(size <= NEEDLE_BYTES for size in sizes)]


def unescaped(raw: str) -> str:
    """JSON's escapes undone, in a line that need not be JSON; white space for those that stand for no letter."""
    if "\\" not in raw:
        return raw
    units = ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else " ", raw)
    return units.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@dataclass(frozen=True)
class SearchResult:
    """Lines that a search of the quarantine found, and how many of all lines it read."""

    lines: list[BadLine]
    searched: int
    total: int


def search_text(validation: Validation, text: str, limit: int) -> SearchResult:
    """Lines that hold the beginning of a text, however they spell it."""
    needles = {letters_of(beginning_of(form))[:NEEDLE_CHARACTERS] for form in (text, unescaped(text))}
    words = re.findall("[A-Za-z0-9]+", text[:NEEDLE_CHARACTERS])[:-1] if text.isascii() else []  # the last may be cut

    def holds(line: BadLine) -> bool:
        letters = letters_of(unescaped(line.raw))
        return any(needle in letters if needle else beginning_of(text) in line.raw for needle in needles)

    return search(validation, holds, limit, [word.encode() for word in sorted(words, key=len, reverse=True)])


def search_name(validation: Validation, identity: np.ndarray, limit: int) -> SearchResult:
    """Lines that would be rows of this name, (1,) of ID_DTYPE, were they kept."""

    def is_named(line: BadLine) -> bool:
        text = text_of(line.raw)
        return text is not None and bool((row_ids([text]) == identity)[0])

    return search(validation, is_named, limit)


def search(
    validation: Validation, wanted: Callable[[BadLine], bool], limit: int, words: Sequence[bytes] = ()
) -> SearchResult:
    """The first wanted lines of a validation, among its first SEARCHED_LINES.

    `wanted`: whether a line is one; `limit`: lines to find at most; `words`: ASCII words that each such line has, by
    which most others are passed over unparsed: letters and digits, which writers of JSON do not escape.
    """
    found: list[BadLine] = []
    searched, total = 0, sum(piece.scanned.quarantined for piece in validation.pieces)
    for piece in (piece for piece in validation.pieces if piece.scanned.quarantined):
        for number, bare in enumerate(lines_with(validation.lines(piece), words[0] if words else b"")):
            if searched + number == SEARCHED_LINES:
                return SearchResult(found, SEARCHED_LINES, total)
            if all(word in bare for word in words) and wanted(line := BadLine(**orjson.loads(bare))):
                found.append(line)
                if len(found) == limit:
                    return SearchResult(found, searched + number + 1, total)
        searched += piece.scanned.quarantined
    return SearchResult(found, searched, total)


def lines_with(lines: Lines, word: bytes) -> Iterator[bytes]:
    """Lines that hold a word; those that do not are never cut out."""
    if not word:
        yield from lines
        return
    with lines.path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(word, lines.start, lines.stop)
        while at >= 0:
            end = content.find(b"\n", at)
            yield content[content.rfind(b"\n", lines.start, at) + 1 or lines.start : end]
            at = content.find(word, end, lines.stop)


def chosen_pieces(validation: Validation, rule: str | None, file: str | None) -> list[ScannedPiece]:
    """Pieces with quarantined lines of a rule and file. Raises NightStopped if there is no such file or rule."""
    labels = sorted({piece.label for piece in validation.pieces})
    if file is not None and file not in labels:
        raise NightStopped(f"no file {file!r:.200} was validated, there are {listed(labels)}")
    rules = sorted({name for piece in validation.pieces for name in piece.scanned.rules})
    if rule is not None and rule not in rules:
        raise NightStopped(f"no line was quarantined by the rule {rule!r:.80}, there are {listed(rules) or 'none'}")
    of_file = [piece for piece in validation.pieces if file in (None, piece.label)]
    return [piece for piece in of_file if piece.scanned.quarantined and (rule is None or rule in piece.scanned.rules)]


def chosen_lines(validation: Validation, pieces: Sequence[ScannedPiece], rule: str | None) -> Iterator[BadLine]:
    """Their quarantined lines, in order."""
    for piece in pieces:
        for bare in validation.lines(piece):
            line = BadLine(**orjson.loads(bare))
            if rule in (None, line.rule):
                yield line


def summary(validation: Validation) -> list[str]:
    """Quarantined lines by rule and file, most frequent first, with an example each."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for piece in validation.pieces:
        for rule, found in piece.scanned.rules.items():
            counts[rule, piece.label] += found["count"]
            examples.setdefault((rule, piece.label), found["examples"][0])
    read = sum(piece.scanned.read for piece in validation.pieces)
    whose = f"recipe {validation.recipe}" if validation.recipe else "the night that stopped there"
    lines = [f"{counts.total():,} of {plural(read, 'line')} were quarantined by {validation.folder.name}, {whose}"]
    for (rule, label), count in counts.most_common(GROUPS_SHOWN):
        lines.append(f"{count:>9,}  {rule}  {label}  e.g. {shortened(examples[rule, label])}")
    if len(counts) > GROUPS_SHOWN:
        lines.append(f"and {len(counts) - GROUPS_SHOWN:,} more pairs of rule and file")
    return lines


def listing(validation: Validation, rule: str | None, file: str | None, limit: int) -> list[str]:
    """The first quarantined lines of a rule and file, as lines of text, and their number.

    `rule`, `file`: name of the rule and label of the file, None for any; `limit`: lines to list at most. Raises
    NightStopped if no line has such a rule or file.
    """
    pieces = chosen_pieces(validation, rule, file)
    count = sum(p.scanned.quarantined if rule is None else p.scanned.rules[rule]["count"] for p in pieces)
    shown = [line.as_text() for line in islice(chosen_lines(validation, pieces, rule), limit)]
    return [*shown, f"{len(shown):,} of {plural(count, 'line')} shown"]
