"""A bucket of rows → a shard of packed tokens, with its figures for the data report. Runs in a worker."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl

from data.rows.parts import content_column, texts_of
from data.sides.read import Bucket
from data.tokens.answers import HeldAnswers
from data.tokens.contamination import Fingerprints
from data.tokens.encode import Encoder
from data.tokens.shards import LOST, NAMES, segments_frame, write_lost, write_shard
from data.tokens.windows import Answers
from model.tokens.packing import IGNORED, PackedTokens, Packing, pack, pack_documents
from schemas.domain import DOMAINS

DISPERSION_ROWS = 64
"""Rows of a batch for the dispersion index."""
RENEW_EVERY_BUCKETS = 16
"""After so many buckets a process makes its encoder anew: the engine's cache of words grows without a bound."""


@dataclass(frozen=True)
class TokenJob:
    """One bucket, and where its shard goes."""

    bucket: Bucket
    tokenizer: Path
    row_length_tokens: int
    out: Path
    """Without suffix."""
    validation: Path | None
    """Folder with the n-grams of the validation documents, or None to look for none."""


@dataclass(frozen=True)
class SearchJob:
    """A bucket that is packed already, and the folder with the n-grams of the validation documents."""

    bucket: Bucket
    tokenizer: Path
    validation: Path


@dataclass(frozen=True, kw_only=True)
class Tokenised:
    """Figures of one shard."""

    documents: int
    tokens: int
    targets: int
    rows: int
    answers: dict[str, HeldAnswers]
    """By source; none of text."""
    sizes: tuple[tuple[str, str, int, int], ...]
    """(source, domain, tokens, UTF-8 bytes)"""
    used_ids: dict[str, bytes]
    """Packed bits by domain: which ids occur."""
    dispersion: dict[str, tuple[float, float]]
    """Of each domain: sum over batches of (share - p)^2, and of p(1 - p)/B."""
    contaminated: bytes
    """Packed bits: which of the validation n-grams occur."""


@lru_cache(maxsize=1)
def encoder_of(folder: Path, renewed: int) -> Encoder:
    """One a process, for each value of `renewed`."""
    return Encoder.open(folder)


@lru_cache(maxsize=1)
def fingerprints_of(folder: Path) -> tuple[Fingerprints, np.ndarray]:
    found = Fingerprints(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("hashes", "owner", "place")))
    return found, found.sieve()


def pack_rows(rows: pl.DataFrame, encoder: Encoder, row_length_tokens: int) -> tuple[Packing, Answers | None]:
    """Pack a table with a column `text` or `conversations`; also all answers of the latter."""
    if "text" in rows.columns:
        segments = encoder.documents(rows["text"].to_list())
        return pack_documents(segments, row_length_tokens, encoder.end_ranks), None
    segments, answers = encoder.conversations(rows["conversations"], row_length_tokens)
    return pack(segments, row_length_tokens), answers


def held_by_source(
    rows: pl.DataFrame, packing: Packing, answers: Answers | None, row_length_tokens: int
) -> dict[str, HeldAnswers]:
    """What of each source's answers the packed rows hold."""
    if answers is None:
        return {}
    sources = rows["source"].cast(pl.String).to_numpy()
    conversations = Counter(sources.tolist())
    packed = Counter(sources[np.unique(packing.segments.owners)].tolist())
    of_answers, lost = Counter(sources[answers.owner].tolist()), answers.longer_than(row_length_tokens)
    needed: dict[str, Counter[int]] = {}
    for source, length in zip(sources[lost.owner].tolist(), lost.needed.tolist(), strict=True):
        needed.setdefault(source, Counter())[length] += 1
    return {
        source: HeldAnswers(
            conversations=count, unpacked=count - packed[source], answers=of_answers[source],
            needed=needed.get(source, {}),
        )
        for source, count in sorted(conversations.items())
    }  # fmt: skip


