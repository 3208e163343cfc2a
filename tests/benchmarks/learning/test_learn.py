"""Scores against those of the evaluate stage, the training clock under a fake clock, the report of made-up runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.learning import learn, scoring
from benchmarks.learning.learn import (
    CHECKOUTS,
    DEFAULT_SIDES,
    SEARCH_SEED,
    SEARCHED_MULTIPLIERS,
    SEARCHED_ROWS,
    arguments,
    best_of,
    finished,
    identity,
    jobs,
    searched,
)
from benchmarks.learning.report import DENSE, MINIMIND_SIDES, NANOCHAT, OURS, SIXTH, Result, report
from benchmarks.learning.scoring import IGNORED, Chunks, TrainingClock, bits_per_byte, marked_rows, nats_of, plain_rows
from benchmarks.learning.text import chunks_of, recipe_of
from model.network.transformer import Transformer
from model.tokens.packing import Segments, pack
from model.tokens.tokenizer import train_tokenizer
from model.training.scoring import score
from tests.model.tiny import TEXTS, tiny_config

ROW_TOKENS = 24
TEXT = {"train_documents": 1, "train_bytes": 1, "train_tokens": 1, "val_targets": 1, "curve_targets": 1}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Of MiniMind and of nanochat at once."""
    for needed in CHECKOUTS.values():
        (tmp_path / needed).parent.mkdir()
        (tmp_path / needed).touch()
    return tmp_path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    train_tokenizer(TEXTS, 300).save(str(folder / "tokenizer.json"))
    return folder


def result(side: str, bpb: float, curve: list[list[float]] | None = None, seed: int = 1, **changes: Any) -> Result:
    values = {
        "identity": {"side": side, "seed": seed}, "bpb": bpb, "firsts_bpb": bpb, "curve": curve or [[60.0, 9, bpb]],
        "optimizer_steps": 9, "tokens": 90, "trained_seconds": 60.0, "cpu_seconds": 59.0, "set_up_seconds": 1.0,
        "total_parameters": 200, "active_parameters": 100,
    }  # fmt: skip
    return Result(**values | changes)


def verdicts(results: list[Result]) -> list[str]:
    return [line.split()[0] for line in report(results, TEXT)[0] if line.startswith(("met", "missed"))]


def test_the_score_is_that_of_the_evaluate_stage(folder: Path) -> None:
    """Chunks alone, padded and in batches, give the nats of the same chunks packed into rows behind a mask."""
    chunks = chunks_of([text * 3 for text in TEXTS], folder, ROW_TOKENS)
    model = Transformer(tiny_config(), seed=1)
    numbers = np.arange(len(chunks.lengths))
    whole = Segments(chunks.inputs, chunks.labels.astype(np.int32), chunks.lengths, numbers)
    packed = pack(whole, ROW_TOKENS).fill_rows(ROW_TOKENS, 0, np.uint16)
    expected = score(model, packed, precision="fp32").sum(dtype=np.float64)
    model.train()
    nats = nats_of(plain_rows(chunks), model, model)
    assert nats.sum() == pytest.approx(expected, rel=1e-5)
    assert model.training
    num_bytes = int(chunks.label_bytes.sum())
    assert num_bytes == sum(len((text * 3).encode()) for text in TEXTS)
    assert bits_per_byte(nats, chunks) == pytest.approx(expected / np.log(2) / num_bytes, rel=1e-5)


def test_each_chunk_fits_and_the_first_ones_are_the_starts_of_documents(folder: Path) -> None:
    chunks = chunks_of([text * 3 for text in TEXTS], folder, ROW_TOKENS)
    assert chunks.lengths.max() == ROW_TOKENS - 1
    assert chunks.starts_document.sum() == len(TEXTS)
    firsts = [inputs[0] for inputs, _, starts in chunks if starts]
    assert set(firsts) == {0}
    ones = np.ones(len(chunks.lengths))
    num_bytes = sum(
        int(chunks.label_bytes[end - length : end].sum())
        for end, length, starts in zip(np.cumsum(chunks.lengths), chunks.lengths, chunks.starts_document, strict=True)
        if starts
    )
    assert bits_per_byte(ones, chunks, firsts_only=True) == pytest.approx(len(TEXTS) / np.log(2) / num_bytes)


