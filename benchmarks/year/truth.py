"""The oracle: what each model is worth on text that no night ever gets, whatever the gate says."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import polars as pl

from benchmarks.year.home import YearHome
from tasks.evaluation.measures.documents import score_rows
from tasks.evaluation.scores import load_model
from tasks.home.contents.scores import read_documents

Worth = dict[str, float]
"""Bits per byte of each kind."""


@dataclass(frozen=True)
class Look:
    """A registered model and the champion before it, by the truth."""

    version: int
    promoted: bool
    bits_per_byte: float
    against: float | None
    """Of the champion that it was compared with; None of a first model."""

    @property
    def wrong(self) -> bool:
        """Whether the model was promoted and is worse."""
        return self.promoted and self.against is not None and self.bits_per_byte > self.against


@dataclass
class Oracle:
    """Scores every model of the registry on the reserved rows, both kinds by their share of the validation text.

    It asks the registry, not the nights: whoever made a model the champion, this process or another, is seen.
    """

    home: YearHome
    known: dict[int, Worth] = field(default_factory=dict)
    """By version."""
    champion: int | None = None
    """At the last look."""
    moves: set[int] = field(default_factory=set)
    """Numbers of the moves of the champion that were looked at."""

    def look(self) -> tuple[Look, ...]:
        """Score what was registered, and judge what became champion, since the last look."""
        registry = self.home.registry
        new = [version for version in sorted(registry.versions()) if version not in self.known]
        self.known |= {version: self.score(version) for version in new}
        done = [a for a in registry.moves.attempts() if a.outcome == "done" and a.number not in self.moves]
        self.moves |= {attempt.number for attempt in done}
        decided = [(attempt.to, attempt.instead_of) for attempt in done if attempt.how == "night"]
        moved = {to for to, _ in decided}
        looks = [self.compared(version, self.champion, False) for version in new if version not in moved]
        looks += [self.compared(to, before, True) for to, before in decided]
        before, self.champion = self.champion, registry.champion_number()
        if self.champion is not None and self.champion not in moved | {before}:
            looks.append(self.compared(self.champion, before, True))
        return tuple(looks)

    def compared(self, version: int, champion: int | None, promoted: bool) -> Look:
        against = None if champion is None else self.worth(champion)
        return Look(version, promoted, self.worth(version), against)

    def champion_worth(self) -> float | None:
        """None while there is no champion."""
        return None if self.champion is None else self.worth(self.champion)

    def score(self, version: int) -> Worth:
        """Of the exported files, which is what a person would use."""
        found = self.home.registry.version_with_files(version)
        if found is None:
            raise RuntimeError(f"version {version} went away before it was looked at")
        model, tokenizer = load_model(found.path, found.path)
        length = self.home.recipe.data.sequence_length_tokens
        return {
            kind: bits_per_byte(score_rows(model.eval(), tokenizer, rows, length, "fp32").documents)
            for kind, rows in self.home.corpus.reserved.items()
        }

    def worth(self, version: int) -> float:
        """Bits per byte of both kinds, by the bytes of each in the newest night's validation text."""
        newest = max(self.home.home.glob("data/evaluate@*/record.json"), key=lambda path: path.stat().st_mtime)
        counted = read_documents(newest.parent).group_by("kind").agg(pl.col("num_bytes").sum())
        shares = {kind: float(num_bytes) for kind, num_bytes in counted.iter_rows()}
        return sum(share * self.known[version][kind] for kind, share in shares.items()) / sum(shares.values())


def bits_per_byte(documents: pl.DataFrame) -> float:
    return float(documents["nats"].sum()) / float(documents["num_bytes"].sum()) / math.log(2)