@dataclass(frozen=True)
class PackedRows:
    """Packed rows in memory, and which document is where."""

    tokens: PackedTokens
    segments: pl.DataFrame
    """SEGMENTS, with the column `row_id` of the document; in order of row and start."""
    packing: Packing
    held: dict[str, HeldAnswers]
    """By source; none of text."""
    lost: tuple[np.ndarray, ...]
    """Columns of LOST: the answers that are in no row."""

    def sums(self, array: np.ndarray) -> np.ndarray:
        """Of an array over all slots, (rows, slots), the sum over each segment, float64."""
        running = np.concatenate([[0], array.ravel().cumsum(dtype=np.float64)])
        starts = self.segments["row"].to_numpy() * array.shape[1] + self.segments["start"].to_numpy()
        summed: np.ndarray = running[starts + self.segments["length"].to_numpy()] - running[starts]
        return summed

    def target_bytes(self, byte_lengths: np.ndarray) -> np.ndarray:
        """UTF-8 bytes of the text to predict in each slot, (rows, slots); `byte_lengths` are those of the ids."""
        labels = self.tokens.labels
        return np.where(labels != IGNORED, byte_lengths[np.maximum(labels, 0)], 0)


def pack_table(rows: pl.DataFrame, encoder: Encoder, row_length_tokens: int) -> PackedRows:
    """Encode and pack a small table of rows; a function of the rows, their order and the tokenizer."""
    packing, answers = pack_rows(rows, encoder, row_length_tokens)
    owners = packing.segments.owners
    numbers = rows["row"] if "row" in rows.columns else pl.Series(np.arange(len(rows), dtype=np.uint32))
    where = segments_frame(
        packing.rows, packing.starts, packing.segments.lengths, numbers.to_numpy()[owners],
        rows["source"].gather(owners), rows["domain"].gather(owners),
    ).with_columns(pl.col(NAMES).cast(pl.String))  # fmt: skip
    order = np.lexsort((packing.starts, packing.rows))
    where = where.with_columns(rows["row_id"].gather(owners[order]))
    packed = packing.fill_rows(row_length_tokens, encoder.end_of_text, encoder.id_dtype)
    held = held_by_source(rows, packing, answers, row_length_tokens)
    return PackedRows(packed, where, packing, held, lost_columns(numbers.to_numpy(), answers, row_length_tokens))


def lost_columns(numbers: np.ndarray, answers: Answers | None, row_length_tokens: int) -> tuple[np.ndarray, ...]:
    """Columns of LOST, of rows with these numbers in the corpus."""
    if answers is None:
        return tuple(np.zeros(0, dtype=np.uint32) for _ in LOST)
    lost = answers.longer_than(row_length_tokens)
    return numbers[lost.owner], lost.number, lost.tokens, lost.needed


