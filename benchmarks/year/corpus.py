"""What arrives in a year: real text and conversations, in a mixture that drifts, each text once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import polars as pl

from tasks.sources.builtin import as_chat, chatterbot_conversations, code_files, docstrings, human_conversations

Row = dict[str, Any]
CHARACTERS = range(80, 1_500)
"""Of a text that is taken, so that nights are of about one size."""
RESERVED_TEXTS, RESERVED_CHATS = 120, 250
"""Of each domain, and of conversations: no night gets them; they tell the truth about a model."""
CHAT_CHARACTERS = 600


def paragraphs(texts: Iterator[str], between: str = "\n\n") -> list[str]:
    cut = (part.strip() for text in texts for part in text.split(between))
    return list(dict.fromkeys(part for part in cut if len(part) in CHARACTERS))


def short(conversation: Row) -> bool:
    return sum(len(turn["content"]) for turn in conversation["conversations"]) < CHAT_CHARACTERS


@dataclass
class Corpus:
    """The year's text, shuffled by a seed and dealt from the front."""

    seed: int
    texts: dict[str, list[str]] = field(init=False)
    """What is left of each domain."""
    chats: list[Row] = field(init=False)
    reserved: dict[str, pl.DataFrame] = field(init=False)
    """Of each kind, rows that no night gets: `row_id`, `source`, `domain` and `text` or `conversations`."""

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.texts = {
            "reference": paragraphs(topics[name] for name in sorted(topics)),
            "docstrings": paragraphs(docstrings()),
            "code": paragraphs(code_files(), "\n\n\n"),
        }
        talks = itertools.chain(human_conversations(), chatterbot_conversations("english".__eq__))
        self.chats = [row for row in as_chat(talks) if short(row)]
        pools: list[list[Any]] = [*self.texts.values(), self.chats]
        for pool in pools:
            rng.shuffle(pool)
        kept = [text for pool in self.texts.values() for text in cut_off(pool, RESERVED_TEXTS)]
        self.reserved = {
            "pretrain": as_rows("text", kept),
            "chat": as_rows("conversations", [learned_turns(row) for row in cut_off(self.chats, RESERVED_CHATS)]),
        }

    def require(self, texts: int, chats: int) -> None:
        """Raises ValueError if there are not so many."""
        there = sum(map(len, self.texts.values()))
        if there < texts or len(self.chats) < chats:
            raise ValueError(
                f"so many nights take {texts:,} texts and {chats:,} conversations, there are {there:,} and "
                f"{len(self.chats):,}; live fewer"
            )

    def deal(self, season: float, texts: int, chats: int, rng: np.random.Generator) -> tuple[list[Row], list[Row]]:
        """New rows of both kinds. As `season` goes from 0 to 1, reference gives way to docstrings, then to code."""
        weights = {
            "reference": max(0.1, 1 - 2 * season),
            "docstrings": 1 - abs(1 - 2 * season) + 0.1,
            "code": max(0.0, 2 * season - 0.6) + 0.05,
        }
        new = list[Row]()
        for _ in range(texts):
            left = {name: weight for name, weight in weights.items() if self.texts[name]}
            if not left:
                raise ValueError(f"the corpus is used up after {len(new)} of {texts} texts")
            chances = np.array(list(left.values()))
            name = str(rng.choice(list(left), p=chances / chances.sum()))
            new.append({"text": self.texts[name].pop()})
        if len(self.chats) < chats:
            raise ValueError(f"{chats} conversations were asked for, {len(self.chats)} are left")
        talks, self.chats = self.chats[:chats], self.chats[chats:]
        return new, talks


def cut_off(pool: list[Any], number: int) -> list[Any]:
    """The first of a pool, which loses them."""
    kept, pool[:] = pool[:number], pool[number:]
    return kept


def learned_turns(conversation: Row) -> list[Row]:
    """As the split stage writes them: of a conversation as it is read, all answers are learned."""
    return [{**turn, "learned": True} for turn in conversation["conversations"]]


def as_rows(column: str, content: list[Any]) -> pl.DataFrame:
    ids = [f"reserved {number}" for number in range(len(content))]
    same = ["reserved"] * len(content)
    return pl.DataFrame({"row_id": ids, "source": same, "domain": same, column: content})
