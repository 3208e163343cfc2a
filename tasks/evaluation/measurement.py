"""Everything that is measured of one model, as figures and as the files that say more than they."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from tokenizers import Tokenizer

from data.rows.parts import KINDS
from model.config.network import ModelConfig
from tasks.evaluation.audit import apart, audit_figures
from tasks.evaluation.measures.calibration import reliability
from tasks.evaluation.measures.choices import ask, drawn, questions_of
from tasks.evaluation.measures.documents import ScoredRows, score_rows
from tasks.evaluation.measures.experts import load_by_layer
from tasks.evaluation.measures.metrics import combined_metrics
from tasks.evaluation.measures.replies import answer, as_content, prompts_of
from tasks.evaluation.scores import bpb_intervals, headline_scores, share_interval
from tasks.home.contents.scores import (
    AUDITED,
    CALIBRATION,
    CHOICES,
    DOCUMENTS,
    EXPERTS,
    INTERVALS,
    ROUTES,
    SAMPLES,
    SCORES,
    SPEED,
)
from tasks.home.records import LOGS
from tasks.recipes.recipe import Recipe

if TYPE_CHECKING:
    from model.network.transformer import Transformer

SHOWN = (SAMPLES, SCORES, INTERVALS, CALIBRATION, EXPERTS)
"""Files that people read: they go to the tracking store, too."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured of a model."""

    documents: pl.DataFrame
    """Those that decide."""
    audited: pl.DataFrame
    """Those of the audit slice: scored, and in no other figure."""
    scores: Mapping[str, float]
    """Figures that are the same whenever the model is measured."""
    tables: Mapping[str, list[dict[str, Any]]]
    """Lines by file."""
    choices: pl.DataFrame
    routes: pl.DataFrame | None
    """None of a dense model."""
    tokens_per_s: float
    """Validation tokens read a second, what is measured on the way included."""

    @property
    def figures(self) -> dict[str, float]:
        return {**self.scores, "eval/tokens_per_s": self.tokens_per_s}

    def write(self, folder: Path) -> None:
        """Write all of it to a stage's folder; what was timed goes to its logs, which count for no digest."""
        self.documents.write_parquet(folder / DOCUMENTS)
        self.audited.write_parquet(folder / AUDITED)
        self.choices.write_parquet(folder / CHOICES)
        if self.routes is not None:
            self.routes.write_parquet(folder / ROUTES)
        for name, content in {**self.tables, SCORES: self.scores}.items():
            (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
        (folder / LOGS).mkdir(exist_ok=True)
        (folder / LOGS / SPEED).write_text(json.dumps({"eval/tokens_per_s": self.tokens_per_s}), encoding="utf-8")


def measure_model(
    model: Transformer, tokenizer: Tokenizer, recipe: Recipe, rows: Mapping[str, pl.DataFrame], known: pl.DataFrame
) -> Measurement:  # fmt: skip
    """Score a model on all validation rows and ask it all that the recipe asks.

    rows: of each kind, as `read_val` gives them.
    known: `row_id`, `kind`, `domain` and what else the documents table shall say of each validation document.
    """
    max_tokens, precision = recipe.data.sequence_length_tokens, recipe.pretrain.precision
    deciding, never_asked = (rows_of(names, rows) for names in apart(known, recipe.evaluate.audit_share))

    def score(some: Mapping[str, pl.DataFrame]) -> list[tuple[str, ScoredRows]]:
        scored = ((kind, its) for kind, its in some.items() if len(its))
        return [(kind, score_rows(model, tokenizer, its, max_tokens, precision)) for kind, its in scored]

    scored = score(deciding)
    documents = documents_of(scored, known)
    apart_scored = score(never_asked)
    audited = documents_of(apart_scored, known) if apart_scored else documents.clear()
    bins = reliability(
        np.concatenate([its.confidence for _, its in scored]), np.concatenate([its.correct for _, its in scored])
    )
    layers = load_by_layer(np.sum([its.counts_LE for _, its in scored], axis=0))
    prompts = prompts_of(recipe.evaluate, deciding["chat"], tokenizer, prompt_room(model.config, recipe))
    replies = as_content(answer(model, tokenizer, prompts, recipe.evaluate))
    seed, number = recipe.evaluate.seed, recipe.evaluate.choices
    questions = drawn([q for kind in KINDS for q in questions_of(deciding[kind], kind, seed)], number, seed)
    choices = ask(model, tokenizer, questions, max_tokens, precision)
    columns = {
        **{f"bin_{name}": bins[name].to_list() for name in bins.columns},
        **{f"layer_{name}": layers[name].to_list() for name in ("dead", "entropy")},
        **{name: [reply[name] for reply in replies] for name in ("ended", "valid", "ngrams", "repeated_ngrams")},
        "option_nats": choices["nats"].to_list(),
        "option_nats_alone": choices["nats_alone"].to_list(),
    }
    found = {f"eval/{name}": value for name, value in combined_metrics(columns).items()}
    trials = {"self_ending_share": len(replies), "format_valid_share": len(replies), "choice_accuracy": len(choices)}
    shares = [share_interval(f"eval/{name}", found[f"eval/{name}"], n) for name, n in trials.items() if n]
    routes = [its.routes.with_columns(kind=pl.lit(kind)) for kind, its in scored if its.routes is not None]
    return Measurement(
        documents=documents,
        audited=audited,
        scores={
            **headline_scores(documents), **found, **audit_figures(audited),
            "eval/parameters_m": model.config.total_parameters / 1e6,
        },
        tables={
            INTERVALS: bpb_intervals(documents) + shares, CALIBRATION: bins.to_dicts(), EXPERTS: layers.to_dicts(),
            SAMPLES: replies,
        },
        choices=choices,
        routes=pl.concat(routes) if routes else None,
        tokens_per_s=sum(its.read_tokens for _, its in scored) / max(sum(its.seconds for _, its in scored), 1e-9),
    )  # fmt: skip


def rows_of(names: pl.DataFrame, rows: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """The rows of each kind that are among the documents of a table."""
    return {kind: its.join(names.filter(kind=kind), on="row_id", how="semi", maintain_order="left")
            for kind, its in rows.items()}  # fmt: skip


def documents_of(scored: Sequence[tuple[str, ScoredRows]], known: pl.DataFrame) -> pl.DataFrame:
    """The documents of all kinds, with what is known of each."""
    documents = pl.concat(its.documents.with_columns(kind=pl.lit(kind)) for kind, its in scored)
    return documents.join(known, on=["row_id", "kind"], how="left", maintain_order="left")


def prompt_room(config: ModelConfig, recipe: Recipe) -> int:
    """Tokens of a held-out prompt at the most: a packed row's, and none that would be cut off."""
    return min(recipe.data.sequence_length_tokens, config.max_position_embeddings - recipe.evaluate.max_new_tokens)
