"""Multiple choice made of held-out text: does a model tell how a text goes on from how others do?

After HellaSwag (arXiv 1905.07830), without its adversarial wrong answers: those here are true continuations of other
texts of the same kind and domain, and of about the same length. The option counts whose likelihood the beginning raises
most, the mutual information of Holtzman et al. 2021 (arXiv 2104.08315; `acc_mutual_info` of lm-evaluation-harness):
by likelihood alone, per byte too, a small model takes the most common words, whatever stands before them. The questions
are text, so models with any vocabulary are asked the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from tokenizers import Tokenizer

from model.config.training import Precision
from model.tokens.chat import Turn, render_prompt
from model.tokens.packing import IGNORED, PackedTokens, Segments, pack
from model.tokens.tokenizer import END_OF_TEXT, special_id
from tasks.evaluation.measures.lots import first_turns, lot
from tasks.pages.text import plural

if TYPE_CHECKING:
    from model.network.transformer import Transformer

log = logging.getLogger("nightschool")

OPTIONS = 4
"""The true one and three from elsewhere; chance finds one in four."""
CONTEXT_CHARACTERS, OPTION_CHARACTERS, LEAST_CHARACTERS = 200, 64, 16
SEARCHED_CHARACTERS = 24
"""So far behind its middle a text is cut at white space; one without is cut there."""
NEAREST = 16
"""Wrong continuations are drawn from so many of the nearest length."""


@dataclass(frozen=True)
class Beginning:
    """A held-out row cut in two."""

    row_id: str
    context: str | tuple[Turn, ...]
    """Text, or turns that wait for the assistant."""
    continuation: str


@dataclass(frozen=True)
class Question:
    """A beginning and four ways to go on, the true one first."""

    kind: str
    domain: str
    row_id: str
    context: str | tuple[Turn, ...]
    options: tuple[str, ...]


def cut_text(row_id: str, text: str) -> Beginning | None:
    """A text cut at white space behind its middle; None if it is too short."""
    middle = len(text) // 2
    blanks = (place for place in range(middle, min(middle + SEARCHED_CHARACTERS, len(text))) if text[place].isspace())
    cut = next(blanks, middle)
    context, continuation = text[max(0, cut - CONTEXT_CHARACTERS) : cut], text[cut : cut + OPTION_CHARACTERS]
    if min(len(context.strip()), len(continuation.strip())) < LEAST_CHARACTERS:
        return None
    return Beginning(row_id, context, continuation)


def cut_conversation(row_id: str, turns: list[dict[str, object]]) -> Beginning | None:
    """A conversation cut before its first answer; None if that is too short, or answers nothing."""
    asked = first_turns(turns)
    said = str(turns[len(asked)]["content"])[:OPTION_CHARACTERS] if len(asked) < len(turns) else ""
    if not asked or asked[-1][0] != "user" or len(said.strip()) < LEAST_CHARACTERS:
        return None
    return Beginning(row_id, tuple(asked), said)


def questions_of(rows: pl.DataFrame, kind: str, seed: int) -> list[Question]:
    """A question of each held-out row of a kind that is long enough, in the order of the rows.

    rows: `row_id`, `domain` and `text` or `conversations`; a domain with fewer than four different continuations gives
    none, which is logged.
    """
    column = "text" if "text" in rows.columns else "conversations"
    cut = cut_text if column == "text" else cut_conversation
    questions = []
    for (domain,), part in rows.group_by("domain", maintain_order=True):
        parts = [cut(row_id, content) for row_id, content in part.select("row_id", column).iter_rows()]
        beginnings = [beginning for beginning in parts if beginning]
        others = sorted({beginning.continuation for beginning in beginnings}, key=lambda text: (len(text), text))
        if beginnings and len(others) < OPTIONS:
            log.info(
                "choices: %s of %s and %s, where a question needs %d",
                plural(len(others), "continuation"), kind, domain, OPTIONS,
            )  # fmt: skip
            continue
        found = [(beginning, options_of(beginning, others, seed)) for beginning in beginnings]
        questions += [Question(kind, str(domain), b.row_id, b.context, options) for b, options in found if options]
        if alike := sum(not options for _, options in found):
            log.info("choices: %s of %s and %s go on as others do", plural(alike, "row"), kind, domain)
    return questions


def options_of(beginning: Beginning, others: Sequence[str], seed: int) -> tuple[str, ...]:
    """The true continuation and three others, equally long and all different; empty if there are not as many.

    Others are drawn by lot from those of the nearest length; `others` are sorted by length.
    """
    there = np.searchsorted([len(text) for text in others], len(beginning.continuation))
    first = int(np.clip(there - NEAREST // 2, 0, max(0, len(others) - NEAREST)))
    near = others[first : first + NEAREST]
    options: tuple[str, ...] = (beginning.continuation,)
    for text in sorted(near, key=lambda text: lot(seed, beginning.row_id, text)):
        length = min(len(text), len(options[0]))
        more = tuple(option[:length] for option in (*options, text))
        if len(set(more)) == len(more):
            options = more
        if len(options) == OPTIONS:
            return options
    return ()


def drawn(questions: Sequence[Question], number: int, seed: int) -> list[Question]:
    """So many questions, drawn by lot of their rows' names, or all if there are fewer, which is logged."""
    if len(questions) < number:
        log.info("choices: %d questions asked for, held-out text makes %d", number, len(questions))
    return sorted(questions, key=lambda question: lot(seed, question.kind, question.row_id))[:number]


