"""What corpora are made of: sentences of the built-in corpus, and made-up words from the tail of Zipf's law."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain, product

import numpy as np
import orjson

SECTIONS = {
    "pretrain": {"conversations": 0.50, "code": 0.25, "docstrings": 0.15, "reference": 0.08, "chinese": 0.02},
    "chat": {"conversations": 0.85, "english": 0.05, "other-languages": 0.05, "chinese": 0.05},
}
"""Share of a kind's rows that each section of the built-in corpus gives."""
SENTENCE_CHARACTERS = (40, 300)
SPACE = re.compile(r"(?<=[.!?]) +|\n+|(?<=[。！？])")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
SCRIPTS = ("latin", "numbers", "chinese")
NUMBERS = SCRIPTS.index("numbers")
CORE_WORDS, TAIL_EXPONENT = 7_873, 1.77
"""Where the second regime begins, and its exponent."""
BITS = 12
"""A word is one of 2^BITS stems and one of 2^BITS ends: 16.8 million words in a few hundred kilobytes."""
SPREAD = 0x9E3779B1
"""Odd, so that it permutes the words."""
ONSETS = [*"bcdfghjklmnprstvwz", "br", "ch", "cl", "dr", "fl", "gr", "pl", "pr", "qu", "sh", "sl", "st", "th", "tr"]
VOWELS = [*"aeiouy", "ai", "ea", "ee", "ia", "io", "ou"]
CODAS = ["", *"nrstlmd", "ng", "ck", "nd", "st", "rt", "ss"]
ENDINGS = ["es", "ed", "er", "ing", "ly", "al", "ion"]
FALLBACK_CHARACTERS = "天地人山水火木金土日月星風雨春夏秋冬東西南北"


@dataclass(frozen=True)
class Words:
    """Stems and ends, the scripts one after another; ends bring the blank that follows."""

    stems: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, chinese: Iterable[bytes]) -> Words:
        """Tables whose Chinese words are made of the characters of some Chinese text."""
        rng = np.random.default_rng(1_949)
        size = 1 << BITS
        characters = [c for c in b"".join(chinese).decode() if "一" <= c <= "鿿"] or list(FALLBACK_CHARACTERS)
        syllables = [onset + vowel for onset, vowel in product(ONSETS, VOWELS)]
        stems = rng.permutation([a + b for a, b in product(syllables, CODAS[:11])])[:size]
        ends = rng.permutation([a + b for a, b in product(syllables, [*CODAS[:5], *ENDINGS])])[:size]
        capitals = [stem.capitalize() if i % 2 else stem for i, stem in enumerate(stems)]
        numbers = [str(int(n)) for n in 10 ** rng.uniform(0, 4, size)]
        fractions = [
            rng.choice(["", ".", ":", ","]) + f"{n:02d}" if n < 100 else "" for n in rng.integers(200, size=size)
        ]
        han = rng.choice(characters, (2, size))
        columns = ([*capitals, *numbers, *han[0]], [*(f"{e} " for e in [*ends, *fractions]), *han[1]])
        return cls(*(np.array([text.encode() for text in column], dtype=object) for column in columns))

    def draw(self, rng: np.random.Generator, script: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Stems and ends of one word for each entry of `script`, an index into SCRIPTS.

        Ranks beyond the core are drawn by inversion of the Pareto law and spread over the tables by an odd factor,
        so that common words of the tail do not share their stems.
        """
        rank = CORE_WORDS * (1 - rng.random(len(script))) ** (-1 / (TAIL_EXPONENT - 1))
        mixed = np.minimum(rank, 2.0**24).astype(np.int64) * SPREAD
        place = mixed & ((1 << 2 * BITS) - 1)
        base = script << BITS
        return self.stems[base + (place >> BITS)], self.ends[base + (place & ((1 << BITS) - 1))]


@dataclass(frozen=True)
class Section:
    """Sentences of one source, escaped for JSON, each cut in two at a word boundary."""

    name: str
    heads: np.ndarray
    tails: np.ndarray
    mean_bytes: float

    @classmethod
    def of(cls, name: str, texts: Iterable[str]) -> Section:
        """Raises ValueError if the texts hold no sentence."""
        spaced = name != "chinese"
        parts = [cut(sentence, spaced) for text in texts for sentence in sentences(text, spaced)]
        if not parts:
            raise ValueError(f"section {name!r} has no sentence; give it text of 2 characters or more")
        heads, tails = (
            np.array([escaped(part) for part in column], dtype=object) for column in zip(*parts, strict=True)
        )
        return cls(name, heads, tails, float(np.mean([len(h) + len(t) + 8 for h, t in zip(heads, tails, strict=True)])))


Material = Mapping[str, Mapping[str, Section]]
"""Sections by kind and name."""


def escaped(text: str) -> bytes:
    return orjson.dumps(text)[1:-1]


def sentences(text: str, spaced: bool) -> Iterator[str]:
    """Sentences or lines; short ones are joined with the next, long ones cut, those with control characters dropped."""
    shortest, longest = SENTENCE_CHARACTERS if spaced else (2, 80)
    held = ""
    for piece in SPACE.split(text):
        held = f"{held} {piece}" if held.strip() and spaced else held + piece
        if len(held.strip()) >= shortest and not CONTROL.search(held):
            yield held.rstrip()[:longest]
            held = ""
        elif CONTROL.search(held):
            held = ""


def cut(sentence: str, spaced: bool) -> tuple[str, str]:
    """The sentence before and after the word boundary nearest to its middle."""
    middle = len(sentence) // 2
    if spaced:
        middle = sentence.rfind(" ", 0, middle) + 1
    return sentence[:middle], sentence[middle:]


@cache
def built_in_material() -> Material:
    """The sections of `tasks/sources/builtin.py`; reading them takes some seconds."""
    from tasks.sources.builtin import MAKERS

    def texts(maker: str) -> Iterator[str]:
        for row in MAKERS[maker]():
            yield row["text"] if "text" in row else "\n".join(turn["content"] for turn in row["conversations"])

    makers = {"conversations": "pretrain-conversations", "english": "chat-english", "chinese": "chat-chinese"}
    makers |= {"other-languages": "chat-other-languages"}
    made = {
        name: Section.of(name, texts(makers.get(name, f"pretrain-{name}")))
        for name in dict.fromkeys(chain.from_iterable(SECTIONS.values()))
    }
    return {kind: {name: made[name] for name in shares} for kind, shares in SECTIONS.items()}
