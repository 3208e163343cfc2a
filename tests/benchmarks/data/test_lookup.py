"""The home that the benchmark of questions writes is one that the questions can read."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.data import lookup
from tasks.questions.answers import who_ate, why_row
from tasks.questions.history import History


@pytest.mark.slow
def test_every_question_of_the_benchmark_has_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "BAD_PER_PART", 10)
    monkeypatch.setattr(lookup, "QUERIES", 2)
    lookup.make_home(tmp_path, num_rows=2_000, num_parts=10)
    kinds = dict(lookup.questions(tmp_path))
    assert {"by name: train", "by line: train", "by line: quarantined", "by text: quarantined"} <= set(kinds)
    for queries in kinds.values():
        for query in queries:
            assert why_row(tmp_path, query, lookup.RECIPE)
    assert who_ate(tmp_path, next(History(tmp_path).published("pretrain"))["run_id"])
