"""The tokens stage: its tokenizer never sees the validation side, and a grown night encodes what is new alone."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from data.rows.parts import KINDS, texts_of
from data.sides.read import Bucket, read_train, read_val
from data.tokens.encode import Encoder
from data.tokens.overlap import contamination
from data.tokens.tokenise import pack_table
from model.files import sha256_of
from model.tokens.packing import IGNORED
from model.tokens.tokenizer import load_tokenizer, train_tokenizer
from schemas.rows import TURNS
from tasks.errors import NightStopped
from tasks.home.contents.packed import FIGURES, open_packed, open_segments
from tasks.home.contents.sides import SIDES
from tasks.home.journal import Journal
from tasks.home.records import StageRecord
from tasks.recipes.recipe import recipe_from
from tasks.sources.resolve import Resolved
from tasks.stage import Night
from tasks.stages.tokens import tokens, training_texts
from tasks.tracking.mlflow_store import Store
from tests.reference.targets import answer_targets, text_targets
from tests.tasks.rows import chat_rows, small_tokenizer, split_folder, stage_record, text_rows

SLOTS = 64
said = st.lists(st.sampled_from(["hello", "world", "a", "漢字", "."]), min_size=1, max_size=40).map(" ".join)
tables = st.one_of(
    st.lists(said, max_size=8).map(text_rows), st.lists(st.lists(st.tuples(said, said), max_size=3)).map(chat_rows)
)


@cache
def encoder() -> Encoder:
    return Encoder.of(small_tokenizer())


@settings(max_examples=25)
@given(tables)
def test_the_table_says_of_every_slot_whose_it_is(rows: pl.DataFrame) -> None:
    packed = pack_table(rows, encoder(), SLOTS)
    expected = np.zeros_like(packed.tokens.segment_ids)
    for row, start, length, document, row_id, source in packed.segments.select(
        "row", "start", "length", "document", "row_id", "source"
    ).rows():
        expected[row, start : start + length] = expected[row].max() + 1
        assert rows.select("row_id", "source").row(document) == (row_id, source)
    assert (packed.tokens.segment_ids == expected).all()
    again = pack_table(rows.clone(), encoder(), SLOTS)
    assert (again.tokens.input_ids == packed.tokens.input_ids).all()
    assert_frame_equal(again.segments, packed.segments)


@pytest.fixture(scope="module")
def real_text(corpus: Path) -> dict[str, pl.DataFrame]:
    """All rows of all sources of the built-in corpus, by kind."""
    columns = {"pretrain": ("text", pl.String), "chat": ("conversations", TURNS)}
    found = {}
    for kind, (name, dtype) in columns.items():
        lines = [line for file in sorted(corpus.glob(f"{kind}-*.jsonl")) for line in file.open(encoding="utf-8")]
        content = pl.Series(name, [json.loads(line)[name] for line in lines], dtype=dtype)
        names = (pl.lit("real").alias("source"), pl.lit("en").alias("domain"))
        found[kind] = pl.DataFrame([content]).select(*names, name).with_row_index("row_id")
    return found


@pytest.fixture(scope="module")
def real_encoder(real_text: dict[str, pl.DataFrame]) -> Encoder:
    """Of every tenth row."""
    some = (text for table in real_text.values() for text in texts_of(table[table.columns[-1]]).gather_every(10))
    return Encoder.of(train_tokenizer(some, 6_400))


@pytest.mark.parametrize(
    ("kind", "max_tokens", "fill"),
    [("pretrain", 256, 0.99), ("pretrain", 512, 0.99), ("chat", 256, 0.99), ("chat", 512, 0.99)],
)
def test_rows_of_real_text_are_almost_full(
    real_text: dict[str, pl.DataFrame], real_encoder: Encoder, kind: str, max_tokens: int, fill: float
) -> None:
    """Long conversations are cut between exchanges alone, which in short rows leaves more gaps than fillers."""
    packed = pack_table(real_text[kind], real_encoder, max_tokens)
    assert (packed.tokens.segment_ids != 0).mean() == packed.packing.fill(max_tokens) >= fill
    assert all(held.lost_share < 0.01 for held in packed.held.values())
    assert bool(packed.held) == (kind == "chat")


COPIED = (
    "hello world, this is a text that stands on both sides and is long enough ",
    "so does this one, only later ",
    "and this was learnt on a night before it was held out ",
)
GENERATIONS = (
    {
        "pretrain_train": text_rows(
            [f"{n} is a text of the train side, hello" for n in range(40)] + [COPIED[0] * 6, COPIED[2] * 6]
        ),
        "pretrain_val": text_rows([COPIED[0] * 6, "secret zqzq zqzq " * 9], prefix="val"),
        "chat_train": chat_rows([[("question", f"answer {n}"), ("more", "enough")] for n in range(30)]),
        "chat_val": chat_rows([[("secret zqzq", "validation zqzq")]] * 2, prefix="val"),
    },
    {
        "pretrain_train": text_rows(["new words wholly unlike", COPIED[1] * 6] * 9),
        "pretrain_val": text_rows([COPIED[1] * 6, COPIED[2] * 6], prefix="later"),
    },
    {"pretrain_train": text_rows(["words of a third night"] * 9)},
)


def rows_of(folder: Path, generations: int) -> StageRecord:
    """The split stage's output after some nights."""
    for number in range(generations):
        split_folder(folder, number, **GENERATIONS[number])
    return stage_record(folder, digest=f"rows-{generations}", inputs={"base": ""})


