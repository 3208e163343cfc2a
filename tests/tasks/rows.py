"""Tables of rows, records and documents as the stages hand them on, small enough for tests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tokenizers import Tokenizer

from model.tokenizer import train_tokenizer
from schemas.chat import TURNS
from tasks.artifacts import DatasetRef, StageRecord
from tasks.split import KINDS, SIDES, table_path

Exchange = tuple[str, str]
"""(question, answer)"""


def text_rows(texts: Sequence[str], prefix: str = "text") -> pl.DataFrame:
    """Rows of two sources in turn."""
    return pl.DataFrame(
        {
            "row_id": [f"{prefix}-{number}" for number in range(len(texts))],
            "source": [f"source-{number % 2}" for number in range(len(texts))],
            "text": list(texts),
        },
        schema={"row_id": pl.String, "source": pl.String, "text": pl.String},
    )


def turns_of(exchanges: Sequence[Exchange]) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[i], "content": exchange[i]} for exchange in exchanges for i in (0, 1)]


def chat_rows(conversations: Sequence[Sequence[Exchange]], prefix: str = "chat") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "row_id": [f"{prefix}-{number}" for number in range(len(conversations))],
            "source": ["talk"] * len(conversations),
            "conversations": [turns_of(exchanges) for exchanges in conversations],
        },
        schema={"row_id": pl.String, "source": pl.String, "conversations": TURNS},
    )


def split_folder(folder: Path, **tables: pl.DataFrame) -> DatasetRef:
    """The split stage's output, of tables named `pretrain_train`, `chat_val` and so on; what is not given is empty."""
    folder.mkdir(parents=True, exist_ok=True)
    empty = {"pretrain": text_rows([]), "chat": chat_rows([])}
    for kind in KINDS:
        for side in SIDES:
            tables.get(f"{kind}_{side}", empty[kind]).write_parquet(table_path(folder, kind, side))
    return DatasetRef(folder, "split")


@cache
def small_tokenizer() -> Tokenizer:
    """A few merges, the roles among them; text that spells a special token is plain text, as everywhere."""
    tokenizer = train_tokenizer(["user assistant\nhello world, this is a text"] * 20, 300)
    tokenizer.encode_special_tokens = True
    return tokenizer


def stage_record(path: Path, **changes: Any) -> StageRecord:
    values: dict[str, Any] = {
        "stage": path.name.partition("@")[0],
        "key": "0123456789abcdef",
        "path": path,
        "digest": "d1",
        "config": {"val_share": 0.1, "prompts": ["Hi"]},
        "inputs": {"rows": "d0"},
        "code_version": "c0",
        "counts": {"kept": 3},
        "figures": {"data/bad_share": 0.25},
        "headline": "3 kept – fine",
        "seconds": 1.5,
        "run_id": "r0",
    }
    return StageRecord(**values | changes)


def scored_documents(
    nats: np.ndarray, num_bytes: np.ndarray, prefix: str = "d", kind: str = "pretrain"
) -> pl.DataFrame:
    """What the evaluate stage writes: one line a document."""
    return pl.DataFrame(
        {
            "row_id": [f"{prefix}{number}" for number in range(len(nats))],
            "source": "text",
            "kind": kind,
            "nats": nats,
            "tokens": np.ones(len(nats), dtype=np.int64),
            "num_bytes": num_bytes.astype(np.int64),
        }
    )
