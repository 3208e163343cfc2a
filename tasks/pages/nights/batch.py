"""The batch of one step, read again: what lay in it, and what each row and document of it costs; as a page and as lines
for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Literal

from tasks.pages.nights.numbers import short_number
from tasks.pages.nights.rendering import write_page
from tasks.pages.nights.words import Phrase, phrase
from tasks.pages.tables import Column, Table
from tasks.pages.text import format_share, one_line, plural

LEVELS = 8
"""Shades of a target: one for each nat that it costs, the last one for all above."""
EXCERPT_CHARACTERS, CONTEXT_CHARACTERS = 110, 40
"""Of a document in the terminal, and of the context before its first target therein."""
DOCUMENTS_SHOWN = 4
"""Of a row, in the terminal."""
OPEN, CLOSE = "«", "»"
"""Around targets in the terminal, where a document has others, too."""


@dataclass(frozen=True)
class Piece:
    """Some text of a document, of tokens that cost about the same."""

    text: str
    level: int | None
    """Whole nats of each token, LEVELS - 1 for more; None for context, which is read and is no target."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """A document of a packed row, or the part of it that lies there."""

    place: str
    """File and line."""
    name: str
    """The row of raw data by its name of 32 hexadecimal digits."""
    source: str
    domain: str
    slots: int
    targets: int
    nats: float
    """Of all its targets together."""
    pieces: Sequence[Piece]

    @property
    def loss(self) -> float | None:
        """Nats per target; None where none of its tokens is one."""
        return self.nats / self.targets if self.targets else None

    @property
    def excerpt(self) -> str:
        """One line of its beginning; where it has context the end of that, and then its targets in brackets."""
        if self.targets == self.slots or not self.targets:
            return one_line("".join(piece.text for piece in self.pieces), EXCERPT_CHARACTERS)
        first = next((n for n, piece in enumerate(self.pieces) if piece.level is not None), 0)
        before = " ".join("".join(piece.text for piece in self.pieces[:first]).split())
        text = f"…{before[-CONTEXT_CHARACTERS:]}" if len(before) > CONTEXT_CHARACTERS else before
        for is_target, pieces in groupby(self.pieces[first:], lambda piece: piece.level is not None):
            told = "".join(piece.text for piece in pieces)
            text += f"{OPEN}{told}{CLOSE}" if is_target else told
        return one_line(text, EXCERPT_CHARACTERS)


@dataclass(frozen=True, kw_only=True)
class BatchRow:
    """A packed row of the batch."""

    place: int
    """In the batch, from 1."""
    number: int
    """Counted over all packed rows of its kind, as training and `why-row` count."""
    shard: str
    row: int
    """In the shard."""
    is_text: bool = False
    """Whether it is text of pretraining, read beside conversations."""
    read_before: int = 0
    """How often the stage's trunk had read it on earlier nights."""
    documents: Sequence[Document]
    """In order of their slots."""

    @property
    def targets(self) -> int:
        return sum(document.targets for document in self.documents)

    @property
    def nats(self) -> float:
        return sum(document.nats for document in self.documents)

    @property
    def slots(self) -> int:
        return sum(document.slots for document in self.documents)

    @property
    def loss(self) -> float | None:
        return self.nats / self.targets if self.targets else None

    @property
    def again(self) -> Phrase | None:
        """Why it was read beside the stage's own, or new, rows; None if it is one of these."""
        if self.is_text:
            return phrase("batch.text")
        return phrase("batch.read_before", times=self.read_before) if self.read_before else None

    @property
    def by_loss(self) -> list[Document]:
        """Its documents, the one that costs most per target first."""
        return sorted(self.documents, key=lambda document: -(document.loss or 0.0))


@dataclass(frozen=True, kw_only=True)
class WeightsUsed:
    """Which weights the losses are of."""

    how: Literal["kept", "start", "seed", "after"]
    """A checkpoint from before the step; what the stage began with, on disk or from the seed; or, as none of these is
    there, a checkpoint from after the step."""
    step: int
    """Steps that they had made."""
    began_with: str = ""
    """The folder that the stage's first weights are of."""
    kept: Sequence[int] = ()
    """Steps of all checkpoints of the stage."""
    ended: bool = True
    """Whether the stage has."""
    keep_setting: str = ""
    """Of the recipe: how many are kept while it trains."""
    keep_checkpoints: int = 0
    """Its value."""


