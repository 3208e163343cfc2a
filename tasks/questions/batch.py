"""The batch of an optimizer step, rebuilt from the packed rows and the order in which a stage reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tokenizers import Tokenizer

from data.lookup.packed_rows import segments_of_rows
from data.lookup.places import Segment
from model.tokens.order import Replay, TextReplay, rows_of_step
from model.tokens.packing import IGNORED, PackedTokens
from model.tokens.tokenizer import END_OF_TEXT, load_tokenizer, special_id
from tasks.errors import NightStopped
from tasks.home.contents.packed import open_packed, train_tokens, with_text
from tasks.pages.nights.batch import LEVELS, BatchRow, Document, Piece
from tasks.pages.text import plural
from tasks.questions.fate_lines import where
from tasks.questions.history import FinishedTraining
from tasks.questions.lineage import MIN_PREFIX, ModelLineage

CHARACTER_TOKENS = 4
"""A character has four bytes at most, and a token one at least."""
CUT = "\ufffd"
"""What a part of a character is decoded to."""
Shares = dict[str, dict[str, float]]


@dataclass(frozen=True)
class StepBatch:
    """What a training stage reads in one optimizer step. Shapes: B = rows of the batch, T = slots of a row."""

    model: ModelLineage
    training: FinishedTraining
    text: FinishedTraining | None
    """The same stage with the text that it reads beside its own rows, if it does."""
    step: int
    """From 1, as curves count."""

    @property
    def own_rows(self) -> int:
        """Packed rows of the stage's own kind; those of text are numbered behind them."""
        return self.training.input.reading.num_rows

    @property
    def text_share(self) -> float:
        """Of the rows that the stage reads."""
        part = self.training.input.reading.part
        return part.share if part and self.text else 0.0

    @property
    def replay(self) -> Replay | None:
        if self.text:
            return TextReplay(self.own_rows, self.text.input.reading.num_rows, self.text_share)
        return self.training.input.reading.replay

    @cached_property
    def numbers(self) -> np.ndarray:
        """Of the rows, in order, (B,) int64."""
        reading = self.training.input.reading
        num_rows = self.own_rows + (self.text.input.reading.num_rows if self.text else 0)
        return rows_of_step(num_rows, reading.batch_rows, reading.seed, self.step - 1, self.replay)

    @cached_property
    def rows(self) -> PackedTokens:
        """The rows themselves, (B, T)."""
        packed = self.model.data.packed
        own = open_packed(packed, self.training.input.kind, "train")
        return (with_text(own, packed) if self.text else own).rows(self.numbers)

    @cached_property
    def segments(self) -> list[list[tuple[Segment, int]]]:
        """Of each row the segments and the numbers of their documents, in order of the slots."""
        of_own = segments_of_rows(self.training.input, self.numbers[self.numbers < self.own_rows])
        behind = self.numbers[self.numbers >= self.own_rows] - self.own_rows
        of_text = segments_of_rows(self.text.input, behind) if self.text else {}
        return [of_own[row] if row < self.own_rows else of_text[row - self.own_rows] for row in self.numbers.tolist()]

    def expected(self) -> Shares:
        """By `source` and `domain`: shares of each name in what the stage reads, of slots that hold a token."""
        found: Shares = {"source": {}, "domain": {}}
        sizes, parts = train_tokens(self.model.data.packed), self.model.data.corpus.ledger.parts
        kinds = [(self.training.input.kind, 1 - self.text_share)]
        if self.text:
            kinds.append((self.text.input.kind, self.text_share))
        for kind, weight in kinds:
            of_kind = {source: sizes.get(source, {}) for source in {part.source for part in parts if part.kind == kind}}
            total = sum(sum(domains.values()) for domains in of_kind.values())
            for source, domains in of_kind.items():
                for domain, count in domains.items():
                    for by, name in (("source", source), ("domain", domain)):
                        found[by][name] = found[by].get(name, 0.0) + weight * count / total
        return found

    def told_rows(self, nats: np.ndarray, top: int | None) -> list[BatchRow]:
        """Every row with its documents; the `top` rows that cost most, or all, with their text.

        nats: of each target, (B, T) float32, 0 where a slot is no target.
        """
        targets = np.maximum(1, (self.rows.labels != IGNORED).sum(axis=1))
        dearest = np.argsort(-nats.sum(axis=1, dtype=np.float64) / targets, kind="stable")
        texts = TokenTexts.of(load_tokenizer(self.model.data.packed.path))
        with_pieces = set(dearest[:top].tolist())
        return [self._row(place, nats, texts if place in with_pieces else None) for place in range(len(self.numbers))]

    def _row(self, place: int, nats: np.ndarray, texts: TokenTexts | None) -> BatchRow:
        number, data = int(self.numbers[place]), self.model.data
        ids, labels = self.rows.input_ids[place], self.rows.labels[place]
        documents = []
        for segment, row in self.segments[place]:
            here, its = slice(segment.start, segment.start + segment.length), data.corpus.place(row)
            documents.append(
                Document(
                    place=where(data, its), name=its.name, source=its.part.source, domain=its.domain,
                    slots=segment.length, targets=int((labels[here] != IGNORED).sum()),
                    nats=float(nats[place, here].sum(dtype=np.float64)),
                    pieces=tuple(texts.pieces(ids[here], labels[here], nats[place, here])) if texts else (),
                )
            )  # fmt: skip
        first, is_text, trunk = self.segments[place][0][0], number >= self.own_rows, self.training.input.reading.replay
        return BatchRow(
            place=place + 1, number=first.packed_row, shard=first.shard, row=first.row, documents=documents,
            is_text=is_text, read_before=int(trunk.before[number]) if trunk and not is_text else 0,
        )  # fmt: skip


