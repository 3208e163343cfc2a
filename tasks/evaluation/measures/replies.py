"""What a model answers, and what can be counted of it: does a reply end, repeat itself, keep the format?"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
from tokenizers import Tokenizer

from model.tokens.chat import Turn, render_prompt
from model.tokens.tokenizer import END_OF_TEXT, TURN_END, special_id
from tasks.evaluation.measures.lots import first_turns, lot
from tasks.pages.text import plural
from tasks.recipes.stage_configs import EvaluateConfig

if TYPE_CHECKING:
    from model.network.transformer import Transformer

log = logging.getLogger("nightschool")

NGRAM = 4
"""Tokens of the runs that are looked for twice: seq-rep-4 of Welleck et al. 2019 (arXiv 1908.04319)."""
BATCH_ROWS = 32
"""Prompts answered at once."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What is asked."""

    turns: tuple[Turn, ...]
    shown: bool
    """Whether it is one of the recipe's own, for people to read."""
    seed: int
    """Of the sampling."""

    @property
    def text(self) -> str:
        """The last turn, or all of several."""
        if len(self.turns) == 1:
            return self.turns[0][1]
        return "\n".join(f"{role}: {content}" for role, content in self.turns)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer and what was counted of it."""

    prompt: str
    reply: str
    shown: bool
    ended: bool
    """Whether the model ended it, and not the limit of new tokens."""
    valid: bool
    """Whether it is a turn as the template has it, see `well_formed`."""
    ngrams: int
    """Runs of NGRAM tokens in it."""
    repeated_ngrams: int
    """Those that stood in it before."""


def prompts_of(config: EvaluateConfig, conversations: pl.DataFrame, tokenizer: Tokenizer, room: int) -> list[Prompt]:
    """The recipe's own prompts, and beginnings of held-out conversations, drawn by lot of their names.

    conversations: held-out rows, `row_id` and `conversations`.
    room: tokens that a prompt may have; held-out ones that have more are left out, and their number is logged.
    """
    own = [Prompt(turns=(("user", text),), shown=True, seed=number) for number, text in enumerate(config.prompts)]
    drawn = conversations.select("row_id", "conversations").rows()
    drawn.sort(key=lambda row: lot(config.seed, row[0]))
    found: dict[str, Prompt] = {prompt.text: prompt for prompt in own}
    wanted, too_long = len(found) + config.held_out_prompts, 0
    for _, turns in drawn:
        if len(found) >= wanted:
            break
        asked = first_turns(turns)
        if not asked or asked[-1][0] != "user":
            continue
        prompt = Prompt(turns=tuple(asked), shown=False, seed=len(found))
        if len(render_prompt(tokenizer, asked)) > room:
            too_long += 1
        else:
            found.setdefault(prompt.text, prompt)
    if too_long:
        log.info("replies: %s longer than %d tokens left out", plural(too_long, "held-out prompt"), room)
    if len(found) < wanted:
        log.info("replies: %d prompts asked for, %d there", wanted, len(found))
    return list(found.values())


def answer(
    model: Transformer, tokenizer: Tokenizer, prompts: Sequence[Prompt], config: EvaluateConfig
) -> list[Reply]:  # fmt: skip
    """The model's reply to each prompt, in order; the same for the same model, prompts and configuration."""
    from model.config.sampling import Sampling
    from model.generation.generate import generate

    stops = (special_id(tokenizer, TURN_END), special_id(tokenizer, END_OF_TEXT))
    sampling = Sampling(max_new_tokens=config.max_new_tokens, temperature=config.temperature, stop_ids=stops)
    rendered = [render_prompt(tokenizer, list(prompt.turns)) for prompt in prompts]
    by_length = sorted(range(len(prompts)), key=lambda number: (len(rendered[number]), number))
    said: dict[int, list[int]] = {}
    for start in range(0, len(by_length), BATCH_ROWS):
        some = by_length[start : start + BATCH_ROWS]
        ids = generate(model, [rendered[n] for n in some], sampling, [prompts[n].seed for n in some])
        said |= dict(zip(some, ids, strict=True))
    return [counted(tokenizer, prompt, said[number], stops) for number, prompt in enumerate(prompts)]


def counted(tokenizer: Tokenizer, prompt: Prompt, ids: list[int], stops: tuple[int, int]) -> Reply:
    """A reply of these ids, its stop id among them if it has one."""
    ended = bool(ids) and ids[-1] in stops
    spoken = ids[:-1] if ended else ids
    runs = [tuple(spoken[start : start + NGRAM]) for start in range(len(spoken) - NGRAM + 1)]
    return Reply(
        prompt=prompt.text, reply=str(tokenizer.decode(spoken, skip_special_tokens=True)).strip(), shown=prompt.shown,
        ended=ended, valid=well_formed(tokenizer, ids, stops), ngrams=len(runs),
        repeated_ngrams=len(runs) - len(set(runs)),
    )  # fmt: skip


def well_formed(tokenizer: Tokenizer, ids: list[int], stops: tuple[int, int]) -> bool:
    """Whether ids are an assistant's turn as the template has it.

    It says something, ends with the marker of a turn if it ends, has no other special token and spells none, and its
    bytes are text: the last character alone may be cut, where the limit cut the reply.
    """
    ended = bool(ids) and ids[-1] in stops
    if ended and ids[-1] != stops[0]:
        return False
    spoken = ids[:-1] if ended else ids
    special = {index: token.content for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    text = str(tokenizer.decode(spoken, skip_special_tokens=False))
    whole = text if ended else text.rstrip(UNFINISHED)
    return bool(whole.strip()) and UNFINISHED not in whole and not any(marker in text for marker in special.values())


UNFINISHED = "\ufffd"
"""What decoding makes of bytes that are no character."""


def as_content(replies: Sequence[Reply]) -> list[dict[str, Any]]:
    """Replies as JSON keeps them."""
    return [asdict(reply) for reply in replies]