@dataclass(frozen=True, kw_only=True)
class BatchFacts:
    """What is known of the batch of a step."""

    model: str
    """As it was asked for."""
    stage: str
    folder: str
    """Of the stage."""
    step: int
    num_steps: int
    rows: Sequence[BatchRow]
    """In the order in which they were read, one at least."""
    expected: Mapping[str, Mapping[str, float]]
    """By `source` and `domain` names and their shares of what the stage reads."""
    weights: WeightsUsed
    recorded: Mapping[str, float] = field(default_factory=dict)
    """The point of the curve at the step; empty if there is none."""
    top: int | None = None
    """Rows that are shown; None for as many as fit."""

    @property
    def targets(self) -> int:
        return sum(row.targets for row in self.rows)

    @property
    def loss(self) -> float:
        """Nats per target of the whole batch."""
        return sum(row.nats for row in self.rows) / max(1, self.targets)

    @property
    def by_loss(self) -> list[BatchRow]:
        """Rows to show, the one that costs most per target first."""
        return sorted(self.rows, key=lambda row: -(row.loss or 0.0))[: self.top]

    @property
    def scored(self) -> Phrase:
        """Which weights the losses are of."""
        values = {"at": f"{self.weights.step:,}", "step": f"{self.step:,}", "stage": self.stage}
        match self.weights.how:
            case "kept":
                return phrase("batch.scored_kept", **values)
            case "start":
                return phrase("batch.scored_start", began_with=self.weights.began_with, **values)
            case "seed":
                return phrase("batch.scored_seed", **values)
        return phrase("batch.scored_after", **values)

    @property
    def cure(self) -> Phrase | None:
        """What to ask for instead, where no checkpoint from before the step is kept and it is not the first."""
        its = self.weights
        if its.how == "kept" or self.right_before:
            return None
        kept = ", ".join(f"{step:,}" for step in its.kept) or "–"
        if not its.ended:
            return phrase("batch.cure_running", kept=kept, setting=its.keep_setting, keep=its.keep_checkpoints)
        if its.kept and (first := min(its.kept)) < self.num_steps:
            return phrase("batch.cure_ended", kept=kept, first=f"{first:,}")
        return phrase("batch.cure_last", kept=kept)

    @property
    def right_before(self) -> bool:
        """Whether the weights are those that the step was made with."""
        return self.weights.how != "after" and self.weights.step == self.step - 1

    @property
    def compared(self) -> Phrase:
        """The loss beside the one that was recorded."""
        recorded = self.recorded.get("train/loss")
        mean = f"{self.loss:.5f}"
        if recorded is None:
            return phrase("batch.not_recorded", mean=mean)
        if not self.right_before:
            return phrase("batch.recorded", mean=mean, recorded=f"{recorded:.5f}")
        difference = short_number(float(f"{abs(self.loss - recorded):.1e}"))
        return phrase("batch.compared", mean=mean, recorded=f"{recorded:.5f}", difference=difference)

    @property
    def measured(self) -> Phrase:
        """Learning rate and gradient norm of the step."""
        if "train/lr" not in self.recorded:
            return phrase("batch.not_made")
        lr, norm = (self.recorded.get(f"train/{name}", float("nan")) for name in ("lr", "grad_norm"))
        return phrase("batch.measured", rate=short_number(lr), norm=short_number(norm))

    def shares(self, by: str) -> list[tuple[str, str, str]]:
        """Name, share of the batch and share of what the stage reads, the largest first; `by` source or domain.

        Shares are of slots that hold a token.
        """
        here: dict[str, float] = {}
        for document in (document for row in self.rows for document in row.documents):
            name = getattr(document, by)
            here[name] = here.get(name, 0.0) + document.slots
        slots, expected = sum(here.values()), self.expected.get(by, {})
        names = sorted({*here, *expected}, key=lambda name: (-expected.get(name, 0.0), name))
        return [(name, format_share(here.get(name, 0.0), slots), share_or_dash(expected.get(name))) for name in names]

    def as_lines(self, rows_shown: int) -> Iterator[str]:
        """For a terminal: the head, the shares, and the rows that cost most: `top` of them, or else `rows_shown`."""
        yield (
            f"{one_line(self.model)}: step {self.step:,} of {self.num_steps:,} of {one_line(self.stage)} "
            f"({one_line(self.folder)}), "
            f"{plural(len(self.rows), 'packed row')}, {plural(self.targets, 'target')}"
        )
        for told in (self.measured, self.scored, self.cure, self.compared):
            if told:
                yield f"  {told.as_plain('en')}"
        for by in ("source", "domain"):
            columns = [Column(by), Column("batch", "number"), Column("all it reads", "number")]
            yield from ("", *(f"  {line}" for line in Table(columns, self.shares(by)).as_text().splitlines()))
        shown = self.by_loss[: self.top or rows_shown]
        for row in shown:
            yield ""
            yield from lines_of(row)
        if len(shown) < len(self.rows):
            more = plural(len(self.rows) - len(shown), "more row")
            yield from ("", f"{more}: --top {len(self.rows)}; with their whole text: --html FILE")


def share_or_dash(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def loss_or_dash(loss: float | None) -> str:
    return "–" if loss is None else f"{loss:.3f}"


def lines_of(row: BatchRow) -> Iterator[str]:
    """A row and its dearest documents, for a terminal."""
    again = f", {row.again.as_plain('en')}" if row.again else ""
    yield (
        f"{loss_or_dash(row.loss)}  packed row {row.number:,} ({row.shard} row {row.row:,}), place {row.place} of the "
        f"batch, {plural(row.targets, 'target')}{again}"
    )
    for document in row.by_loss[:DOCUMENTS_SHOWN]:
        place, name, source = (one_line(told) for told in (document.place, document.name, document.source))
        yield (
            f"    {loss_or_dash(document.loss)}  {place}  name {name}  {source}/{one_line(document.domain)}, "
            f"{plural(document.targets, 'target')}"
        )
        yield f"           {document.excerpt}"
    if len(row.documents) > DOCUMENTS_SHOWN:
        yield f"    and {plural(len(row.documents) - DOCUMENTS_SHOWN, 'more document')}"


def write_batch_page(path: Path, facts: BatchFacts) -> Path:
    """Write the page; returns its path."""
    return write_page(path, "nights/batch.html.j2", batch=facts, levels=range(LEVELS))