@dataclass(frozen=True)
class TokenTexts:
    """Texts of a tokenizer's ids, each decoded once."""

    tokenizer: Tokenizer
    end_of_text: int
    known: dict[int, str]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> TokenTexts:
        return cls(tokenizer, special_id(tokenizer, END_OF_TEXT), {})

    def text(self, ids: list[int]) -> str:
        if len(ids) > 1:
            return str(self.tokenizer.decode(ids, skip_special_tokens=False))
        if ids[0] not in self.known:
            self.known[ids[0]] = str(self.tokenizer.decode(ids, skip_special_tokens=False))
        return self.known[ids[0]]

    def pieces(self, ids: np.ndarray, labels: np.ndarray, nats: np.ndarray) -> Iterator[Piece]:
        """The text of a segment in pieces of one level, by its slots' ids, labels and nats, (L,) each.

        What is read before the first token, end-of-text or the white space before a cut, is left out. Tokens that share
        a character have the level of the one that costs most.
        """
        text, level = "", None
        for ids_of_one, level_of_one in self._characters(self._tokens(ids, labels, nats)):
            if level_of_one != level and text:
                yield Piece(text, level)
                text = ""
            text, level = text + self.text(ids_of_one), level_of_one
        if text:
            yield Piece(text, level)

    def _tokens(self, ids: np.ndarray, labels: np.ndarray, nats: np.ndarray) -> Iterator[tuple[int, int | None]]:
        """Each token once, with its level: the first is read alone, each other one stands where it is to be told."""
        levels = np.minimum(LEVELS - 1, np.floor(nats)).astype(np.int64)
        first = int(ids[0])
        if first != self.end_of_text and self.text([first]).strip():
            yield first, None
        after = [*ids[1:].tolist(), None]
        for label, following, level in zip(labels.tolist(), after, levels.tolist(), strict=True):
            if label != IGNORED:
                yield label, level
            elif following is not None:
                yield following, None

    def _characters(self, tokens: Iterator[tuple[int, int | None]]) -> Iterator[tuple[list[int], int | None]]:
        """The tokens in groups that end where a character does."""
        group: list[int] = []
        level: int | None = None
        for token, its in tokens:
            group.append(token)
            level = its if level is None else level if its is None else max(level, its)
            if len(group) == CHARACTER_TOKENS or not self.text(group).endswith(CUT):
                yield group, level
                group, level = [], None
        if group:
            yield group, level


def batch_of(model: ModelLineage, run: str, stage: str | None, step: int) -> StepBatch:
    """The batch of a step of one of a model's training stages.

    run: as it was asked for; the stage whose run it is, else the first, if `stage` is None. step: from 1. Raises
    NightStopped if there is no such stage, or no such step in it.
    """
    names = [training.record.stage for training in model.trainings]
    if stage not in (None, *names):
        raise NightStopped(
            f"{model.name} has no training stage {stage!r:.40}, or has not begun it; ask for one of {', '.join(names)}"
        )
    is_run = len(run) >= MIN_PREFIX
    of_run = next((t for t in model.trainings if is_run and t.record.run_id.startswith(run)), model.trainings[0])
    training = next((t for t in model.trainings if t.record.stage == stage), of_run)
    steps = training.input.reading.num_steps
    if not 1 <= step <= steps:
        raise NightStopped(
            f"{training.record.name} of {model.name} has {plural(steps, 'step')}, step {step:,} asked; ask for one "
            f"from 1 to {steps:,}"
        )
    text = next((t for t in model.replayed if t.record.path == training.record.path), None)
    return StepBatch(model, training, text, step)
