"""How text is sampled from a model, as a frozen dataclass; its defaults go into exported folders too."""

from __future__ import annotations

from dataclasses import dataclass

from model.config.checks import require


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen, and when a row ends."""

    max_new_tokens: int = 48
    temperature: float = 0.6
    """0 is greedy: always the best token."""
    top_p: float = 0.9
    """Draw from the smallest set of tokens that holds this probability (nucleus sampling, arXiv 1904.09751)."""
    repetition_penalty: float = 1.0
    """Divides the scores above 0 of ids that the row holds, prompt included, and multiplies those below: CTRL, arXiv
    1909.05858, as transformers does it. 1 changes nothing."""
    stop_ids: tuple[int, ...] = ()
    """A row ends with the first of these."""
    seed: int = 0

    def __post_init__(self) -> None:
        problems = []
        if self.max_new_tokens < 1:
            problems.append(f"max_new_tokens ({self.max_new_tokens}) must be at least 1")
        if not 0 <= self.temperature < float("inf"):
            problems.append(f"temperature ({self.temperature}) must be finite and not negative")
        if not 0 < self.top_p <= 1:
            problems.append(f"top_p ({self.top_p}) must lie above 0 and not above 1")
        if not 0 < self.repetition_penalty < float("inf"):
            problems.append(f"repetition_penalty ({self.repetition_penalty}) must be finite and above 0")
        require(problems, "Sampling")
