"""The batch again: the rows that training read, bit by bit, what they are of and what they cost; also of a night that
was broken off."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.data.ours import run_id_of
from data.lookup.exposure import TrainingInput
from data.lookup.packed_rows import segments_of_rows
from data.rows.keys import name_of, row_ids
from flows.__main__ import main
from model.tokens.order import Reading
from tasks.errors import MESSAGE_LIMIT, NightStopped
from tasks.home.contents.pretrained import TRUNK, read_noted
from tasks.home.records import BEGUN
from tasks.pages.nights.batch import BatchFacts
from tasks.questions.batch import StepBatch, batch_of
from tasks.questions.history import History
from tasks.questions.lineage import find_model
from tasks.questions.quarantine import text_of
from tasks.questions.replay import facts_of, replay
from tasks.training.curve import stage_points
from tests.reference.order import walked, walked_with_replay
from tests.shortcuts import probe_briefly
from tests.tasks.conftest import silence_prefect
from tests.tasks.pages.nights.reading import read_page
from tests.trained_home import (
    BATCH_ROWS,
    BRANCH,
    BROKEN_AT,
    FIRST,
    SECOND,
    SFT_STEPS,
    STEPS,
    TEXT_SHARE,
    TrainedHome,
    train_two_nights,
)


@dataclass(frozen=True)
class Asked:
    """A stage as it is asked for."""

    night: str
    stage: str

    def batch(self, trained: TrainedHome, step: int) -> StepBatch:
        model = find_model(History(trained.home), self.night, unfinished=True)
        return batch_of(model, self.night, self.stage, step)

    def facts(self, trained: TrainedHome, step: int) -> BatchFacts:
        return facts_of(History(trained.home), self.batch(trained, step), None, None)


ASKED = [Asked(FIRST, "pretrain"), Asked(FIRST, "sft"), Asked(SECOND, "pretrain")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedHome:
    """To be read only."""
    with pytest.MonkeyPatch.context() as patch:
        silence_prefect(patch)
        probe_briefly(patch)
        return train_two_nights(tmp_path_factory.mktemp("trained"), patch)


@pytest.fixture
def changed(trained: TrainedHome, tmp_path: Path) -> TrainedHome:
    """A copy of its own, for a test that takes something away."""
    shutil.copytree(trained.home, tmp_path / "home", symlinks=True)
    return replace(trained, home=tmp_path / "home")


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: f"{asked.night} {asked.stage}")
def test_the_ids_are_those_that_training_read_in_every_step(trained: TrainedHome, asked: Asked) -> None:
    read = trained.read[asked.night, asked.stage]
    assert len(read) == {ASKED[0]: STEPS, ASKED[1]: SFT_STEPS, ASKED[2]: BROKEN_AT}[asked]
    for step, ids in enumerate(read, start=1):
        assert asked.batch(trained, step).rows.input_ids.astype(np.int64).tobytes() == ids


def test_the_rows_are_those_of_a_walk_through_the_order(trained: TrainedHome) -> None:
    """From scratch, with text beside conversations, and with what a trunk has read."""
    text, chat = (trained.packed[0].counts[f"{kind}_train_rows"] for kind in ("pretrain", "chat"))
    before = Reading(text, BATCH_ROWS, 1, BRANCH).times_read()
    grown = trained.packed[1].counts["pretrain_train_rows"]
    known, new = np.flatnonzero(before).tolist(), [row for row in range(grown) if row >= text or not before[row]]
    share = read_noted(ASKED[2].batch(trained, 1).training.record.path)["replay"]["share"]
    expected = {
        ASKED[0]: walked(text, BATCH_ROWS, 1, STEPS),
        ASKED[1]: walked_with_replay(
            list(range(chat)), list(range(chat, chat + text)), TEXT_SHARE, 0, BATCH_ROWS, 1, SFT_STEPS
        ),
        ASKED[2]: walked_with_replay(new, known, share, BRANCH * BATCH_ROWS, BATCH_ROWS, 1, STEPS),
    }
    assert 0 < share < 1 and grown > text
    for asked, batches in expected.items():
        assert [asked.batch(trained, step).numbers.tolist() for step in range(1, len(batches) + 1)] == batches


@pytest.mark.parametrize(
    ("asked", "step", "how"),
    [
        (ASKED[0], 1, "seed"), (ASKED[0], BRANCH + 1, "kept"), (ASKED[1], 1, "start"), (ASKED[2], 1, "start"),
        (ASKED[2], BRANCH + 1, "kept"), (ASKED[2], 10, "kept"),
    ],
)  # fmt: skip
def test_with_the_weights_right_before_a_step_its_loss_is_the_recorded_one(
    trained: TrainedHome, asked: Asked, step: int, how: str
) -> None:
    facts = asked.facts(trained, step)
    assert (facts.weights.how, facts.weights.step, facts.right_before) == (how, step - 1, True)
    [recorded] = [point for point in stage_points(trained.home / "data" / facts.folder) if point["step"] == step]
    assert facts.loss == pytest.approx(recorded["train/loss"], abs=1e-5)
    assert facts.recorded == recorded
    assert facts.cure is None
    assert f"{recorded['train/loss']:.5f} was recorded" in "\n".join(facts.as_lines(1))


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: f"{asked.night} {asked.stage}")
def test_documents_are_told_by_place_name_and_text_and_their_losses_add_up(trained: TrainedHome, asked: Asked) -> None:
    batch, facts = asked.batch(trained, 3), asked.facts(trained, 3)
    labels, segments = batch.rows.labels, batch.rows.segment_ids
    lines = {f"text/{p.name}" if "text" in p.name else f"talk/{p.name}": p.read_text(encoding="utf-8").splitlines()
             for p in trained.raw["text"].parent.iterdir()}  # fmt: skip
    kinds = set()
    for index, row in enumerate(facts.rows):
        assert row.place == index + 1
        assert row.slots == np.count_nonzero(segments[index])
        assert row.targets == np.count_nonzero(labels[index] != -100)
        assert len(row.documents) == segments[index].max()
        assert row.nats == pytest.approx(sum(d.nats for d in row.documents))
        kinds.add((row.is_text, bool(row.read_before)))
        for document in row.documents:
            file, _, line = document.place.rpartition(":")
            raw = lines[file][int(line) - 1]
            assert name_of(row_ids([text_of(raw) or ""])[0]) == document.name
            told = "".join(piece.text for piece in document.pieces if piece.level is not None)
            turns = json.loads(raw).get("conversations")
            for part in re.split(r"<\|\w+\|>", told) if turns else [told.removesuffix("<|endoftext|>")]:
                assert part in (" ".join(turn["content"] for turn in turns) if turns else json.loads(raw)["text"])
            has_context = any(piece.level is None for piece in document.pieces)
            assert has_context or document.targets == document.slots
    assert kinds == {ASKED[0]: {(False, False)}, ASKED[1]: {(False, False), (True, False)},
                     ASKED[2]: {(False, False), (False, True)}}[asked]  # fmt: skip
    losses = [row.loss for row in facts.by_loss]
    assert losses == sorted(losses, reverse=True) and len(losses) == BATCH_ROWS
    assert facts.loss == pytest.approx(sum(row.nats for row in facts.rows) / (labels != -100).sum())


def test_what_was_to_be_expected_is_what_the_stage_reads(trained: TrainedHome) -> None:
    mixed = ASKED[1].facts(trained, 2)
    assert mixed.expected["source"] == pytest.approx({"talk": 1 - TEXT_SHARE, "text": TEXT_SHARE})
    assert sum(mixed.expected["domain"].values()) == pytest.approx(1)
    assert {name for name, _, _ in mixed.shares("source")} == {"talk", "text"}
    assert sum(float(share.rstrip("%")) for _, share, _ in mixed.shares("domain")) == pytest.approx(100, abs=0.5)


def test_a_night_is_found_by_every_name_it_has(trained: TrainedHome) -> None:
    begun = next((trained.home / "data").glob("pretrain@*.partial"))
    runs = [SECOND, f"{SECOND} as people call it", run_id_of(SECOND), run_id_of(SECOND)[:8]]
    runs.append(json.loads((begun / "logs" / BEGUN).read_text())["run_id"])
    for run in runs:
        assert find_model(History(trained.home), run, unfinished=True).trainings[-1].record.path == begun
    with pytest.raises(NightStopped, match="was not finished"):
        find_model(History(trained.home), run_id_of(SECOND))
    [_, tuned] = find_model(History(trained.home), FIRST).trainings
    assert tuned.record.stage == "sft"
    own_run = next(iter(replay(trained.home, tuned.record.run_id, 2)))
    assert "step 2 of 8 of sft" in own_run
    assert "step 2 of 12 of pretrain" in next(iter(replay(trained.home, "1", 2)))


def test_a_step_that_is_still_to_be_made_is_told_as_such(trained: TrainedHome) -> None:
    facts = ASKED[2].facts(trained, STEPS)
    assert (facts.recorded, facts.weights.how, facts.weights.step) == ({}, "kept", BROKEN_AT)
    assert "the curve has no loss of this step" in "\n".join(facts.as_lines(2))


def test_without_weights_from_before_it_says_so_and_what_there_is(changed: TrainedHome) -> None:
    told = "\n".join(replay(changed.home, FIRST, 5, "pretrain"))
    assert "weights of step 12, which is after this one: no checkpoint from before step 5 is kept" in told
    assert "7, 12. Weights from right before are known of step 1, and earlier ones of the steps after 7." in told
    first = ASKED[0].batch(changed, 1).training.record.path
    shutil.rmtree(first / TRUNK)
    told = "\n".join(replay(changed.home, FIRST, 5, "pretrain"))
    assert "keeps the checkpoint of its last step alone, 12." in told
    told = "\n".join(replay(changed.home, FIRST, 5, "sft"))
    assert f"the weights that sft began with, of {first.name}" in told
    told = "\n".join(replay(changed.home, SECOND, 3))  # its parent's trunk is gone
    assert "checkpoints are kept: 7, 9, 10. Ask for a later step, or raise pretrain.keep_checkpoints (2)" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nobody", "--step", "1"], "no run 'nobody'"),
        ([FIRST, "--step", "900"], "of night tiny@first has 12 steps, step 900 asked; ask for one from 1 to 12"),
        ([FIRST, "--step", "0"], "has 12 steps, step 0 asked"),
        ([FIRST, "--step", "-3"], "has 12 steps, step -3 asked"),
        ([FIRST, "--step", "1", "--stage", "x" * 5000], "or has not begun it; ask for one of pretrain, sft"),
        ([SECOND, "--step", "1", "--stage", "sft"], "has no training stage 'sft', or has not begun it"),
        ([FIRST, "--step", "1", "--recipe", "other"], "no run 'tiny@first'"),
        ([FIRST, "--step", "1", "--html", ""], "cannot be written to .: Is a directory"),
        ([FIRST, "--step", "1", "--html", "/dev/null/page.html"], "cannot be written to /dev/null/page.html"),
    ],
)  # fmt: skip
def test_mistakes_end_with_one_bounded_sentence(
    trained: TrainedHome, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("NIGHTSCHOOL_HOME", str(trained.home))
    assert main(["replay", *words]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""
    assert len(printed.err) < MESSAGE_LIMIT + 10


def test_what_is_gone_or_damaged_is_named(changed: TrainedHome) -> None:
    data = changed.home / "data"
    first, second = (asked.batch(changed, 1).training.record.path for asked in (ASKED[0], ASKED[2]))
    (first / "model.json").write_text("{")
    with pytest.raises(NightStopped, match=r"model\.json, the model of the stage, is gone or damaged"):
        list(replay(changed.home, FIRST, 1))
    for name in ("checkpoints", TRUNK):
        shutil.rmtree(second / name)
    shutil.rmtree(first)
    with pytest.raises(NightStopped, match="holds no checkpoint, and what it began with is gone"):
        list(replay(changed.home, SECOND, 3))
    shutil.rmtree(data / changed.packed[1].path.name)
    with pytest.raises(NightStopped, match=r"the tokens that .* was trained on are not in"):
        list(replay(changed.home, SECOND, 3))
    (second / "logs" / BEGUN).write_text('{"stage": 3, "torn')
    with pytest.raises(NightStopped, match="has begun no training that this home knows of; run it again"):
        list(replay(changed.home, SECOND, 3))


def test_several_nights_of_one_name_are_listed(changed: TrainedHome) -> None:
    for name in ("tiny@x", "tiny@y"):
        shutil.copy(changed.home / "nights" / f"{SECOND}.json", changed.home / "nights" / f"{name}.json")
    with pytest.raises(NightStopped, match="3 nights are called 'tiny@second as people call it'; name one of tiny@"):
        find_model(History(changed.home), f"{SECOND} as people call it")


def test_the_page_holds_all_rows_and_the_terminal_the_first(trained: TrainedHome, tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    lines = list(replay(trained.home, FIRST, 4, "sft", top=2, page=path))
    assert lines[-1] == f"page  {path}"
    assert sum("packed row " in line for line in lines[1:]) == 2
    assert "2 more rows: --top 4; with their whole text: --html FILE" in lines
    page = read_page(path.read_text(encoding="utf-8"))
    assert "Rows of the batch that are not shown: 2." in page.text["en"]
    list(replay(trained.home, FIRST, 4, "sft", page=path))
    page = read_page(path.read_text(encoding="utf-8"))
    facts = ASKED[1].facts(trained, 4)
    for document in (document for row in facts.rows for document in row.documents):
        for text in ("".join(piece.text for piece in document.pieces), document.name, document.place):
            assert text in page.text["en"] and text in page.text["zh-CN"]


def test_a_row_that_is_not_there_is_an_error(trained: TrainedHome) -> None:
    packed = trained.packed[0]
    rows = packed.counts["chat_train_rows"]
    training = TrainingInput("chat", packed.path, Reading(rows, 1, 1, 1))
    assert segments_of_rows(training, np.array([], dtype=int)) == {}
    assert list(segments_of_rows(training, np.array([rows - 1, 0, 0]))) == [0, rows - 1]
    with pytest.raises(ValueError, match=f"packed rows -1 to {rows} of {rows}"):
        segments_of_rows(training, np.array([-1, rows]))
