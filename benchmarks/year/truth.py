"""The oracle: what each model is worth on text that no night ever gets, whatever the gate says."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import polars as pl

from benchmarks.year.home import YearHome
from tasks.evaluation.measures.documents import score_rows
from tasks.evaluation.scores import load_model
from tasks.home.contents.scores import read_documents
from tasks.night.report import NightReport


@dataclass(frozen=True)
class Look:
    """A night's model and the champion before it, by the truth."""

    version: int | None
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
    """Scores models of the home on the reserved rows, both kinds by their share of the validation text."""

    home: YearHome
    known: dict[str, dict[str, float]] = field(default_factory=dict)
    """Bits per byte of each kind, by the digest of the weights."""
    champion: str = ""
    shares: dict[str, float] = field(default_factory=dict)
    """Bytes of the validation text of each kind, in the newest night."""

    def look(self, report: NightReport) -> Look:
        """Score the model of a night that came to its end."""
        records = {record.name: record for record in report.records}
        sft, tokens, scored = (records[name] for name in ("sft", "tokens", "evaluate"))
        if sft.digest not in self.known:
            model, tokenizer = load_model(sft.path, tokens.path)
            recipe = self.home.recipe
            self.known[sft.digest] = {
                kind: bits_per_byte(
                    score_rows(model.eval(), tokenizer, rows, recipe.data.sequence_length_tokens, "fp32").documents
                )
                for kind, rows in self.home.corpus.reserved.items()
            }
        counted = read_documents(scored.path).group_by("kind").agg(pl.col("num_bytes").sum())
        self.shares = shares = {kind: float(num_bytes) for kind, num_bytes in counted.iter_rows()}
        against = self.worth(self.champion, shares) if self.champion else None
        promoted = bool(report.decision["promoted"])
        version = report.decision["version"]
        look = Look(version if isinstance(version, int) else None, promoted, self.worth(sft.digest, shares), against)
        if promoted:
            self.champion = sft.digest
        return look

    def champion_worth(self) -> float | None:
        """By the newest shares of the kinds; None while there is no champion."""
        return self.worth(self.champion, self.shares) if self.champion else None

    def worth(self, digest: str, shares: dict[str, float]) -> float:
        return sum(share * self.known[digest][kind] for kind, share in shares.items()) / sum(shares.values())


def bits_per_byte(documents: pl.DataFrame) -> float:
    return float(documents["nats"].sum()) / float(documents["num_bytes"].sum()) / math.log(2)
