"""Rows → a tokenizer and packed rows of ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE
from tokenizers import Tokenizer

from model.chat import Segment, render_conversation
from model.config import IGNORED
from model.files import sha256_of
from model.packing import PackedTokens, best_fit_decreasing, document_segments, fill_rows
from model.tokenizer import END_OF_TEXT, load_tokenizer, special_id, train_tokenizer
from tasks.artifacts import DatasetRef, Ref, StageRecord
from tasks.errors import NightStopped
from tasks.figures import token_histogram
from tasks.split import KINDS, SIDES, read_rows
from tasks.stage import Night, Outcome, StageRun, run_stage

TOKENIZER_TRAINING_BYTES = 16 << 20
"""Text is plentiful and merges settle early: more than this changes a vocabulary of 6,400 little and costs minutes."""


ENCODED_ROWS = 500


@dataclass(frozen=True)
class Packed:
    """Packed rows of one kind and side, and which document is where."""

    tokens: PackedTokens
    segments: pl.DataFrame
    """row, start, length, row_id, source; one line a segment, in order of row and start."""
    given_up: int
    """Windows of conversations whose answer alone is longer than a row."""

    @property
    def fill(self) -> float:
        """Share of slots that hold a token."""
        return float((self.tokens.segment_ids != 0).mean()) if self.tokens.num_rows else 0.0


def segments_of(rows: pl.DataFrame, tokenizer: Tokenizer, max_tokens: int) -> Iterator[tuple[list[Segment], int]]:
    """Segments of each row, and how many windows of it were given up."""
    if "text" in rows.columns:
        end = special_id(tokenizer, END_OF_TEXT)
        for part in rows.iter_slices(ENCODED_ROWS):  # an encoding holds a hundred bytes a token
            for encoding in tokenizer.encode_batch(part["text"].to_list(), add_special_tokens=False):
                yield document_segments(encoding.ids, end, max_tokens), 0
    else:
        for turns in rows["conversations"].to_list():
            yield render_conversation(tokenizer, [(turn["role"], turn["content"]) for turn in turns], max_tokens)


def pack_rows(rows: pl.DataFrame, tokenizer: Tokenizer, max_tokens: int, fingerprint: str = "") -> Packed:
    """Encode and pack a table of rows; a function of the rows, their order and the tokenizer."""
    segments: list[Segment] = []
    owners: list[int] = []
    given_up = 0
    for owner, (found, lost) in enumerate(segments_of(rows, tokenizer, max_tokens)):
        segments += found
        owners += [owner] * len(found)
        given_up += lost
    placements = best_fit_decreasing([len(segment) for segment in segments], max_tokens)
    arrays = fill_rows(segments, placements, max_tokens, special_id(tokenizer, END_OF_TEXT))
    owner_of = [owners[p.segment] for p in placements]
    where = pl.DataFrame(
        {
            "row": [p.row for p in placements],
            "start": [p.start for p in placements],
            "length": [p.length for p in placements],
        },
        schema={"row": pl.Int64, "start": pl.Int64, "length": pl.Int64},
    ).with_columns(rows["row_id"].gather(owner_of), rows["source"].gather(owner_of))
    return Packed(PackedTokens(*arrays, fingerprint), where.sort("row", "start"), given_up)


def write_packed(packed: Packed, folder: Path, name: str) -> None:
    """`<name>.arrow`, a stream of one record batch of fixed-size lists, and `<name>.segments.parquet`."""
    columns = {
        column: pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), packed.tokens.sequence_length_tokens)
        for column, array in arrays_of(packed.tokens).items()
    }
    table = pa.record_batch(list(columns.values()), names=list(columns))
    with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_batch(table)
    packed.segments.write_parquet(folder / f"{name}.segments.parquet")


def arrays_of(tokens: PackedTokens) -> dict[str, np.ndarray]:
    return {"input_ids": tokens.input_ids, "labels": tokens.labels, "segment_ids": tokens.segment_ids}


def open_packed(ref: Ref, kind: str, side: str) -> PackedTokens:
    """Packed rows, memory-mapped."""
    path = ref.path / f"{kind}.{side}.arrow"
    batch = pa.ipc.open_stream(pa.memory_map(str(path))).read_next_batch()
    input_ids, labels, segment_ids = (
        column.flatten().to_numpy().reshape(batch.num_rows, column.type.list_size) for column in batch.columns
    )
    return PackedTokens(input_ids, labels, segment_ids, fingerprint=f"{ref.digest}/{kind}.{side}")


def open_segments(ref: Ref, kind: str, side: str) -> pl.DataFrame:
    """Which document is where in the packed rows."""
    return pl.read_parquet(ref.path / f"{kind}.{side}.segments.parquet")


def training_texts(rows: DatasetRef) -> Iterator[str]:
    """Text of the train side for the tokenizer: every kind in turn, up to a bound."""
    for kind in KINDS:
        table, used = read_rows(rows, kind, "train"), 0
        for row in table.iter_rows(named=True):
            text = row["text"] if "text" in row else "\n".join(turn["content"] for turn in row["conversations"])
            used += len(text)
            if used > TOKENIZER_TRAINING_BYTES // len(KINDS):
                break
            yield text


def make_tokenizer(rows: DatasetRef, folder: str, vocab_size: int, out: Path) -> Tokenizer:
    """Train a tokenizer on the train side, or copy the given one; either way it lies in `out` afterwards."""
    if folder:
        try:
            tokenizer = load_tokenizer(Path(folder).expanduser().absolute())
        except Exception as error:  # the library raises a bare Exception for a missing or broken file
            raise NightStopped(f"data.tokenizer {folder!r} cannot be loaded: {error}") from error
        if tokenizer.get_vocab_size() > vocab_size:
            raise NightStopped(
                f"data.tokenizer has {tokenizer.get_vocab_size()} entries, model.vocab_size is {vocab_size}; raise it"
            )
    else:
        tokenizer = train_tokenizer(training_texts(rows), vocab_size)
    tokenizer.save(str(out / "tokenizer.json"))
    return load_tokenizer(out)


def tokenizer_digest(folder: str) -> str:
    """Digest of the tokenizer file a recipe names, or nothing."""
    path = Path(folder).expanduser() / "tokenizer.json"
    return sha256_of(path) if folder and path.exists() else ""


@task(name="tokens", cache_policy=NO_CACHE, persist_result=False)
def tokens(night: Night, rows: DatasetRef) -> StageRecord:
    """Train or load the tokenizer, encode both sides, pack them."""
    data, vocab_size = night.recipe.data, night.recipe.model.vocab_size

    def work(run: StageRun) -> Outcome:
        tokenizer = make_tokenizer(rows, data.tokenizer, vocab_size, run.folder)
        counts: dict[str, int] = {"vocabulary": tokenizer.get_vocab_size()}
        fills: dict[str, float] = {}
        lengths: dict[str, Sequence[int]] = {}
        for kind in KINDS:
            for side in SIDES:
                packed = pack_rows(read_rows(rows, kind, side), tokenizer, data.sequence_length_tokens)
                write_packed(packed, run.folder, f"{kind}.{side}")
                real = int((packed.tokens.segment_ids != 0).sum())
                counts |= {
                    f"{kind}_{side}_tokens": real,
                    f"{kind}_{side}_targets": int((packed.tokens.labels != IGNORED).sum()),
                    f"{kind}_{side}_rows": packed.tokens.num_rows,
                    f"{kind}_{side}_given_up": packed.given_up,
                }
                fills[f"data/fill.{kind}_{side}"] = packed.fill
                lengths[f"{kind} {side}"] = packed.segments["length"].to_list()
        run.tracker.artifact(token_histogram(lengths, run.logs / "segment-tokens.png"), "figures")
        run.tracker.artifact(run.folder / "tokenizer.json", "tokenizer")
        text, chat = counts["pretrain_train_tokens"], counts["chat_train_tokens"]
        return Outcome(
            counts=counts,
            headline=f"{text:,} + {chat:,} tokens, slots {fills['data/fill.pretrain_train']:.1%} full",
            figures=fills,
        )

    return run_stage(
        night,
        "tokens",
        inputs={"rows": rows, "tokenizer": tokenizer_digest(data.tokenizer)},
        config={"data": data, "vocab_size": vocab_size},
        code=("tasks.tokens", "model.tokenizer", "model.chat", "model.packing"),
        work=work,
    )
