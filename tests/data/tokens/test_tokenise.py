"""A bucket becomes a shard that loses nothing, and the figures told of it are those of the shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.sides.read import train_buckets
from data.tokens.contamination import Fingerprints
from data.tokens.encode import Encoder
from data.tokens.shards import open_segments, open_shards
from data.tokens.tokenise import DISPERSION_ROWS, Tokenised, TokenJob, pack_rows, tokenise
from model.tokens.packing import IGNORED, PackedTokens
from schemas.domain import DOMAINS
from tests.reference.targets import END_OF_TEXT, answer_targets, rendered, text_targets
from tests.tasks.rows import Exchange, chat_rows, small_tokenizer, split_folder, text_rows, turns_of

quick = settings(max_examples=25)
words = st.sampled_from(["hello", "world", "a", "é", "漢字", "😀", "<|im_end|>", "<|endoftext|>", "user\n", "."])
spoken = st.lists(words, min_size=1, max_size=4).map(" ".join)
texts = st.lists(
    st.one_of(spoken, st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)).flatmap(
        lambda text: st.integers(1, 6).map(lambda times: text * times)
    ),
    max_size=12,
)
talks = st.lists(st.lists(st.tuples(spoken, spoken), min_size=1, max_size=4), max_size=6)
CHAT_SLOTS = 160
"""Enough for any one exchange of `talks`, not for all of a conversation."""


@cache
def encoder() -> Encoder:
    return Encoder.of(small_tokenizer())


def decode(ids: Sequence[int]) -> str:
    return str(small_tokenizer().decode(ids, skip_special_tokens=False))


def slots_by_row(rows: pl.DataFrame, max_tokens: int) -> dict[int, list[tuple[list[int], list[int]]]]:
    """(inputs, labels) of each segment as they lie in the packed rows, by the row of the table they come from."""
    packing, _ = pack_rows(rows, encoder(), max_tokens)
    packed = packing.fill_rows(max_tokens, 0, np.uint16)
    found: dict[int, list[tuple[list[int], list[int]]]] = {}
    placed = zip(packing.segments.owners, packing.rows, packing.starts, packing.segments.lengths, strict=True)
    for owner, row, start, length in placed:
        where = row, slice(start, start + length)
        found.setdefault(int(owner), []).append((packed.input_ids[where].tolist(), packed.labels[where].tolist()))
    targets = sum((Counter(labels) for pieces in found.values() for _, labels in pieces), Counter({IGNORED: 0}))
    whole = Counter(packed.labels.ravel().tolist())
    assert whole - Counter({IGNORED: whole[IGNORED]}) == targets - Counter({IGNORED: targets[IGNORED]})
    return found


@quick
@given(texts, st.integers(4, 64))
def test_every_token_of_a_text_is_a_target_once(texts: list[str], max_tokens: int) -> None:
    found = slots_by_row(text_rows(texts), max_tokens)
    assert sorted(found) == list(range(len(texts)))
    for owner, pieces in found.items():
        labels = [label for _, piece in pieces for label in piece]
        inputs = [token for piece, _ in pieces for token in piece]
        assert labels == text_targets(small_tokenizer(), texts[owner])
        assert decode(inputs) == END_OF_TEXT + texts[owner]


@quick
@given(talks)
def test_every_answer_of_a_conversation_is_learned_once(talks: list[list[Exchange]]) -> None:
    found = slots_by_row(chat_rows(talks), CHAT_SLOTS)
    for number, talk in enumerate(talks):
        learned = [label for _, labels in found[number] for label in labels if label != IGNORED]
        assert learned == [token for _, answer in talk for token in answer_targets(small_tokenizer(), answer)]
        whole, windows = rendered(turns_of(talk)), [decode(inputs) for inputs, _ in found[number]]
        assert all(window.strip("\ufffd") in whole for window in windows), "what was said, in one piece"
        assert sum(len(inputs) < CHAT_SLOTS for inputs, _ in found[number]) <= 1, "all but the first are full"


def run_job(
    folder: Path, kind: str, table: pl.DataFrame, max_tokens: int = 64, validation: Path | None = None
) -> Tokenised:
    """Tokenise the one bucket of a folder."""
    split_folder(folder / "rows", **{f"{kind}_train": table})
    small_tokenizer().save(str(folder / "tokenizer.json"))
    [bucket] = train_buckets(folder / "rows", kind)
    return tokenise(TokenJob(bucket, folder, max_tokens, folder / f"{kind}.train.g0000.b0000", validation))


def opened(folder: Path, kind: str) -> PackedTokens:
    shards = open_shards(folder, kind, "train", "")
    return shards.rows(np.arange(shards.num_rows))


def with_domains(table: pl.DataFrame) -> pl.DataFrame:
    """Rows of all domains in turn."""
    names = [DOMAINS[number % len(DOMAINS)] for number in range(len(table))]
    return table.select("row_id", "source", pl.Series("domain", names, dtype=pl.String), table.columns[-1])


def contents_of(row: dict) -> list[str]:
    return [row["text"]] if "text" in row else [turn["content"] for turn in row["conversations"]]


@quick
@given(st.one_of(texts.filter(bool).map(text_rows), talks.filter(bool).map(chat_rows)), st.sampled_from([24, 200]))
def test_figures_are_those_of_the_shard(
    tmp_path_factory: pytest.TempPathFactory, table: pl.DataFrame, max_tokens: int
) -> None:
    folder, table = tmp_path_factory.mktemp("tokenise"), with_domains(table)
    kind = "pretrain" if "text" in table.columns else "chat"
    told, packed = run_job(folder, kind, table, max_tokens), opened(folder, kind)
    segments = open_segments(folder, kind, "train")
    assert (told.documents, told.rows) == (len(table), packed.num_rows)
    assert told.tokens == (packed.segment_ids != 0).sum() == segments["length"].sum()
    assert told.targets == (packed.labels != IGNORED).sum()
    expected = Counter()
    used: dict[str, set[int]] = {}
    for row in table.iter_rows(named=True):
        expected[row["source"], row["domain"], "bytes"] += sum(len(text.encode()) for text in contents_of(row))
    for row, start, length, document, source, domain in segments.rows():
        assert (source, domain) == (table["source"][document], table["domain"][document])
        expected[source, domain, "tokens"] += length
        ids = packed.input_ids[row, start : start + length]
        used.setdefault(domain, set()).update(ids.tolist())
    assert {(s, d): (t, b) for s, d, t, b in told.sizes} == {
        (s, d): (expected[s, d, "tokens"], expected[s, d, "bytes"]) for s, d, _ in expected
    }
    assert {domain: ids_in(bits) for domain, bits in told.used_ids.items()} == used


def ids_in(bits: bytes) -> set[int]:
    return set(np.flatnonzero(np.unpackbits(np.frombuffer(bits, dtype=np.uint8))).tolist())


def test_conversations_that_lose_an_answer_are_named_by_their_row(tmp_path: Path) -> None:
    long = "world " * 99
    talks = [[("hello", "world")], [("hello", long)], [("hello", "world"), ("hello", long), ("hello", "world")]]
    told = run_job(tmp_path, "chat", chat_rows(talks), 48)
    held = told.answers["talk"]
    assert (held.conversations, held.unpacked, held.answers, held.lost) == (3, 1, 5, 2)
    assert set(open_segments(tmp_path, "chat", "train")["document"]) == {0, 2}
    lost = pl.read_parquet(tmp_path / "lost.chat.train.g0000.b0000.parquet")
    tokens = len(answer_targets(small_tokenizer(), long))
    assert lost.rows() == [(1, 1, tokens, tokens + 1), (2, 2, tokens, tokens + 1)]
    longer = run_job(tmp_path / "longer", "chat", chat_rows(talks), tokens + 1).answers["talk"]
    assert (longer.unpacked, longer.lost) == (0, 0)


def test_a_bucket_with_nothing_to_learn_makes_an_empty_shard(tmp_path: Path) -> None:
    told = run_job(tmp_path, "chat", chat_rows([[("hello", "world " * 99)]]), 48)
    assert (told.documents, told.tokens, told.targets, told.rows, told.used_ids) == (1, 0, 0, 0, {})
    assert (opened(tmp_path, "chat").num_rows, len(open_segments(tmp_path, "chat", "train"))) == (0, 0)


def test_the_same_bucket_gives_the_same_bytes(tmp_path: Path) -> None:
    table = text_rows(["hello world, this is a text " * n for n in range(1, 30)])
    one, two = (run_job(tmp_path / name, "pretrain", table) for name in ("one", "two"))
    assert one == two
    for name in ("pretrain.train.g0000.b0000.arrow", "pretrain.train.g0000.b0000.segments.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def dispersion_index(folder: Path, domains: Sequence[str]) -> dict[str, float]:
    table = text_rows(["a"] * len(domains)).select(
        "row_id", "source", pl.Series("domain", domains, dtype=pl.String), "text"
    )
    return {name: found / chance for name, (found, chance) in run_job(folder, "pretrain", table).dispersion.items()}


def test_rows_in_shuffled_order_have_a_dispersion_of_about_one_and_others_far_more(tmp_path: Path) -> None:
    domains = ["en"] * 12_000 + ["zh"] * 6_000 + ["code"] * 2_000
    shuffled = np.random.default_rng(0).permutation(domains).tolist()
    found = dispersion_index(tmp_path / "shuffled", shuffled)
    assert set(found) == {"en", "zh", "code"}
    assert all(0.8 < index < 1.2 for index in found.values())
    assert min(dispersion_index(tmp_path / "sorted", domains).values()) > 30
    assert max(dispersion_index(tmp_path / "dealt", ["en", "zh"] * 5_000).values()) < 0.1, (
        "too even is no chance either"
    )


@pytest.mark.parametrize("domains", [["en"] * 500, ["en", "zh"] * (DISPERSION_ROWS - 1)])
def test_one_domain_or_few_rows_have_no_dispersion(tmp_path: Path, domains: list[str]) -> None:
    assert dispersion_index(tmp_path, domains) == {}


def shares_found(folder: Path, kind: str, table: pl.DataFrame, validation: list[str], max_tokens: int) -> list[float]:
    """Of plain texts, as the validation side is noted: the share of n-grams that a bucket is told to hold."""
    fingerprints = Fingerprints.of(*encoder().encode(validation))
    for name in ("hashes", "owner", "place"):
        np.save(folder / f"{name}.npy", getattr(fingerprints, name))
    told = run_job(folder, kind, table, max_tokens, folder)
    found = np.unpackbits(np.frombuffer(told.contaminated, dtype=np.uint8), count=len(fingerprints.hashes))
    return fingerprints.shares(found.astype(bool), len(validation)).tolist()


def prose(seed: int, num_words: int) -> str:
    words = ["hello", "world", "this", "is", "text", "user", "assistant", "a"]
    return " ".join(np.random.default_rng(seed).choice(words, num_words))


@pytest.mark.parametrize("max_tokens", [32, 512])
def test_a_copied_document_is_found_whole_however_it_is_cut(tmp_path: Path, max_tokens: int) -> None:
    copied, unrelated = prose(1, 300), prose(2, 300)
    table = text_rows([prose(3, 200), copied, prose(4, 5)])
    assert shares_found(tmp_path, "pretrain", table, [copied, unrelated], max_tokens) == [1.0, 0.0]


@pytest.mark.parametrize("max_tokens", [32, 512])
def test_a_copied_conversation_is_found_whole_however_short_its_turns(tmp_path: Path, max_tokens: int) -> None:
    talk = [(prose(seed, 4), prose(seed + 50, 4)) for seed in range(12)]
    copied = "\n".join(content for exchange in talk for content in exchange)
    table = chat_rows([[(prose(200, 9), prose(201, 9))], talk])
    assert shares_found(tmp_path, "chat", table, [copied, prose(2, 300)], max_tokens) == [1.0, 0.0]


def test_without_a_validation_side_nothing_is_looked_for(tmp_path: Path) -> None:
    assert run_job(tmp_path, "pretrain", text_rows(["hello world"])).contaminated == b""
