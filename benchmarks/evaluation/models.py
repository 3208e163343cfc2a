"""Scores of several models that differ by their seed alone, document by document, for `benchmarks.gate`.

The data stages of a recipe run as a night runs them; each model is the recipe `demo`'s, trained on text and then on
conversations for a share of the tokens that `demo` spends. A model is scored once: the folder keeps what is done.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import torch

from benchmarks.data.ours import data_stages
from data.rows.parts import KINDS
from data.tokens.overlap import contamination
from data.tokens.shards import open_shards
from model.tokens.tokenizer import load_tokenizer
from model.training.state import TrainState
from model.training.trainer import train
from tasks.evaluation.measures.documents import score_rows
from tasks.home.contents.sides import read_rows
from tasks.home.records import StageRecord
from tasks.recipes.deployments import load_recipe
from tasks.recipes.recipe import Recipe

SHAPE = "demo"
"""The recipe whose model and training are taken."""


def scored_models(recipe: Recipe, seeds: Sequence[int], share: float, folder: Path) -> Iterator[pl.DataFrame]:
    """Scores of a model of each seed, with the columns that the evaluate stage writes.

    recipe: whose text is trained on and whose validation documents are scored.
    seeds: of weights and of the order of the rows.
    share: of the tokens of the recipe `demo`, text and conversations each.
    folder: holds the prepared text and the scores; made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder / f"{recipe.name}-{recipe.split.val_share:g}"
    rows: StageRecord | None = None
    for seed in seeds:
        path = wanted / f"seed-{seed}-share-{share:g}.parquet"
        if not path.exists():
            if rows is None:
                *_, rows, packed = data_stages(recipe, wanted / "home")
            print(f"{recipe.name}: training the model of seed {seed}", file=sys.stderr, flush=True)
            documents = scored_model(recipe, rows, packed, seed, share)
            documents.write_parquet(path.with_suffix(".partial"))
            path.with_suffix(".partial").rename(path)
        yield pl.read_parquet(path)


def scored_model(recipe: Recipe, rows: StageRecord, packed: StageRecord, seed: int, share: float) -> pl.DataFrame:
    """Train a model of one seed and score it."""
    shape = load_recipe(SHAPE)
    state: TrainState | None = None
    for kind, phase in (("pretrain", shape.pretrain), ("chat", shape.sft)):
        tokens = open_shards(packed.path, kind, "train", "gate")
        length = tokens.sequence_length_tokens
        config = replace(phase, seed=seed, num_tokens=max(1, round(phase.num_tokens * share)))
        after = TrainState.create(shape.model, config, tokens_per_step=config.batch_rows * length)
        if state is not None:
            after.model.load_state_dict(state.model.state_dict())
        state = after
        for _ in train(state, tokens, config):
            pass
    assert state is not None
    tokenizer = load_tokenizer(packed.path)
    with torch.no_grad():
        documents = pl.concat(
            score_rows(
                state.model.eval(), tokenizer, read_rows(rows.path, kind, "val"), recipe.data.sequence_length_tokens,
                shape.pretrain.precision,
            ).documents.with_columns(kind=pl.lit(kind))
            for kind in KINDS
        )  # fmt: skip
    shares = contamination(rows.path, packed.path).rename({"share": "contaminated_share"})
    return documents.join(shares, on=["row_id", "kind"], how="left", maintain_order="left")
