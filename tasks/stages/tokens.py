"""Rows → a tokenizer and packed rows of ids, bucket by bucket."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from tokenizers import Tokenizer

from data.rows.parts import KINDS, texts_of
from data.sides.read import Bucket, read_val, train_buckets
from data.tokens.answers import HeldAnswers
from data.tokens.encode import Encoder
from data.tokens.folding import fold_shards, shard_name, span_of
from data.tokens.overlap import FINGERPRINTS, mark_contaminated, write_fingerprints
from data.tokens.shards import open_segments as segments_in
from data.tokens.shards import shard_paths, write_lost, write_shard
from data.tokens.tokenise import PackedRows, Tokenised, TokenJob, pack_table, tokenise
from data.workers import run_jobs
from model.files import sha256_of
from model.tokens.packing import IGNORED
from model.tokens.tokenizer import SPECIAL_TOKENS, load_tokenizer, token_byte_lengths, train_tokenizer
from tasks.errors import NightStopped
from tasks.home.contents.packed import FIGURES, all_answers, answers_in, write_scored_text
from tasks.home.contents.sides import SIDES, train_rows
from tasks.home.contents.tokenizers import TOKENIZER, TOKENIZER_FILE, whose_tokenizer_stays
from tasks.home.digests import plain
from tasks.home.links import link_files
from tasks.home.records import StageRecord
from tasks.pages.figures import log2_counts, token_histogram
from tasks.pages.text import plural
from tasks.recipes.recipe import Recipe
from tasks.recipes.stage_configs import HUB, DataConfig
from tasks.stage import Night, Outcome, StageRun, stage

TOKENIZER_TRAINING_BYTES = 16 << 20
"""Text is plentiful and merges settle early: more than this changes a vocabulary of 6,400 little and costs minutes."""
log = logging.getLogger("nightschool")


def training_texts(rows: Path) -> Iterator[str]:
    """Text of the train side for the tokenizer: every kind in turn, up to a bound."""
    for kind in KINDS:
        used, limit = 0, TOKENIZER_TRAINING_BYTES // len(KINDS)
        for table in train_rows(rows, kind):
            for text in texts_of(table[table.columns[-1]]):
                used += len(text)
                if used > limit:
                    break
                yield text
            if used > limit:
                break


def load_given(given: str) -> Tokenizer:
    """The tokenizer a recipe names: a folder with tokenizer.json, or `hub:OWNER/NAME`."""
    try:
        if given.startswith(HUB):
            tokenizer = Tokenizer.from_pretrained(given.removeprefix(HUB))
        else:
            tokenizer = load_tokenizer(Path(given).expanduser().absolute())
    except Exception as error:  # the library raises a bare Exception for a missing or broken file
        raise NightStopped(f"data.tokenizer {given!r} cannot be loaded: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # Were one of these not marked as special, text could spell it.
    tokenizer.add_special_tokens([token for token in SPECIAL_TOKENS if tokenizer.token_to_id(token) is not None])
    return tokenizer


def make_tokenizer(rows: Path, given: str, vocab_size: int, out: Path) -> Tokenizer:
    """Train a tokenizer on the train side, or take the given one; either way it lies in `out` afterwards.

    given: as a recipe names it, or the folder of one that was trained before.
    """
    if given:
        tokenizer = load_given(given)
        entries, largest = tokenizer.get_vocab_size(), max(tokenizer.get_vocab().values(), default=-1)
        if entries > vocab_size:
            raise NightStopped(f"data.tokenizer has {entries} entries, model.vocab_size is {vocab_size}; raise it")
        if largest >= entries:
            raise NightStopped(
                f"data.tokenizer has {entries} entries and ids up to {largest}; number them without gaps"
            )
    else:
        tokenizer = train_tokenizer(training_texts(rows), vocab_size)
    tokenizer.save(str(out / "tokenizer.json"))
    try:
        return load_tokenizer(out)
    except ValueError as error:
        raise NightStopped(f"data.tokenizer {given!r}: {error}") from error


def tokenizer_digest(given: str) -> str:
    """Digest of the tokenizer file a recipe names, or its name, or nothing."""
    try:
        return sha256_of(Path(given).expanduser() / "tokenizer.json") if given else given
    except (OSError, RuntimeError):  # no such file, or no such user
        return given


def write_val(rows: Path, encoder: Encoder, row_length_tokens: int, folder: Path) -> dict[str, PackedRows]:
    """Pack the validation slices."""
    packed = {kind: pack_table(read_val(rows, kind), encoder, row_length_tokens) for kind in KINDS}
    for kind, table in packed.items():
        write_shard(folder / f"{kind}.val.all", table.tokens, table.segments.drop("row_id"))
    write_lost(folder / "chat.val.all", *packed["chat"].lost)
    return packed


def scored_text(packed: PackedRows, tokenizer: Tokenizer) -> pl.DataFrame:
    """(row_id, num_bytes) of each validation document that has text which is scored: its UTF-8 bytes."""
    sizes = pl.Series("num_bytes", packed.sums(packed.target_bytes(token_byte_lengths(tokenizer)))).cast(pl.Int64)
    of_document = packed.segments.select("row_id").with_columns(sizes).group_by("row_id", maintain_order=True).sum()
    return of_document.filter(pl.col("num_bytes") > 0)


def merge_figures(folder: Path, kinds: Sequence[str], shards: Sequence[Tokenised]) -> dict[str, Any]:
    """Figures of all shards, those of earlier nights in `folder` included."""
    path = folder / FIGURES
    figures: dict[str, Any] = (
        json.loads(path.read_text()) if path.exists() else {"sizes": {}, "used": {}, "dispersion": {}}
    )
    counts = Counter(figures.get("counts", {}))
    for kind, shard in zip(kinds, shards, strict=True):
        counts.update({
            f"{kind}_train_tokens": shard.tokens, f"{kind}_train_targets": shard.targets,
            f"{kind}_train_rows": shard.rows,
        })  # fmt: skip
        for source, domain, tokens, size in shard.sizes:
            before = figures["sizes"].setdefault(source, {}).get(domain, [0, 0])
            figures["sizes"][source][domain] = [before[0] + tokens, before[1] + size]
        for domain, bits in shard.used_ids.items():
            before_bits = bytes.fromhex(figures["used"].get(domain, "00" * len(bits)))
            figures["used"][domain] = bytes(a | b for a, b in zip(before_bits, bits, strict=True)).hex()
        for domain, (found, expected) in shard.dispersion.items():
            sums = figures["dispersion"].get(domain, [0.0, 0.0])
            figures["dispersion"][domain] = [sums[0] + found, sums[1] + expected]
        merge_answers(figures.setdefault("answers", {}), shard.answers)
    return figures | {"counts": dict(counts)}


def merge_answers(so_far: dict[str, Any], more: Mapping[str, HeldAnswers]) -> None:
    """Add to what is noted by source."""
    for source, held in more.items():
        before = HeldAnswers.from_dict(so_far[source]) if source in so_far else HeldAnswers()
        so_far[source] = before.merge(held).as_dict()


def pack_sides(
    rows: Path,
    data: DataConfig,
    vocab_size: int,
    folder: Path,
    base: StageRecord | None = None,
    kept: Path | None = None,
) -> tuple[Encoder, dict[str, Any], dict[str, PackedRows]]:
    """Write tokenizer and shards into `folder`, or what `base` lacks of them; also figures and the validation side.

    kept: a folder with a tokenizer that was trained before, to be taken over; None trains one if the recipe names none.
    """
    if base:
        for name in ("tokenizer.json", FIGURES):
            (folder / name).write_bytes((base.path / name).read_bytes())
    else:
        make_tokenizer(rows, data.tokenizer or str(kept or ""), vocab_size, folder)
    encoder = Encoder.open(folder)
    val = write_val(rows, encoder, data.sequence_length_tokens, folder)
    write_fingerprints(rows, encoder, folder)
    buckets: list[Bucket] = []
    earlier: list[Bucket] = []
    for kind in KINDS:
        spans = [span_of(path) for path in shard_paths(base.path, kind, "train")] if base else []
        for bucket in train_buckets(rows, kind):
            there = any(first <= bucket.place <= last for first, last in spans)
            (earlier if there else buckets).append(bucket)
    jobs = [
        TokenJob(b, folder, data.sequence_length_tokens, folder / shard_name(b.kind, b.place), folder / FINGERPRINTS)
        for b in buckets
    ]
    shards = list(run_jobs(tokenise, jobs, 2 * sum(bucket.num_bytes for bucket in buckets)))
    figures = merge_figures(folder, [b.kind for b in buckets], shards)
    mark_contaminated(folder, base.path if base else None, earlier, shards)
    for kind in {bucket.kind for bucket in buckets} if base else ():
        fold_shards(folder, kind)
    figures["val_answers"] = {source: held.as_dict() for source, held in val["chat"].held.items()}
    return encoder, figures | {"vocabulary": encoder.tokenizer.get_vocab_size()}, val


def encoding(recipe: Recipe) -> dict[str, object]:
    """The settings that decide the tokenizer and the packed rows."""
    given = recipe.data.tokenizer
    return {"data": recipe.data, "vocab_size": recipe.model.vocab_size, "tokenizer": tokenizer_digest(given)}


def earlier_with_tokenizer(night: Night, rows: StageRecord) -> StageRecord | None:
    """The tokens stage whose trained tokenizer stays in use; None if there is no such."""
    config = {key: plain(value) for key, value in encoding(night.recipe).items()}
    return whose_tokenizer_stays(night.journal, night.recipe.name, rows, config)


def rows_and_tokenizer(night: Night, rows: StageRecord) -> dict[str, str]:
    """Digests of the rows, and of a trained tokenizer that is taken over."""
    kept = earlier_with_tokenizer(night, rows)
    return {"rows": rows.digest, **({TOKENIZER: kept.files[TOKENIZER_FILE]} if kept else {})}


@stage(config=encoding, inputs=rows_and_tokenizer, grows=True)
def tokens(run: StageRun, rows: StageRecord) -> Outcome:
    """Train or load the tokenizer, or keep the one that was trained before; encode both sides, pack them."""
    data, kinds = run.recipe.data, (".arrow", ".parquet")
    linked = link_files(run.base, run.folder, lambda n: n if ".train." in n and n.endswith(kinds) else None)
    earlier = None if run.base else earlier_with_tokenizer(run.night, rows)
    if earlier:
        log.info(
            "%-11s the rows do not grow from earlier ones; the tokenizer stays that of %s", "tokens", earlier.path.name
        )
    kept = earlier.path if earlier else None
    encoder, figures, val = pack_sides(rows.path, data, run.recipe.model.vocab_size, run.folder, run.base, kept)
    done = outcome(run, encoder, figures, val, data.sequence_length_tokens, linked)
    fill = "data/fill."
    figures["slots_filled"] = {n.removeprefix(fill): share for n, share in done.figures.items() if n.startswith(fill)}
    (run.folder / FIGURES).write_text(json.dumps(figures), encoding="utf-8")
    return done


def lost_in_words(held: HeldAnswers) -> str:
    """What packed rows do not hold, in numbers."""
    return (
        f"{held.lost:,} of {plural(held.answers, 'answer')} too long for a row, "
        f"{held.unpacked:,} of {plural(held.conversations, 'conversation')} in none"
    )


def outcome(
    run: StageRun, encoder: Encoder, figures: dict[str, Any], val: dict[str, PackedRows], row_length_tokens: int,
    linked: dict[str, str],
) -> Outcome:  # fmt: skip
    """Counts, fills and the pictures."""
    counts = {"vocabulary": encoder.tokenizer.get_vocab_size()} | {
        f"{kind}_train_{name}": int(figures["counts"].get(f"{kind}_train_{name}", 0))
        for kind in KINDS
        for name in ("tokens", "targets", "rows")
    }
    scored = {kind: scored_text(packed, encoder.tokenizer) for kind, packed in val.items()}
    write_scored_text(run.folder, scored)
    for kind, packed in val.items():
        counts |= {
            f"{kind}_val_documents": len(scored[kind]),
            f"{kind}_val_bytes": int(scored[kind]["num_bytes"].sum()),
            f"{kind}_val_tokens": int(packed.packing.segments.lengths.sum()),
            f"{kind}_val_targets": int((packed.tokens.labels != IGNORED).sum()),
            f"{kind}_val_rows": packed.tokens.num_rows,
        }
    fills = {
        f"data/fill.{kind}_{side}": counts[f"{kind}_{side}_tokens"]
        / max(1, counts[f"{kind}_{side}_rows"] * row_length_tokens)
        for kind in KINDS
        for side in SIDES
    }
    held = all_answers(answers_in(figures))
    counts |= {
        "conversations": held.conversations, "conversations_in_no_row": held.unpacked,
        "answers": held.answers, "answers_in_no_row": held.lost,
    }  # fmt: skip
    fills["data/lost_answers_share"] = held.lost_share
    lengths = {
        f"{kind} {side}": log2_counts(segments_in(run.folder, kind, side)["length"].to_numpy())
        for kind in KINDS
        for side in SIDES
    }
    run.tracker.artifact(token_histogram(lengths, run.logs / "segment-tokens.png"), "figures")
    run.tracker.artifact(run.folder / "tokenizer.json", "tokenizer")
    text, chat = counts["pretrain_train_tokens"], counts["chat_train_tokens"]
    return Outcome(
        counts=counts,
        headline=f"{text:,} + {chat:,} tokens, slots {fills['data/fill.pretrain_train']:.1%} full"
        + (f"; {lost_in_words(held)}" if held.lost else ""),
        figures=fills,
        linked=linked,
    )