def test_a_model_with_marks_of_its_own_has_the_same_targets(folder: Path) -> None:
    chunks = chunks_of([text * 3 for text in TEXTS], folder, ROW_TOKENS)
    for (inputs, labels), (own_inputs, own_labels, starts) in zip(marked_rows(chunks, 0, 1, 2), chunks, strict=True):
        assert inputs[0] == 1
        assert len(inputs) == len(labels) <= ROW_TOKENS
        wanted = labels != IGNORED
        assert np.array_equal(np.where(labels[wanted] == 2, 0, labels[wanted]), own_labels)
        assert np.array_equal(inputs[1:], own_inputs[1:] if starts else own_inputs)


def test_a_head_is_whole_chunks_and_survives_the_disk(folder: Path, tmp_path: Path) -> None:
    chunks = chunks_of([text * 3 for text in TEXTS], folder, ROW_TOKENS)
    head = chunks.head(30)
    assert len(head.lengths) == 2
    head.save(tmp_path / "head.npz")
    again = Chunks.load(tmp_path / "head.npz")
    assert all(np.array_equal(value, asdict(again)[name]) for name, value in asdict(head).items())
    assert len(chunks.head(10**9).lengths) == len(chunks.lengths)


def test_the_clock_counts_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(scoring.time, "perf_counter", lambda: now[0])

    def measure() -> float:
        now[0] += 1_000.0
        return 2.0

    clock, steps = TrainingClock(96.0, measure), 0
    while clock.go_on(steps):
        now[0] += 3.0
        steps += 1
    assert (steps, clock.trained_seconds) == (32, 96.0)
    assert now[0] == 96.0 + 1_000.0 * len(clock.curve)
    seconds = [point[0] for point in clock.curve]
    # Sixteenths are 6 s, the thirty-second 3, the twenty-fourth 4; the twelfth (8) and sixth (16) are met a step late.
    assert seconds == [3.0, 6.0, 9.0, *(6.0 * n for n in range(2, 16))]
    assert clock.expected_steps(steps) == steps + 1


@pytest.mark.parametrize(("bpb", "seconds", "expected"), [
    (1.0, 10.0, ["met", "met", "met"]), (1.0, 11.0, ["met", "met", "missed"]), (3.0, 10.0, ["missed", "met", "met"]),
])  # fmt: skip
def test_wins_and_time_are_judged(bpb: float, seconds: float, expected: list[str]) -> None:
    ours = result(OURS, bpb, [[5.0, 1, 2.5], [seconds, 2, 2.0], [60.0, 9, bpb]])
    assert verdicts([ours, result(MINIMIND_SIDES[0], 2.0)]) == expected


def test_a_run_of_a_sixth_of_the_time_counts_as_well() -> None:
    slow = result(OURS, 1.0, [[60.0, 9, 1.0]])
    other = result(MINIMIND_SIDES[1], 2.0)
    assert verdicts([slow, result(SIXTH, 1.9), other]) == ["met", "met", "met"]
    assert verdicts([slow, result(SIXTH, 2.1), other]) == ["met", "met", "missed"]


def test_unlike_sizes_are_reported() -> None:
    assert verdicts([result(OURS, 1.0), result(MINIMIND_SIDES[0], 2.0, active_parameters=90)])[1] == "missed"


def test_a_loss_for_one_seed_is_a_miss() -> None:
    found = [result(OURS, 1.0), result(MINIMIND_SIDES[0], 2.0), result(OURS, 2.1, seed=2),
             result(MINIMIND_SIDES[0], 2.0, seed=2)]  # fmt: skip
    assert verdicts(found)[0] == "missed"


