"""Text and conversations → ids, a bucket at a time.

The engine is gigatoken where it gives the ids of the tokenizer itself on the probes below, else the tokenizers
library, which stays the reference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import awkward as ak
import gigatoken
import numpy as np
import polars as pl
from tokenizers import Tokenizer

from model.chat import RenderedTurn, cut_conversation, render_turn
from model.config import IGNORED
from model.packing import Segments, document_segments, join, spans
from model.tokenizer import END_OF_TEXT, TURN_END, TURN_START, load_tokenizer, special_id

PROBES = (
    "", " ", "\n", "a", "Hello world", "  two  blanks ", "tabs\t\tand\r\nlines\n\n\n", "don't I'll we've",
    "1234567.89e-3", "你好，世界！１２３", "e\u0301 \u00e9 \u200b \u3000 \ufeff", "\U0001f600\u200d\U0001f469",
    "ＡＢＣ ½ ² ℌ", "a" * 300, "<|im_start|>user\n<|im_end|><|endoftext|>", "def f(x):\n    return x  # comment\n",
    "Ünïcödé ßtraße", "مرحبا שלום नमस्ते",
)  # fmt: skip
Encode = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]
"""Texts → ids of all of them (uint32) and offsets (N + 1,)."""


def reference_engine(tokenizer: Tokenizer) -> Encode:
    def encode(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        found = [e.ids for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
        flat = [token for ids in found for token in ids]
        return np.array(flat, dtype=np.uint32), np.cumsum([0, *map(len, found)])

    return encode


def fast_engine(tokenizer: Tokenizer) -> Encode:
    """gigatoken on the same vocabulary. Special tokens are left out of it: text that spells one is plain text."""
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [t for t in content["added_tokens"] if not t["special"]]
    engine = gigatoken.Tokenizer.from_json(json.dumps(content))

    def encode(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        if not texts:
            return np.zeros(0, dtype=np.uint32), np.zeros(1, dtype=np.int64)
        found = engine.encode_batch(list(texts), parallel=False)
        return np.asarray(ak.flatten(found)), np.concatenate([[0], np.cumsum(np.asarray(ak.num(found)))])

    return encode


def probes_of(tokenizer: Tokenizer) -> tuple[str, ...]:
    """PROBES, and the words that the tokenizer never takes apart, alone and among others."""
    words = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    return (*PROBES, *(text for w in words for text in (w, f"{w}{w}", f"a{w}b", f"a {w} b", f"\n {w} \n")))


def best_engine(tokenizer: Tokenizer) -> Encode:
    """The fast one if its ids are equal on the probes."""
    reference, probes = reference_engine(tokenizer), probes_of(tokenizer)
    try:
        fast = fast_engine(tokenizer)
        same = all(np.array_equal(a, b) for a, b in zip(fast(probes), reference(probes), strict=True))
    except Exception:  # a tokenizer it cannot load, in whatever way it says so
        return reference
    return fast if same else reference


def headers_part(tokenizer: Tokenizer) -> bool:
    """Whether the header of a turn and a content that begins with no white space may be encoded one by one."""
    header = "user\n"
    contents = [text for text in probes_of(tokenizer) if text.strip() and not text[0].isspace()]
    encode = reference_engine(tokenizer)
    together, apart = encode([header + text for text in contents]), encode([s for t in contents for s in (header, t)])
    return np.array_equal(together[0], apart[0]) and np.array_equal(together[1], apart[1][::2])


@dataclass(frozen=True)
class Encoder:
    """A tokenizer and what packing needs to know of its vocabulary."""

    tokenizer: Tokenizer
    encode: Encode
    end_ranks: np.ndarray
    """By id: 2 ends a line, 1 ends a sentence, 0 neither."""
    headers_part: bool
    """Whether headers and contents of turns may be encoded one by one."""

    @classmethod
    def open(cls, folder: Path) -> Encoder:
        return cls.of(load_tokenizer(folder))

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Encoder:
        return cls(tokenizer, best_engine(tokenizer), end_ranks(tokenizer), headers_part(tokenizer))

    @property
    def end_of_text(self) -> int:
        return special_id(self.tokenizer, END_OF_TEXT)

    @property
    def id_dtype(self) -> type[np.unsignedinteger]:
        return np.uint16 if self.tokenizer.get_vocab_size() <= 1 << 16 else np.uint32

    def documents(self, texts: Sequence[str]) -> Segments:
        """A segment a document, as long as it is."""
        ids, offsets = self.encode(texts)
        return document_segments(ids, offsets, self.end_of_text)

    def conversations(self, conversations: pl.Series, max_tokens: int) -> tuple[Segments, np.ndarray]:
        """Segments of at most `max_tokens` slots, and how many windows of each conversation were given up.

        All turns are encoded at once. A turn whose content begins with white space, which merges with the line end
        of its header, is rendered by itself; conversations that do not fit are cut one by one.
        """
        turns = conversations.to_frame("c").with_row_index("owner").explode("c").unnest("c").drop_nulls("role")
        rendered = self.render(turns)
        sizes = np.bincount(rendered.owner, rendered.lengths, len(conversations)).astype(np.int64)
        alone = np.zeros(len(conversations), dtype=bool)
        merging = (turns["content"].str.slice(0, 1).str.strip_chars() == "").to_numpy() | (not self.headers_part)
        alone[rendered.owner[merging]] = True
        answered = np.bincount(rendered.owner, rendered.spoken, len(conversations)) > 0
        fits = (sizes <= max_tokens + 1) & ~alone & answered
        given_up = np.zeros(len(conversations), dtype=np.int64)
        given_up[~answered] = 1
        one_by_one = []
        roles, contents = turns["role"].to_list(), turns["content"]
        first = np.searchsorted(rendered.owner, np.arange(len(conversations) + 1))
        for owner in np.flatnonzero(~fits & answered).tolist():
            numbers = range(first[owner], first[owner + 1])
            items = [
                render_turn(self.tokenizer, (roles[n], contents[n])) if merging[n] else rendered.turn(n)
                for n in numbers
            ]
            found, given_up[owner] = cut_conversation([roles[n] for n in numbers], items, max_tokens)
            one_by_one += [
                Segments(s.inputs, s.labels.astype(np.int32), np.array([len(s)]), np.array([owner])) for s in found
            ]
        return join([rendered.segments(fits), *one_by_one]), given_up

    def render(self, turns: pl.DataFrame) -> Rendered:
        """All turns one after another: marker, role, line end, content, marker, line end."""
        headers = {role: self.ids_of(f"{role}\n") for role in turns["role"].unique()}
        newline = self.ids_of("\n")
        contents, offsets = self.encode(turns["content"].to_list())
        roles = turns["role"].to_numpy()
        header_sizes = np.zeros(len(turns), dtype=np.int64)
        for role, header in headers.items():
            header_sizes[roles == role] = len(header)
        sizes = np.diff(offsets)
        lengths = 2 + header_sizes + sizes + len(newline)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        ids = np.full(starts[-1], special_id(self.tokenizer, TURN_START), dtype=np.int64)
        spoken = roles == "assistant"
        targets = np.zeros(starts[-1], dtype=bool)
        for role, header in headers.items():
            for step, token in enumerate(header):
                ids[starts[:-1][roles == role] + 1 + step] = token
        body = starts[:-1] + 1 + header_sizes
        slots = spans(body, sizes)
        ids[slots], targets[slots] = contents, np.repeat(spoken, sizes)
        ids[body + sizes], targets[body + sizes] = special_id(self.tokenizer, TURN_END), spoken
        for step, token in enumerate(newline):
            ids[body + sizes + 1 + step] = token
        return Rendered(ids, targets, lengths, turns["owner"].to_numpy().astype(np.int64), spoken)

    def ids_of(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)


@dataclass(frozen=True)
class Rendered:
    """Ids of turns, whole conversations one after another."""

    ids: np.ndarray
    targets: np.ndarray
    """Whether an assistant must produce the id."""
    lengths: np.ndarray
    """(turns,)"""
    owner: np.ndarray
    """(turns,) number of the conversation, ascending."""
    spoken: np.ndarray
    """(turns,) whether the turn is an assistant's."""

    @cached_property
    def starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.lengths)])

    def turn(self, number: int) -> RenderedTurn:
        """Ids and targets of one turn."""
        here = slice(self.starts[number], self.starts[number + 1])
        return self.ids[here].tolist(), self.targets[here].tolist()

    def segments(self, wanted: np.ndarray) -> Segments:
        """The wanted conversations, shifted by one: each slot predicts the next id if that is a target."""
        of_slot = np.repeat(self.owner, self.lengths)
        last = np.append(of_slot[1:] != of_slot[:-1], True) if len(of_slot) else np.zeros(0, dtype=bool)
        keep = wanted[of_slot] & ~last
        following = np.append(self.ids[1:], 0)
        is_target = np.append(self.targets[1:], False)
        labels = np.where(is_target, following, IGNORED).astype(np.int32)
        owners, lengths = np.unique(of_slot[keep], return_counts=True)
        return Segments(self.ids[keep], labels[keep], lengths, owners)


def end_ranks(tokenizer: Tokenizer) -> np.ndarray:
    """By id whether a token ends a line (2) or a sentence (1)."""
    ranks = np.zeros(tokenizer.get_vocab_size(), dtype=np.uint8)
    for index in range(len(ranks)):
        text = tokenizer.decode([index])
        if text.endswith("\n"):
            ranks[index] = 2
        elif text.rstrip("\"')]}»”’ ").endswith((".", "!", "?", "。", "！", "？", "；")):
            ranks[index] = 1
    return ranks
