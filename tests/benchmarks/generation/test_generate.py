from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.generation import generate
from benchmarks.generation.generate import (
    alike,
    arguments,
    export_random,
    generator_of,
    in_turns,
    prompts_of,
    table,
    verdicts,
)
from benchmarks.training.contestants import Work, contestant
from tests.model.tiny import tiny_config


@pytest.mark.parametrize(
    "argv", [["--ways", "theirs"], ["--ways", "MiniMind"], ["--minimind", "nowhere"], ["--model", "huge"]]
)
def test_what_cannot_be_asked_for_is_refused(argv: list[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(argv)


def test_ours_and_transformers_generate_the_same_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(generate.MODELS, "tiny", replace(tiny_config(), max_position_embeddings=64))
    ids = export_random("tiny", tmp_path)
    names = ("ours", "transformers sdpa, grouped_mm")
    with ExitStack() as stack:
        ways = {name: stack.enter_context(contestant(name, generator_of, name, tmp_path, None)) for name in names}
        rates, same = in_turns(ways, prompts_of(ids, 2, 8), 6, 1)
    assert {name: len(found) for name, found in rates.items()} == dict.fromkeys(ways, 1)
    assert set(same.values()) == {1.0}


def test_a_way_that_stops_early_is_no_contestant() -> None:
    ways = {"ours": lambda _, count: Work([[1] * count], 1.0, 1), "lazy": lambda _, count: Work([[1]], 1.0, 1)}
    with pytest.raises(ValueError, match="lazy"):
        in_turns(ways, [[1, 2]], 4, 1)


def test_after_the_first_other_id_rows_are_different_texts() -> None:
    assert alike([[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 9, 3, 4], [5, 6, 7, 8]]) == 5 / 8


def test_ratios_are_to_the_best_of_each_family() -> None:
    rates = {"ours": [90.0, 100.0, 110.0], "ours bf16": [99.0] * 3, "transformers a": [40.0] * 3}
    rates |= {"transformers b": [51.0] * 3, "MiniMind": [10.0] * 3}
    (first, second) = verdicts(1, rates)
    assert (first[1], second[1]) == (False, True)
    assert "ours has 1.96 times the best of transformers (transformers b)" in first[0]
    lines = list(table(1, rates, dict.fromkeys(rates, 0.5)))
    assert lines[2].split() == ["ours", "100", "90", "110", "1.00", "50%"]
