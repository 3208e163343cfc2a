"""The page of a batch: what it says, with hostile text in it, and in the terminal's lines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.pages.nights.batch import LEVELS, BatchFacts, BatchRow, Document, Piece, WeightsUsed, write_batch_page
from tests.tasks.pages.nights.reading import PageReader, read_page

HOSTILE = "</style></script><script>alert('x')</script>\" onload=\"y' & \u202etfel \x00 \ud800 <b>bold</b>\n  next"


def document(text: str, loss: float, context: str = "") -> Document:
    pieces = [Piece(context, None)] * bool(context) + [Piece(text, min(LEVELS - 1, int(loss)))]
    return Document(
        place=f"{text}:3", name=text, source=text, domain=text, slots=len(text) + len(context), targets=len(text),
        nats=loss * len(text), pieces=pieces,
    )  # fmt: skip


def row(number: int, *documents: Document, **changes: Any) -> BatchRow:
    return replace(BatchRow(place=number, number=number, shard="s", row=number, documents=documents), **changes)


def batch(text: str = "words", **changes: Any) -> BatchFacts:
    rows = [
        row(1, document(text, 1.0), document(text, 3.0, context=text)),
        row(2, document(text, 9.0), is_text=True),
        row(3, replace(document(text, 0.0), targets=0, pieces=[Piece(text, None)]), read_before=2),
    ]
    weights = WeightsUsed(how="kept", step=8, kept=(8, 12))
    facts = BatchFacts(
        model=text, stage=text, folder=text, step=9, num_steps=12, rows=rows, weights=weights,
        expected={"source": {text: 0.5, "never here": 0.5}, "domain": {}},
        recorded={"step": 9, "train/loss": 4.5, "train/lr": 0.005, "train/grad_norm": 0.25},
    )  # fmt: skip
    return replace(facts, **changes)


def written(facts: BatchFacts, folder: Path) -> PageReader:
    return read_page(write_batch_page(folder / "batch.html", facts).read_text(encoding="utf-8"))


def test_it_is_in_both_languages_with_the_highest_loss_first(tmp_path: Path) -> None:
    page = written(batch(), tmp_path)
    english, chinese = page.text["en"], page.text["zh-CN"]
    assert "step 9 of words" in english and "words 第 9 步" in chinese
    assert english.index("Packed row 2") < english.index("Packed row 1") < english.index("Packed row 3")
    assert "text of pretraining" in english and "read before by its trunk, 2 ×" in english
    assert "预训练文本" in chinese and "主干此前读过 2 次" in chinese
    assert "Learning rate 0.005, gradient norm 0.25." in english
    assert page.source.count('<details class="row"') == 3
    assert '<span class="context">words</span><span class="n3">words</span>' in page.source
    assert '<span class="n7">words</span>' in page.source


def test_no_text_breaks_out_of_the_page(tmp_path: Path) -> None:
    page = written(batch(HOSTILE), tmp_path)
    assert "<script" not in page.source and "<b>bold" not in page.source
    assert not {"\u202e", "\x00", "\ud800"} & set(page.source)
    assert "bold&lt;/b&gt;\n  next</span>" in page.source, "lines and spaces of a document stay"
    lines = "\n".join(batch(HOSTILE).as_lines(5))
    assert not {"\u202e", "\x00", "\ud800"} & set(lines)


@pytest.mark.parametrize(
    ("weights", "said", "cure"),
    [
        (WeightsUsed(how="kept", step=4, kept=(4,)), "weights of step 4, the newest", None),
        (WeightsUsed(how="start", step=0, began_with="f@1", kept=(12,)), "of f@1", "its last step alone, 12."),
        (WeightsUsed(how="seed", step=0, ended=False, keep_setting="a", keep_checkpoints=2), "the seed", "raise a (2)"),
        (WeightsUsed(how="after", step=12, kept=(10, 12)), "step 12, which is after", "of the steps after 10."),
        (WeightsUsed(how="after", step=12, kept=(12,)), "step 12, which is after", "its last step alone, 12."),
    ],
)  # fmt: skip
def test_it_is_told_whose_losses_these_are(weights: WeightsUsed, said: str, cure: str | None) -> None:
    facts = batch(weights=weights)
    assert said in facts.scored.as_plain("en")
    assert (cure or "") in (facts.cure.as_plain("en") if facts.cure else "")
    assert (facts.cure is None) == (cure is None)
    assert "with these weights" in facts.compared.as_plain("en")


def test_weights_right_before_are_compared_and_need_no_cure() -> None:
    exact = batch(weights=WeightsUsed(how="start", step=0, began_with="f@1"), step=1)
    assert exact.cure is None
    assert exact.compared.as_plain("en").endswith("a difference of 0.17.")
    assert "no loss of this step" in batch(recorded={}).compared.as_plain("en")
    assert "not made yet" in batch(recorded={}).measured.as_plain("en")


def test_the_terminal_shows_some_rows_and_says_how_many_there_are() -> None:
    lines = list(batch().as_lines(1))
    assert lines[0] == "words: step 9 of 12 of words (words), 3 packed rows, 15 targets"
    assert "9.000  packed row 2 (s row 2), place 2 of the batch, 5 targets, text of pretraining" in lines
    assert lines[-1] == "2 more rows: --top 3; with their whole text: --html FILE"
    every = list(batch(top=3).as_lines(1))
    assert "–  packed row 3 (s row 3), place 3 of the batch, 0 targets, read before by its trunk, 2 ×" in every
    assert "           words«words»" in every
    assert "           words" in every
    crowded = list(batch(rows=[row(1, *[document("words", 1.0)] * 6)]).as_lines(1))
    assert crowded[-1] == "    and 2 more documents"


def test_of_context_the_end_is_shown_and_a_text_without_targets_as_it_is() -> None:
    assert document("answer", 1.0, context="x" * 90 + " the end").excerpt == f"…{'x' * 32} the end«answer»"
    assert replace(document("a", 1.0), targets=0).excerpt == "a"
    assert len(document("words " * 90, 1.0).excerpt) == 110


def test_shares_of_what_is_in_neither_are_dashes_and_nothing() -> None:
    assert batch().shares("source") == [("never here", "0.0%", "50.0%"), ("words", "100.0%", "50.0%")]
    assert batch().shares("domain") == [("words", "100.0%", "–")]
