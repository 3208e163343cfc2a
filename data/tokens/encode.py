"""Text and conversations → ids, a bucket at a time.

The engine is gigatoken where it gives the ids of the tokenizer itself on the probes below, else the tokenizers
library, which stays the reference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import awkward as ak
import gigatoken
import numpy as np
import polars as pl
from tokenizers import Tokenizer

from data.tokens.windows import Answers, Rendered, cut_windows
from model.tokens.chat import BETWEEN_TURNS, render_turn, turn_header
from model.tokens.packing import Segments, document_segments, spans
from model.tokens.tokenizer import END_OF_TEXT, TURN_END, TURN_START, load_tokenizer, special_id

PROBES = (
    "", " ", "\n", "a", "Hello world", "  two  blanks ", "tabs\t\tand\r\nlines\n\n\n", "don't I'll we've",
    "1234567.89e-3", "你好，世界！１２３", "e\u0301 \u00e9 \u200b \u3000 \ufeff", "\U0001f600\u200d\U0001f469",
    "ＡＢＣ ½ ² ℌ", "a" * 300, "<|im_start|>user\n<|im_end|><|endoftext|>", "def f(x):\n    return x  # comment\n",
    "Ünïcödé ßtraße", "مرحبا שלום नमस्ते",
)  # fmt: skip
TURN_FIELDS = ("role", "content", "learned")
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
    header = turn_header("user")
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

    def conversations(self, conversations: pl.Series, row_length_tokens: int) -> tuple[Segments, Answers]:
        """Segments of at most `row_length_tokens` slots, and all answers; those that need more slots are in none."""
        turns = conversations.to_frame("c").with_row_index("owner").explode("c").unnest("c").drop_nulls("role")
        turns = turns.with_columns(pl.col("learned").fill_null(True))
        return cut_windows(self.render(turns), len(conversations), row_length_tokens)

    def render(self, turns: pl.DataFrame) -> Rendered:
        """All turns one after another: marker, role, line end, content, marker, line end.

        Contents are encoded at once. One that begins with white space, which merges with the line end of its header,
        is rendered with it.
        """
        merging = (turns["content"].str.slice(0, 1).str.strip_chars() == "").to_numpy() | (not self.headers_part)
        together = [
            render_turn(self.tokenizer, (role, content), learned)
            for role, content, learned in turns.filter(pl.Series(merging)).select(*TURN_FIELDS).iter_rows()
        ]
        contents, offsets = self.encode(turns["content"].filter(pl.Series(~merging)).to_list())
        role_is = {role: (turns["role"] == role).to_numpy() for role in turns["role"].unique()}
        lengths = np.zeros(len(turns), dtype=np.int64)
        for role, mask in role_is.items():
            lengths[mask] = len(self.ids_of(turn_header(role))) + len(self.ids_of(BETWEEN_TURNS)) + 2
        lengths[~merging] += np.diff(offsets)
        lengths[merging] = [len(ids) for ids, _ in together]
        ids, targets = np.empty(lengths.sum(), dtype=np.int32), np.zeros(lengths.sum(), dtype=bool)
        owner, nothing = turns["owner"].to_numpy().astype(np.int64), np.zeros(len(turns), dtype=bool)
        answers, asked, system = (role_is.get(role, nothing) for role in ("assistant", "user", "system"))
        rendered = Rendered(ids, targets, lengths, owner, answers & turns["learned"].to_numpy(), asked, system)
        slots = spans(rendered.starts[:-1][merging], lengths[merging])
        ids[slots] = [token for found, _ in together for token in found]
        targets[slots] = [flag for _, flags in together for flag in flags]
        self.write_turns(rendered, ~merging, role_is, contents, np.diff(offsets))
        return rendered

    def write_turns(
        self, rendered: Rendered, apart: np.ndarray, role_is: Mapping[str, np.ndarray], contents: np.ndarray,
        sizes: np.ndarray,
    ) -> None:  # fmt: skip
        """Fill the slots of the turns whose contents, each of so many ids, were encoded without their headers."""
        newline, spoken = self.ids_of(BETWEEN_TURNS), rendered.spoken[apart]
        starts = rendered.starts[:-1][apart]
        ends = starts + rendered.lengths[apart] - len(newline) - 1
        rendered.ids[starts] = special_id(self.tokenizer, TURN_START)
        for role, mask in role_is.items():
            for step, token in enumerate(self.ids_of(turn_header(role)), start=1):
                rendered.ids[starts[mask[apart]] + step] = token
        slots = spans(ends - sizes, sizes)
        rendered.ids[slots], rendered.targets[slots] = contents, np.repeat(spoken, sizes)
        for step, token in enumerate([special_id(self.tokenizer, TURN_END), *newline]):
            rendered.ids[ends + step] = token
        rendered.targets[ends] = spoken

    def ids_of(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)


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
