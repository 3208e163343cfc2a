"""How text is sampled from a model, as a frozen dataclass; its defaults go into exported folders too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from model.config.checks import Range, Seed, field_problems, require


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen, and when a row ends."""

    max_new_tokens: Annotated[int, Range(1, 10**6)] = 48
    temperature: Annotated[float, Range(0, 1_000)] = 0.6
    """0 is greedy: always the best token."""
    top_p: Annotated[float, Range(0, 1, above=True)] = 0.9
    """Draw from the smallest set of tokens that holds this probability (nucleus sampling, arXiv 1904.09751)."""
    repetition_penalty: Annotated[float, Range(0, 1_000, above=True)] = 1.0
    """Divides the scores above 0 of ids that the row holds, prompt included, and multiplies those below: CTRL, arXiv
    1909.05858, as transformers does it. 1 changes nothing."""
    stop_ids: tuple[int, ...] = ()
    """A row ends with the first of these."""
    seed: Seed = 0

    def __post_init__(self) -> None:
        require(field_problems(self), "Sampling")
