"""A night of seconds on real text: a slice of the built-in corpus and a model of a few thousand weights."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from tasks.recipes.recipe import Recipe, recipe_from
from tasks.sources.builtin import as_chat, chatterbot_conversations

LONG_AGO = 1_700_000_000
"""Seconds since 1970."""


def write_sources(folder: Path, rows: int = 400) -> dict[str, Path]:
    """Real text as a user would bring it: reference topics cut into paragraphs, and short conversations."""
    folder.mkdir(parents=True, exist_ok=True)
    paragraphs = [p.strip() for name in sorted(topics) for p in topics[name].split("\n\n") if len(p.strip()) > 80]
    text = [{"text": paragraph} for paragraph in paragraphs[:rows]]
    chat = list(itertools.islice(as_chat(chatterbot_conversations("english".__eq__)), rows))
    paths = {"text": folder / "text.jsonl", "chat": folder / "chat.jsonl"}
    for name, content in (("text", text), ("chat", chat)):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        paths[name].write_text("".join(lines), encoding="utf-8")
        os.utime(paths[name], (LONG_AGO, LONG_AGO))  # a night waits for files that may still be growing
    return paths


def tiny_content(paths: dict[str, Path]) -> dict[str, Any]:
    """The recipe as plain values."""
    train = {"batch_rows": 4, "micro_batch_rows": 2, "eval_every_steps": 4, "checkpoint_every_steps": 3, "eval_rows": 4}
    return {
        "name": "tiny",
        "sources": [
            {"name": "text", "kind": "pretrain", "location": str(paths["text"])},
            {"name": "talk", "kind": "chat", "location": str(paths["chat"])},
        ],
        "split": {"val_share": 0.1},
        "data": {"sequence_length_tokens": 64},
        "model": {
            "vocab_size": 500, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 16, "num_experts": 4, "moe_intermediate_size": 32,
        },
        "pretrain": train | {"num_tokens": 64 * 4 * 12, "optim": {"peak_lr": 0.01, "stable_share": 0.5}},
        "sft": train | {"num_tokens": 64 * 4 * 8, "optim": {"peak_lr": 0.005}},
        "evaluate": {"max_new_tokens": 8},
        "promote": {"resamples": 200, "min_documents": 10, "min_bytes": 500},
    }  # fmt: skip


def tiny_recipe(folder: Path, **changes: Any) -> Recipe:
    """The tiny recipe with its sources written to `folder`."""
    return recipe_from(tiny_content(write_sources(folder)) | changes)