def ask(
    model: Transformer, tokenizer: Tokenizer, questions: Sequence[Question], max_tokens: int, precision: Precision
) -> pl.DataFrame:
    """Nats of each option after the beginning and alone: (kind, domain, row_id, nats, nats_alone), lists of four, the
    true one first.

    max_tokens: of a packed row; beginnings lose their oldest tokens, and a question with an option that leaves no room
        for a token before it is left out, which is logged.
    """
    from model.training.scoring import score  # torch takes seconds to import; a reused stage must not pay

    encoded = [list(ids_of(tokenizer, question, max_tokens)) for question in questions]
    fitting = [number for number, options in enumerate(encoded) if len(options) == OPTIONS]
    if len(fitting) < len(questions):
        log.info("choices: %s too long for %d tokens", plural(len(questions) - len(fitting), "question"), max_tokens)
    asked = [questions[number] for number in fitting]
    sums = np.zeros((0, OPTIONS, 2))
    if asked:
        pairs = [(before, ids) for number in fitting for *befores, ids in encoded[number] for before in befores]
        packed, places = packed_options(pairs, max_tokens)
        scored = score(model, packed, precision=precision)
        nats = [float(scored[row, start:end].sum(dtype=np.float64)) for row, start, end in places]
        sums = np.array(nats).reshape(-1, OPTIONS, 2)
    text, numbers = pl.String, pl.List(pl.Float64)
    return pl.DataFrame(
        {
            "kind": [question.kind for question in asked],
            "domain": [question.domain for question in asked],
            "row_id": [question.row_id for question in asked],
            "nats": sums[:, :, 0].tolist(),
            "nats_alone": sums[:, :, 1].tolist(),
        },
        schema={"kind": text, "domain": text, "row_id": text, "nats": numbers, "nats_alone": numbers},
    )


def ids_of(
    tokenizer: Tokenizer, question: Question, max_tokens: int
) -> Iterator[tuple[list[int], list[int], list[int]]]:
    """(ids of the beginning, ids before a text that has none, ids of the option) of each option that has room."""
    if isinstance(question.context, str):
        nothing = [special_id(tokenizer, END_OF_TEXT)]
        before = [*nothing, *tokenizer.encode(question.context, add_special_tokens=False).ids]
    else:
        nothing, before = render_prompt(tokenizer, []), render_prompt(tokenizer, list(question.context))
    for option in question.options:
        ids = list(tokenizer.encode(option, add_special_tokens=False).ids)
        room = max_tokens + 1 - len(ids)  # the last id is not read
        if room >= 1:
            yield before[-room:], nothing[-room:], ids


def packed_options(
    pairs: Sequence[tuple[list[int], list[int]]], max_tokens: int
) -> tuple[PackedTokens, list[tuple[int, int, int]]]:
    """Rows of at most `max_tokens` slots with every pair of ids in one place, and (row, start, end) of each.

    What is to be predicted are the second ids of a pair.
    """
    inputs = [[*before, *option][:-1] for before, option in pairs]
    labels = [[*[IGNORED] * (len(before) - 1), *option] for before, option in pairs]
    lengths = np.array([len(ids) for ids in inputs])
    segments = Segments(
        np.concatenate(inputs).astype(np.uint32), np.concatenate(labels).astype(np.int32), lengths,
        np.arange(len(pairs)),
    )  # fmt: skip
    packing = pack(segments, max_tokens)
    places = zip(packing.rows.tolist(), packing.starts.tolist(), lengths.tolist(), strict=True)
    packed = packing.fill_rows(max_tokens, 0, np.uint32)
    return packed, [(row, start, start + length) for row, start, length in places]