@dataclass(frozen=True)
class StageHome:
    """A home in which the stage is run night by night, and the buckets that it read on the last one."""

    folder: Path
    store: Store
    read: list[tuple[str, int]]

    def night(self, rows: StageRecord, grown_from: str = "", **data: Any) -> StageRecord:
        sources = [{"name": f"{kind}-rows", "kind": kind, "location": "x"} for kind in KINDS]
        recipe = recipe_from(
            {"name": "test", "sources": sources, "data": {"sequence_length_tokens": SLOTS} | data,
             "model": {"vocab_size": 400}}
        )  # fmt: skip
        self.read.clear()
        with Journal(self.folder).lease("test") as token:
            parent = self.store.start_run("night", {})
            night = Night(recipe, "key", self.folder, self.store.tracking_uri, parent, token, Resolved(()))
            return tokens.fn(night, dataclasses.replace(rows, inputs={"base": grown_from}))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Kind and generation of every bucket that is read."""
    read: list[tuple[str, int]] = []
    whole = Bucket.read
    monkeypatch.setattr(Bucket, "read", lambda self: (read.append((self.kind, self.generation)), whole(self))[1])
    return read


@pytest.fixture
def stage_home(tmp_path: Path, store: Store, read: list[tuple[str, int]]) -> StageHome:
    return StageHome(tmp_path, store, read)


def check_record(record: StageRecord, rows: StageRecord) -> None:
    """Both sides are learned whole, the train side in the order of its buckets, and the counts say so."""
    tokenizer = load_tokenizer(record.path)
    figures = json.loads((record.path / FIGURES).read_text())
    for kind in KINDS:
        for side, table in (("train", read_train(rows.path, kind)), ("val", read_val(rows.path, kind))):
            opened, segments = open_packed(record, kind, side), open_segments(record, kind, side)
            packed, expected = opened.rows(np.arange(opened.num_rows)), Counter()
            for content in table[table.columns[-1]]:
                answers = [] if kind == "pretrain" else [t["content"] for t in content if t["role"] == "assistant"]
                expected.update(text_targets(tokenizer, content) if kind == "pretrain" else [])
                expected.update(token for answer in answers for token in answer_targets(tokenizer, answer))
            assert Counter(packed.labels[packed.labels != IGNORED].tolist()) == expected
            assert set(segments["document"]) == set(table["row"])
            assert set(segments["row"]) == set(range(opened.num_rows))
            assert record.counts[f"{kind}_{side}_targets"] == expected.total()
            assert record.counts[f"{kind}_{side}_tokens"] == segments["length"].sum()
            assert record.counts[f"{kind}_{side}_rows"] == opened.num_rows
            assert record.figures[f"data/fill.{kind}_{side}"] == (packed.segment_ids != 0).mean()
            assert figures["slots_filled"][f"{kind}_{side}"] == record.figures[f"data/fill.{kind}_{side}"]
    sizes = [size for of_source in figures["sizes"].values() for size in of_source.values()]
    train = [read_train(rows.path, kind) for kind in KINDS]
    num_bytes = sum(len(text.encode()) for table in train for text in texts_of(table[table.columns[-1]]))
    newlines = sum(len(turns) - 1 for turns in train[1]["conversations"])
    assert sum(size for _, size in sizes) == num_bytes - newlines
    assert sum(count for count, _ in sizes) == sum(record.counts[f"{kind}_train_tokens"] for kind in KINDS)


def test_the_stage_learns_both_sides_whole_and_is_found_done(stage_home: StageHome) -> None:
    rows = rows_of(stage_home.folder / "rows", 1)
    record = stage_home.night(rows)
    check_record(record, rows)
    assert not [token for token in load_tokenizer(record.path).get_vocab() if "zq" in token]
    other = dataclasses.replace(record, files={name: f"{digest}!" for name, digest in record.files.items()})
    prints = {open_packed(r, kind, side).fingerprint for r in (record, other) for kind in KINDS for side in SIDES}
    assert len(prints) == 8
    assert stage_home.night(rows).reused
    assert stage_home.read == []


def test_a_grown_night_encodes_the_new_bucket_alone(stage_home: StageHome) -> None:
    first, rows = stage_home.night(rows_of(stage_home.folder / "rows", 1)), rows_of(stage_home.folder / "more", 2)
    second = stage_home.night(rows, grown_from="rows-1")
    assert stage_home.read == [("pretrain", 1), ("pretrain", 0), ("chat", 0)], (
        "a new slice is looked for in old buckets"
    )
    check_record(second, rows)
    shards = [name for name in first.files if ".train." in name]
    assert len(shards) == 5, "text is of two files, chat of three"
    folded = "pretrain.train.g0000.b0000-g0001.b0000"
    assert [name for name in second.files if name.startswith("pretrain.train.")] == [
        f"{folded}.arrow", f"{folded}.segments.parquet",
    ]  # fmt: skip
    for name in (name for name in shards if "pretrain." not in name):
        assert (second.path / name).stat().st_ino == (first.path / name).stat().st_ino
        assert second.files[name] == first.files[name] == sha256_of(second.path / name)
    assert second.files["tokenizer.json"] == first.files["tokenizer.json"]
    before, after = (open_packed(r, "pretrain", "train") for r in (first, second))
    old = np.arange(before.num_rows)
    assert (after.rows(old).input_ids == before.rows(old).input_ids).all()
    assert stage_home.night(rows, grown_from="rows-1").reused
    stage_home.night(rows_of(stage_home.folder / "most", 3), grown_from="rows-2")
    assert stage_home.read == [("pretrain", 2)], "without a new slice no old bucket is read"


def test_what_was_found_on_both_sides_stays_found_when_slices_come_to_it(stage_home: StageHome) -> None:
    first, rows = stage_home.night(rows_of(stage_home.folder / "rows", 1)), rows_of(stage_home.folder / "more", 2)
    second = stage_home.night(rows, grown_from="rows-1")
    for found in (contamination(stage_home.folder / "rows", first.path), contamination(rows.path, second.path)):
        shares = dict(found.filter(kind="pretrain").select("row_id", "share").rows())
        assert shares.pop("val-1") == 0.0
        assert set(shares.values()) == {1.0}
    assert set(shares) == {"val-0", "later-0", "later-1"}


@pytest.mark.parametrize(("grown_from", "data"), [("", {}), ("others", {}), ("rows-1", {"sequence_length_tokens": 32})])
def test_what_does_not_continue_an_earlier_night_starts_anew(
    stage_home: StageHome, grown_from: str, data: dict[str, int]
) -> None:
    stage_home.night(rows_of(stage_home.folder / "rows", 1))
    record = stage_home.night(rows := rows_of(stage_home.folder / "more", 2), grown_from=grown_from, **data)
    assert {("pretrain", 0), ("chat", 0), ("pretrain", 1)} <= set(stage_home.read)
    check_record(record, rows)


def test_a_tokenizer_that_cannot_be_had_stops_the_night(stage_home: StageHome) -> None:
    with pytest.raises(NightStopped, match=r"data\.tokenizer '~nobody-of-that-name/x' cannot be loaded"):
        stage_home.night(rows_of(stage_home.folder / "rows", 1), tokenizer="~nobody-of-that-name/x")
    assert not list((stage_home.folder / "data").glob("tokens@*[0-9a-f]"))


@pytest.fixture
def rows(tmp_path: Path) -> StageRecord:
    return rows_of(tmp_path / "rows", 1)


def test_the_tokenizer_learns_from_the_train_side_only(rows: StageRecord) -> None:
    texts = list(training_texts(rows.path))
    assert texts == [text for kind in KINDS for text in texts_of(read_train(rows.path, kind)[:, -1])]
    assert texts[-1] == "question\nanswer 29\nmore\nenough"


def test_the_text_for_the_tokenizer_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: list[tuple[str, int]]
) -> None:
    """Each kind has half of the bound, however many buckets it has; those behind the bound are not read."""
    monkeypatch.setattr("tasks.stages.tokens.TOKENIZER_TRAINING_BYTES", 100)
    for generation in range(9):
        chat = chat_rows([[("01234", "567890123")]])
        ref = split_folder(tmp_path, generation, pretrain_train=text_rows(["0123456789"] * 2), chat_train=chat)
    texts = list(training_texts(ref.path))
    assert [texts.count("0123456789"), texts.count("01234\n567890123")] == [5, 3]
    assert len(texts) == 8
    assert read == [*(("pretrain", generation) for generation in range(3)), *(("chat", g) for g in range(4))]