def tokenise(job: TokenJob) -> Tokenised:
    """Encode, pack and write one bucket."""
    rows = job.bucket.read()
    encoder = encoder_of(job.tokenizer, job.bucket.number // RENEW_EVERY_BUCKETS)
    packing, answers = pack_rows(rows, encoder, job.row_length_tokens)
    packed = packing.fill_rows(job.row_length_tokens, encoder.end_of_text, encoder.id_dtype)
    owners = packing.segments.owners
    names = pl.Series(DOMAINS).gather(rows["domain"])
    where = segments_frame(
        packing.rows, packing.starts, packing.segments.lengths, rows["row"].to_numpy()[owners],
        rows["source"].gather(owners), names.gather(owners),
    )  # fmt: skip
    write_shard(job.out, packed, where)
    if answers is not None:
        write_lost(job.out, *lost_columns(rows["row"].to_numpy(), answers, job.row_length_tokens))
    tokens_of = np.bincount(owners, packing.segments.lengths, len(rows)).astype(np.int64)
    return Tokenised(
        documents=len(rows), tokens=int(packing.segments.lengths.sum()),
        targets=int((packing.segments.labels != IGNORED).sum()), rows=packing.num_rows,
        answers=held_by_source(rows, packing, answers, job.row_length_tokens),
        sizes=sizes_of(rows, tokens_of), used_ids=used_ids(rows, packing, encoder.tokenizer.get_vocab_size()),
        dispersion=dispersion_of(rows["domain"].to_numpy()),
        contaminated=contamination_of(job, rows, packing, encoder),
    )  # fmt: skip


def contamination_of(job: TokenJob, rows: pl.DataFrame, packing: Packing, encoder: Encoder) -> bytes:
    """Which validation n-grams the bucket holds; documents count whole, however they were cut."""
    if job.validation is None:
        return b""
    if "text" not in rows.columns:
        return contained(job.validation, *encoder.encode(texts_of(rows["conversations"]).to_list()))
    segments = packing.segments
    sizes = np.bincount(segments.owners, segments.lengths, len(rows)).astype(np.int64)
    return contained(job.validation, segments.inputs, np.concatenate([[0], np.cumsum(sizes)]))


def search(job: SearchJob) -> bytes:
    """Which validation n-grams a bucket holds that was packed before they were known."""
    encoder = encoder_of(job.tokenizer, job.bucket.number // RENEW_EVERY_BUCKETS)
    texts = texts_of(job.bucket.read()[content_column(job.bucket.kind)])
    return contained(job.validation, *encoder.encode(texts.to_list()))


def contained(validation: Path, ids: np.ndarray, offsets: np.ndarray) -> bytes:
    """Packed bits: which n-grams stand in these documents. Conversations are plain text, without markers of turns."""
    fingerprints, sieve = fingerprints_of(validation)
    return np.packbits(fingerprints.found_in(ids, offsets, sieve)).tobytes()


def bytes_of(rows: pl.DataFrame) -> np.ndarray:
    """UTF-8 bytes of each row's text, the turns' contents of a conversation."""
    if "text" in rows.columns:
        return rows["text"].str.len_bytes().to_numpy().astype(np.int64)
    contents = pl.element().struct.field("content").str.len_bytes()
    sizes = rows.select(pl.col("conversations").list.eval(contents).list.sum()).to_series()
    return sizes.to_numpy().astype(np.int64)


def sizes_of(rows: pl.DataFrame, tokens: np.ndarray) -> tuple[tuple[str, str, int, int], ...]:
    """Tokens and bytes by source and domain."""
    frame = rows.select("source", "domain").with_columns(tokens=pl.Series(tokens), bytes=pl.Series(bytes_of(rows)))
    summed = frame.group_by("source", "domain").sum().sort("source", "domain")
    return tuple((source, DOMAINS[domain], t, b) for source, domain, t, b in summed.iter_rows())


def used_ids(rows: pl.DataFrame, packing: Packing, vocab_size: int) -> dict[str, bytes]:
    """Which ids each domain uses."""
    segments = packing.segments
    used = np.zeros((len(DOMAINS), vocab_size), dtype=bool)
    row_of_table = rows["domain"].to_numpy().astype(np.int32)[segments.owners] * np.int32(vocab_size)
    used.ravel()[np.repeat(row_of_table, segments.lengths) + segments.inputs.astype(np.int32)] = True
    return {name: np.packbits(used[code]).tobytes() for code, name in enumerate(DOMAINS) if used[code].any()}


def dispersion_of(domains: np.ndarray) -> dict[str, tuple[float, float]]:
    """For each domain the squared deviations of its share in batches of the shuffled order, and what chance gives.

    Their ratio is the dispersion index: 1 for a shuffled order, more where rows of a domain lie together.
    """
    batches = len(domains) // DISPERSION_ROWS
    if batches < 2:
        return {}
    counts = domains[: batches * DISPERSION_ROWS].reshape(batches, DISPERSION_ROWS)
    out: dict[str, tuple[float, float]] = {}
    for code, name in enumerate(DOMAINS):
        share = (counts == code).mean(axis=1)
        p = float(share.mean())
        if 0 < p < 1:
            deviations = float(((share - p) ** 2).sum() * batches / (batches - 1))
            out[name] = (deviations, batches * p * (1 - p) / DISPERSION_ROWS)
    return out
