from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.training.shapes import SHAPES, Shape
from benchmarks.training.train_step import arguments, in_turns, table
from benchmarks.training.ways import WAYS


def test_every_way_and_shape_can_be_asked_for_by_name() -> None:
    given = arguments(["--ways", ",".join(WAYS), "--shapes", ",".join(SHAPES)])
    assert given.ways == list(WAYS)
    assert given.shapes == list(SHAPES)


@pytest.mark.parametrize("argv", [["--ways", "theirs"], ["--shapes", "huge"], ["--ways", "MiniMind bf16"]])
def test_what_cannot_be_asked_for_is_refused(argv: list[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(argv)


def test_a_folder_without_minimind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(["--minimind", str(tmp_path)])
    assert "model_minimind.py" in capsys.readouterr().err


def test_ratios_and_shares_are_of_medians() -> None:
    shape = Shape.of("small")
    flops = shape.model.train_flops_per_token(shape.tokens)
    rates = {"ours": [100.0, 400.0, 200.0], "other": [50.0, 40.0, 60.0], "peak": [flops * 1_000] * 3}
    ours, other = list(table(shape, rates, {"ours": 60.0, "other": 70.0}))[2:]
    assert ours.split()[1:6] == ["200", "100", "400", "1.00", "20%"]
    assert ours.split()[6] == "60"
    assert other.split()[1:] == ["50", "40", "60", "4.00", "5%", "70"]


def test_a_contestant_does_a_step_for_each_word() -> None:
    shape = Shape.of("small")
    shape = replace(shape, model=replace(shape.model, num_hidden_layers=1, vocab_size=300), rows=1, tokens=16)
    rates, memory = in_turns(shape, ["ours", "ours dense"], None, rounds=1)
    assert {name: len(found) for name, found in rates.items()} == {"ours": 1, "ours dense": 1, "peak": 1}
    assert min(rate for found in rates.values() for rate in found) > 0
    assert all(megabytes > 1 for megabytes in memory.values())
