"""Builders of small homes: documents with planted copies, parts on disk, nights added one after another."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from hypothesis import settings

from data.duplicates.decide import NearDuplicateRules, add_generation
from data.duplicates.ledger import Ledger
from data.duplicates.volumes import fold_volumes
from data.rows.keys import names_of, row_ids
from data.rows.parts import CONTENT, FACTS_DTYPE, Part, PartRows, PartWriter, spoken_of, texts_of
from data.rows.sketch import sketches_of
from data.sides.rules import SideRules
from schemas.domain import DOMAINS

EXAMPLES = 15
repeatable = settings(max_examples=EXAMPLES)
WORDS = [
    a + b for a in ("ba", "Co", "du", "fey", "gi", "ho") for b in ("lan", "mer", "nost", "pi", "qua", "Rel", "sid")
]
VOCABULARIES = (
    WORDS,
    [chr(code) for code in range(0x4E00, 0x4E00 + 60)],
    [
        *WORDS[:20],
        "naïve",
        "Ångström",
        "Привет",
        "мир",
        "你",
        "好",
        "世",
        "界",
        "😀",
        "🎉",
        "’",
        "e\u0301",
        "x=1;",
        "3.14",
    ],
)
GAPS = (" ", "  ", "\n", "\t", " \r\n", "\x0b", "\n\n")


def document(number: int, num_words: int = 60) -> list[str]:
    """Words of a document, which has nothing in common with that of another number."""
    generator = random.Random(number)
    vocabulary = VOCABULARIES[number % len(VOCABULARIES)]
    return [generator.choice(vocabulary) for _ in range(num_words)]


def plain(words: Sequence[str]) -> str:
    return " ".join(words)


def respaced(words: Sequence[str], seed: int = 0) -> str:
    """With other white space between the same words."""
    generator = random.Random(seed)
    return "".join(word + generator.choice(GAPS) for word in words)


def edited(words: Sequence[str], seed: int = 0) -> str:
    """With another first word, which leaves (n - 1) of (n + 1) shingles alike."""
    return plain([f"edit{seed}", *words[1:]])


def window(number: int, start: int, num_words: int = 50) -> str:
    """Words `start` and on of one long document: windows overlap, so that near ones form chains."""
    return plain(document(number, 200)[start : start + num_words])


def filled(template: int, row: int, num_words: int = 80) -> list[str]:
    """Words of a template in which every twentieth is the row's own: two rows of one are 0.6 alike."""
    words = document(template, num_words)
    words[10::20] = [f"own{row}x{place}" for place in range(10, num_words, 20)]
    return words


@dataclass(frozen=True)
class Piece:
    """Rows of one part; their domains take turns."""

    texts: Sequence[str]
    kind: str = "pretrain"
    source: str = "books"


def content_of(texts: Sequence[str], kind: str) -> pl.Series:
    if kind == "pretrain":
        return pl.Series(texts, dtype=pl.String)
    turns = [
        [{"role": ("user", "assistant")[n % 2], "content": line} for n, line in enumerate(text.split("\n"))]
        for text in texts
    ]
    return pl.Series(turns, dtype=CONTENT["chat"]["conversations"])


def write_part(part: Part, piece: Piece, rows_per_chunk: int = 7) -> Part:
    """A validated part as a scan would leave it, in chunks."""
    part.folder.mkdir(parents=True, exist_ok=True)
    with PartWriter(part, piece.kind) as writer:
        for start in range(0, len(piece.texts), rows_per_chunk):
            content = content_of(piece.texts[start : start + rows_per_chunk], piece.kind)
            texts = texts_of(content)
            facts = np.zeros(len(texts), dtype=FACTS_DTYPE)
            facts["line"] = np.arange(start, start + len(texts)) + 1
            facts["num_bytes"] = texts.str.len_bytes().to_numpy()
            facts["domain"] = [len(text) % len(DOMAINS) for text in texts]
            writer.write(content, row_ids(texts), sketches_of(spoken_of(content)), facts)
    return part


@dataclass(frozen=True)
class Seen:
    """A row and what became of it."""

    row: int
    generation: int
    kind: str
    source: str
    text: str
    name: str
    fate: int
    cluster: str
    domain: str
    kept: int
    """Number of the row that stays for it."""


RULES = SideRules(
    val_share=0.4, salt="salt", shuffle_seed=7, val_bytes_per_slice=1_000, weights={"books": 1.0, "web": 1.0}
)


@dataclass
class Home:
    """A folder that grows by a night at a time, and the ledger of its rows."""

    folder: Path
    settings: NearDuplicateRules = field(default_factory=lambda: NearDuplicateRules(threshold=0.8, drop=True))
    rules: SideRules = RULES
    ledger: Ledger = field(default_factory=lambda: Ledger((), ()))
    folds: bool = False

    def add(self, *pieces: Piece) -> tuple[PartRows, ...]:
        """One more night; returns its parts."""
        fresh, base = [], self.ledger.next_row
        for number, piece in enumerate(pieces, start=len(self.ledger.parts)):
            part = write_part(Part(self.folder / "parts", number), piece)
            fresh.append(PartRows(part, base, len(piece.texts), piece.kind, piece.source))
            base += len(piece.texts)
        self.ledger = add_generation(self.ledger, fresh, self.folder, self.settings, self.rules.is_val)
        if self.folds:
            self.ledger = fold_volumes(self.ledger)
        return tuple(fresh)

    def seen(self) -> list[Seen]:
        """All rows in order."""
        found = []
        for p in self.ledger.parts:
            volume, start = self.ledger.place(p.base)
            number = self.ledger.generation(p.base).number if p.count else -1
            texts = [text for frame in p.part.rows() for text in texts_of(frame.to_series())]
            columns = texts, names_of(p.part.ids), self.ledger.fates_of(p), names_of(self.ledger.clusters_of(p))
            kept = volume.kept[start : start + p.count].tolist()
            for n, (text, name, fate, cluster) in enumerate(zip(*columns, strict=True)):
                own = DOMAINS[p.part.facts["domain"][n]], kept[n]
                found.append(Seen(p.base + n, number, p.kind, p.source, text, name, int(fate), cluster, *own))
        return found

    def kept(self) -> list[Seen]:
        return [row for row in self.seen() if row.fate == 0]

    def files(self, generation: int) -> dict[str, bytes]:
        """Content of a generation's files."""
        return {path.name: path.read_bytes() for path in sorted(self.folder.glob(f"*g{generation:04d}.*"))}


@contextmanager
def home(**fields: object) -> Iterator[Home]:
    """An empty home in a temporary folder; each example of a property test needs its own."""
    with tempfile.TemporaryDirectory() as folder:
        yield Home(Path(folder), **fields)
