"""Many small nights whose shards were folded, and whose folders in between were cleaned away: answers stay exact."""

from __future__ import annotations

import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

import tasks.stages.deduplicate
from data.lookup.fates import TRAIN, fate_of
from data.tokens.shards import open_segments, open_shards, shard_paths
from tasks.home.journal import Journal
from tasks.home.records import StageRecord
from tasks.questions.history import History
from tasks.retention.needed import HomeFolders, note_growth
from tests.lived_home import as_line, chat, prepare, small_recipe, text, train

NIGHTS = 8


def packed_rows(record: StageRecord, kind: str) -> list[list[int]]:
    shards = open_shards(record.path, kind, "train", "").shards
    return [row for shard in shards for row in shard.input_ids.tolist()]


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[StageRecord]]]:
    """Nights with a few new texts each, and conversations in every second one; trained on in the third."""
    folder = tmp_path_factory.mktemp("folded")
    home, raw = folder / "home", folder / "raw"
    raw.mkdir()
    recipe, done = small_recipe(raw), []
    (raw / "rare.jsonl").write_bytes(b"\n".join(as_line(text(seed, 20)) for seed in range(60)) + b"\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.stages.deduplicate, "create_table_artifact", lambda *_, **__: None)
        for number in range(NIGHTS):
            rows = [as_line(text(seed, 25)) for seed in range(1_000 * (number + 1), 1_000 * (number + 1) + 30)]
            (raw / f"text-{number}.jsonl").write_bytes(b"\n".join(rows) + b"\n")
            if number % 2 == 0:
                talk = [
                    chat(text(s, 8), text(s + 1, 15)) for s in range(50_000 + 1_000 * number, 50_040 + 1_000 * number)
                ]
                (raw / f"talk-{number}.jsonl").write_bytes(b"\n".join(map(as_line, talk)) + b"\n")
            done.append(prepare(home, recipe))
            if number == 2:
                for record in train(home, done[-1][3], (5, 5)):
                    assert record.path.exists()
    return home, done


def test_rows_keep_their_numbers_and_few_shards_hold_them(nights: tuple[Path, list[list[StageRecord]]]) -> None:
    _, done = nights
    for kind in ("pretrain", "chat"):
        for earlier, later in pairwise(done):
            before, after = packed_rows(earlier[3], kind), packed_rows(later[3], kind)
            assert after[: len(before)] == before
        assert len(shard_paths(done[-1][3].path, kind, "train")) <= NIGHTS // 2
    silent = done[1][3], done[0][3]
    digests = [record.digest_of_files("chat.train.", "tokenizer.json") for record in silent]
    assert digests[0] == digests[1], "a night without conversations changes nothing that training on them depends on"


def test_every_row_is_found_where_it_was_packed(nights: tuple[Path, list[list[StageRecord]]]) -> None:
    home, done = nights
    corpus = History(home).data_of(done[-1][3]).corpus
    for kind in ("pretrain", "chat"):
        expected: dict[int, Counter[tuple[int, int, int]]] = {}
        for row, start, length, document, *_ in open_segments(corpus.shards, kind, "train").iter_rows():
            expected.setdefault(document, Counter())[row, start, length] += 1
        for document, segments in list(expected.items())[::5]:
            fate = fate_of(corpus, document)
            assert fate.what == TRAIN
            assert Counter((s.packed_row, s.start, s.length) for s in fate.segments) == segments


def test_what_an_early_model_read_is_known_after_the_nights_between_are_gone(
    nights: tuple[Path, list[list[StageRecord]]], tmp_path: Path
) -> None:
    home, done = nights
    copied = tmp_path / "home"
    shutil.copytree(home, copied)
    before = [t.name for t in History(copied).trainings_on(done[-1][3], "pretrain")]
    assert len(before) == 1
    journal = Journal(copied)
    note_growth(journal, HomeFolders(copied))
    for night in done[3:-1]:
        for record in night:
            if record.path.name not in {last.path.name for last in done[-1]}:
                shutil.rmtree(copied / "data" / record.path.name, ignore_errors=True)
    newest = journal.newest("tokens", "tiny")
    assert newest
    assert [t.name for t in History(copied).trainings_on(newest, "pretrain")] == before
    note_growth(journal, HomeFolders(copied))
    assert [t.name for t in History(copied).trainings_on(newest, "pretrain")] == before
    assert set(journal.grown()) <= {r.digest for r in HomeFolders(copied).records.values()}