def test_finished_runs_are_not_run_again(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, int]] = []

    def run_job(job: scoring.Job, _: Path) -> dict[str, Any]:
        asked.append((job.side, job.seed))
        return {name: value for name, value in asdict(result(job.side, 1.0)).items() if name != "identity"}

    monkeypatch.setattr(learn, "run_job", run_job)
    text = TEXT | {"folder": "somewhere", "digest": "text", "curve_tokens": 5}
    monkeypatch.setattr(learn, "prepared", lambda given, cache: text)
    command = [
        "--minimind",
        str(checkout),
        "--nanochat",
        str(checkout),
        "--work",
        str(tmp_path / "work"),
        "--out",
        str(tmp_path / "out.jsonl"),
    ]
    learn.main([*command, "--seeds", "1"])
    search = len(SEARCHED_ROWS) * len(SEARCHED_MULTIPLIERS)
    assert asked[:search] == [(NANOCHAT, SEARCH_SEED)] * search
    del asked[:search]
    assert asked == [(side, 1) for side in DEFAULT_SIDES]
    with (tmp_path / "out.jsonl").open("a") as stream:
        stream.write('{"identity": {"cut')
    learn.main([*command, "--seeds", "2"])
    assert asked[len(DEFAULT_SIDES) :] == [(side, 2) for side in DEFAULT_SIDES]
    learn.main([*command, "--seeds", "1", "--minutes", "1"])
    assert len(asked) == 3 * len(DEFAULT_SIDES), "the search is done"
    assert "met " in capsys.readouterr().out


def test_our_recipe_can_be_tuned_and_theirs_stays(checkout: Path) -> None:
    given = arguments(["--minimind", str(checkout), "--recipe", '{"batch_rows": 7}', "--seeds", "1"])
    made = list(jobs(given, Path("text"), 5, {}))
    rows = {job.side: job.options["batch_rows"] for job in made}
    assert rows == {OURS: 7, SIXTH: 7, DENSE: 7, MINIMIND_SIDES[0]: 32, MINIMIND_SIDES[1]: 32}
    job = made[0]
    assert identity(job, "d") == json.loads(json.dumps(identity(job, "d")))


@pytest.mark.parametrize(("name", "needed"), CHECKOUTS.items())
def test_a_folder_without_the_checkout_is_refused(
    name: str, needed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        arguments([f"--{name}", str(tmp_path)])
    assert needed in capsys.readouterr().err


def test_a_side_without_its_checkout_is_refused_if_named_and_else_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert arguments([]).sides == [OURS, SIXTH, DENSE]
    with pytest.raises(SystemExit):
        arguments(["--sides", f"{OURS};{NANOCHAT}"])
    assert "nanochat without a checkout" in capsys.readouterr().err


def test_nanochat_races_with_the_batch_and_rates_of_its_lowest_figure(checkout: Path) -> None:
    given = arguments(["--nanochat", str(checkout), "--seeds", "1"])
    tried = list(searched(given, Path("text"), 5))
    assert len({json.dumps(job.options) for job in tried}) == len(SEARCHED_ROWS) * len(SEARCHED_MULTIPLIERS)
    results = [result(NANOCHAT, 2.0 - (n == 5), identity=identity(job, "d")) for n, job in enumerate(tried)]
    best = best_of(results)
    assert best == {name: tried[5].options[name] for name in best}
    (race,) = (job for job in jobs(given, Path("text"), 5, best) if job.side == NANOCHAT)
    assert race.options == tried[5].options
    assert (race.seed, race.budget_seconds) == (1, 480.0)


def test_nanochat_must_be_beaten_in_every_seed_and_not_in_a_sixth_of_the_time() -> None:
    assert verdicts([result(OURS, 1.0), result(NANOCHAT, 2.0)]) == ["met", "met"]
    assert verdicts([result(OURS, 2.1), result(NANOCHAT, 2.0)]) == ["missed", "met"]


def test_named_sources_stand_in_for_the_demo_s_pretraining_text() -> None:
    recipe = recipe_of(["pretrain-code"], 128)
    assert [s.location for s in recipe.sources if s.kind == "pretrain"] == ["builtin:pretrain-code"]
    assert recipe.data.sequence_length_tokens == 128
    assert len([s for s in recipe_of([], 128).sources if s.kind == "pretrain"]) == 3
    assert finished(Path("nowhere.jsonl")) == []
