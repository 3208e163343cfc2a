"""The text that benchmarks of learning train on: a recipe's pretraining rows, prepared once by the data stages.

A prepared folder holds `tokenizer.json`, the packed train rows as the tokens stage writes them, `train.jsonl` with the
same texts in the same order, `val.npz` with the validation documents in chunks, and `facts.json`, written last.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.ours import data_stages
from benchmarks.learning.scoring import Chunks
from data.sides.read import read_train, read_val
from data.tokens.encode import Encoder
from model.tokens.packing import cut, document_segments
from model.tokens.tokenizer import token_byte_lengths
from tasks.home.digests import digest_of
from tasks.recipes.deployments import load_recipe
from tasks.recipes.recipe import Recipe
from tasks.recipes.stage_configs import SourceConfig

PACKED, FACTS = "packed", "facts.json"
CURVE_TOKENS = 12_000
"""Targets of the documents that the curve is measured on."""


def recipe_of(sources: list[str], tokens_per_row: int) -> Recipe:
    """The demo's, its rows as long as asked for and its pretraining text, if sources are named, from these."""
    recipe = load_recipe("demo")
    given = tuple(SourceConfig(name=name, kind="pretrain", location=f"builtin:{name}") for name in sources)
    if given:
        given += tuple(source for source in recipe.sources if source.kind != "pretrain")
    data = replace(recipe.data, sequence_length_tokens=tokens_per_row)
    return replace(recipe, name="learn", sources=given or recipe.sources, data=data)


def prepare(recipe: Recipe, home: Path) -> Path:
    """The folder of a recipe's text under `home`, made if it is not there."""
    folder = home / digest_of({"sources": recipe.sources, "data": recipe.data, "curve": CURVE_TOKENS})[:12]
    if (folder / FACTS).exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _, _, sides, packed = data_stages(recipe, folder / "work")
    (folder / PACKED).symlink_to(packed.path.relative_to(folder))
    shutil.copy(packed.path / "tokenizer.json", folder)
    texts = read_train(sides.path, "pretrain")["text"]
    with (folder / "train.jsonl").open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    chunks = chunks_of(read_val(sides.path, "pretrain")["text"].to_list(), folder, recipe.data.sequence_length_tokens)
    chunks.save(folder / "val.npz")
    facts: dict[str, Any] = {
        "digest": packed.digest, "train_documents": len(texts), "train_bytes": int(texts.str.len_bytes().sum()),
        "train_tokens": packed.counts["pretrain_train_tokens"], "val_chunks": len(chunks.lengths),
        "val_targets": int(chunks.lengths.sum()), "curve_targets": int(chunks.head(CURVE_TOKENS).lengths.sum()),
        "tokens_per_row": recipe.data.sequence_length_tokens,
    }  # fmt: skip
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
    return folder


def prepare_named(tokens_per_row: str, home: str, *sources: str) -> dict[str, Any]:
    """`prepare` with arguments of a command line; what the folder holds, and where it is."""
    folder = prepare(recipe_of(list(sources), int(tokens_per_row)), Path(home))
    facts: dict[str, Any] = json.loads((folder / FACTS).read_text())
    return facts | {"folder": str(folder), "curve_tokens": CURVE_TOKENS}


def chunks_of(texts: list[str], folder: Path, tokens_per_row: int) -> Chunks:
    """Documents in chunks that leave one slot of a row free, in an order of their own so that any head is a sample."""
    encoder = Encoder.open(folder)
    order = np.random.default_rng(0).permutation(len(texts))
    ids, offsets = encoder.encode([texts[number] for number in order])
    whole = document_segments(ids, offsets, encoder.end_of_text)
    pieces = cut(whole, tokens_per_row - 1, encoder.end_ranks, 0.0)
    starts = np.diff(pieces.owners, prepend=-1) != 0
    num_bytes = token_byte_lengths(encoder.tokenizer)[pieces.labels]
    return Chunks(pieces.inputs.astype(np.int64), pieces.labels.astype(np.int64), num_bytes, pieces.lengths, starts)
