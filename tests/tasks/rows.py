"""Tables of rows, records and documents as the stages hand them on, small enough for tests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tokenizers import Tokenizer

from data.files import arrow_writer, to_arrow
from data.rows.parts import KINDS
from data.sides.read import ORDER, VAL, train_path, val_path
from model.tokens.tokenizer import train_tokenizer
from schemas.domain import DOMAINS
from schemas.rows import TURNS
from tasks.home.contents.sides import SIDES
from tasks.home.digests import digest_of
from tasks.home.records import StageRecord

Exchange = tuple[str, str]
"""(question, answer)"""


def text_rows(texts: Sequence[str], prefix: str = "text") -> pl.DataFrame:
    """Rows of two sources in turn."""
    return pl.DataFrame(
        {
            "row_id": [f"{prefix}-{number}" for number in range(len(texts))],
            "source": [f"source-{number % 2}" for number in range(len(texts))],
            "domain": ["en"] * len(texts),
            "text": list(texts),
        },
        schema={"row_id": pl.String, "source": pl.String, "domain": pl.String, "text": pl.String},
    )


def turns_of(exchanges: Sequence[Exchange]) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[i], "content": exchange[i]} for exchange in exchanges for i in (0, 1)]


def chat_rows(conversations: Sequence[Sequence[Exchange]], prefix: str = "chat") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "row_id": [f"{prefix}-{number}" for number in range(len(conversations))],
            "source": ["talk"] * len(conversations),
            "domain": ["en"] * len(conversations),
            "conversations": [turns_of(exchanges) for exchanges in conversations],
        },
        schema={"row_id": pl.String, "source": pl.String, "domain": pl.String, "conversations": TURNS},
    )


def split_folder(folder: Path, generation: int = 0, **tables: pl.DataFrame) -> StageRecord:
    """The split stage's output, of tables named `pretrain_train`, `chat_val` and so on; what is not given is empty.

    A generation adds one bucket a kind to what the folder holds. Train rows come in the order of the table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first_row = generation * 10_000
    for kind in KINDS:
        for side in SIDES:
            if (table := tables.get(f"{kind}_{side}")) is None:
                continue
            write_side(folder, kind, side, generation, table, first_row)
            first_row += len(table)
    return stage_record(folder, digest=f"split-{generation}", inputs={"rows": "d0", "base": ""})


def write_side(folder: Path, kind: str, side: str, generation: int, table: pl.DataFrame, first_row: int) -> None:
    """One kind and side of one generation as `data.sides` lays it out; rows are numbered from `first_row`."""
    domains = table["domain"].to_list()
    content = table.columns[-1]
    shared = {"row_id": table["row_id"], "row": range(first_row, first_row + len(table)), "source": table["source"]}
    if side == "val":
        slices = [f"{kind}/{domain}" for domain in domains]
        rows = pl.DataFrame(shared | {"domain": domains, "slice": slices, "cluster": table["row_id"]}, schema=VAL)
        path = val_path(folder, kind, generation)
    else:
        shared = {"order": range(len(table)), "row": shared["row"], "source": table["source"]}
        rows = pl.DataFrame(shared | {"domain": [DOMAINS.index(d) for d in domains]}, schema=ORDER)
        path = train_path(folder, kind, (generation, 0), dealer=0)
    arrow = to_arrow(rows.with_columns(table[content]))
    with arrow_writer(path, arrow.schema) as writer:
        writer.write_table(arrow)


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
            "domain": "en",
            "cluster": [digest_of(f"{kind} {prefix}{number}")[:32] for number in range(len(nats))],
            "contaminated_share": 0.0,
            "nats": nats,
            "tokens": np.ones(len(nats), dtype=np.int64),
            "num_bytes": num_bytes.astype(np.int64),
        }
    )


def write_files(folder: Path, files: dict[str, str]) -> Path:
    """Files by their path in the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder
