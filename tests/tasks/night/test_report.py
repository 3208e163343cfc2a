"""The summary leaves nothing out, and no text of a model breaks its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.night.report import NightReport
from tests.tasks.pages.readers import cells_of_markdown
from tests.tasks.rows import stage_record

STAGES = ("validate", "split", "tokens", "pretrain", "sft", "evaluate", "register")
REASON = "better: -0.0123 bits per byte against the champion on 412 documents"


def night(chats: list[dict[str, str]] | None = None, **changes: Any) -> NightReport:
    records = [
        stage_record(
            Path(f"{stage}@1"), run_id=f"{number}run-of-{stage}", headline=f"{stage} did well", seconds=number + 0.26
        )
        for number, stage in enumerate(STAGES)
    ]
    values: dict[str, Any] = {
        "recipe": "demo", "key": "0123456789ab", "records": records,
        "decision": {"promoted": True, "reason": REASON, "version": 7},
        "chats": chats if chats is not None else [{"prompt": "Hello!", "reply": "Hi there."}],
        "export": Path("/srv/nights/data/register@1/model"), "tracking_uri": "sqlite:////srv/nights/mlflow.db",
        "tracking_ui": "http://127.0.0.1:5000",
        "run_id": "parent-run-id", "experiment_id": "3",
    }  # fmt: skip
    return NightReport(**values | changes)


def line_with(text: str, part: str) -> str:
    [line] = [line for line in text.splitlines() if part in line]
    return line


def test_the_text_is_a_screen_with_verdict_times_a_chat_and_places() -> None:
    page = Path("/srv/nights/pages/demo@0123456789ab.html")
    text = night([{"prompt": f"question {n}", "reply": f"answer {n}"} for n in range(3)], page=page).as_text()
    assert len(text.splitlines()) <= 24
    took = line_with(text, "took ")
    for number, stage in enumerate(STAGES):
        assert f"{stage} {number + 0.3:.1f} s" in took
    assert line_with(text, "PROMOTED") == "PROMOTED  version 7"
    assert line_with(text, "question 0").split()[0] == "user" and "question 1" not in text
    assert line_with(text, "answer 0").split()[0] == "assistant"
    assert line_with(text, str(page)).split()[0] == "page"
    for part in (
        "demo",
        "0123456789ab",
        REASON,
        "/srv/nights/data/register@1/model",
        "sqlite:////srv/nights/mlflow.db",
        "parent-run-id",
    ):
        assert part in text


def test_without_a_page_none_is_named() -> None:
    assert "\n  page " not in night().as_text() and "Page:" not in night().as_markdown()


def test_the_markdown_leads_to_the_page_where_mlflow_shows_it() -> None:
    markdown = night(page=Path("/srv/nights/pages/demo@0123456789ab.html")).as_markdown()
    address = "http://127.0.0.1:5000/#/experiments/3/runs/parent-run-id/artifactPath/demo@0123456789ab.html"
    assert f"]({address})" in line_with(markdown, "Page: ")


def test_stages_come_in_the_order_they_ran() -> None:
    markdown, took = night().as_markdown(), line_with(night().as_text(), "took ")
    for places in ([markdown.index(f"{stage} did well") for stage in STAGES], [took.index(f"{s} ") for s in STAGES]):
        assert places == sorted(places)


@pytest.mark.parametrize(
    ("promoted", "words"), [(True, ("PROMOTED", "Promoted")), (False, ("NOT PROMOTED", "Not promoted"))]
)
def test_the_decision_is_written_either_way(promoted: bool, words: tuple[str, str]) -> None:
    report = night(decision={"promoted": promoted, "reason": REASON, "version": 12})
    assert f"{words[0]}  version 12" in report.as_text().splitlines()
    assert line_with(report.as_markdown(), "version 12") == f"**{words[1]}**, version 12: {REASON}"


def test_what_was_decided_then_is_told_as_such_beside_what_holds_now() -> None:
    decision = {"promoted": True, "reason": REASON, "version": 6, "waits": False, "at": "2026-11-28T21:51:19+00:00"}
    now = "version 6 was rolled back by hand; champion now is version 5 (by hand)"
    report = night(decision=decision, now=now)
    lines = report.as_text().splitlines()
    at = lines.index("WAS PROMOTED  version 6, decided 2026-11-28T21:51:19+00:00")
    assert lines[at + 1 : at + 3] == [f"  {REASON}", f"  {now}"]
    assert now in report.as_markdown() and "**Was promoted**, version 6, decided 2026" in report.as_markdown()


@pytest.mark.parametrize("waits", [True, False])
def test_what_waits_for_a_person_comes_with_the_command(waits: bool) -> None:
    decision = {"promoted": False, "reason": REASON, "version": 6, "waits": waits}
    report = night(decision=decision)
    for told in (report.as_text(), report.as_markdown()):
        assert ("python -m flows promote demo 6" in told) == waits


def test_a_reused_stage_is_marked_instead_of_timed() -> None:
    records = [stage_record(Path("split@1"), headline="done before", seconds=99.0, reused=True)]
    report = night(records=records)
    assert line_with(report.as_text(), "took ").split(maxsplit=1)[1] == "1 stage reused"
    assert "| reused |" in line_with(report.as_markdown(), "done before")
    assert "99.0" not in report.as_text() + report.as_markdown()


def test_silence_is_shown_as_such() -> None:
    assert "assistant  (silence)" in night([{"prompt": "Hello!", "reply": " \n "}]).as_text()


def test_markdown_links_every_run() -> None:
    ui = "http://10.0.0.5:8080"
    report = night(tracking_ui=ui)
    markdown = report.as_markdown()
    for record in report.records:
        link = f"[{record.run_id[:8]}]({ui}/#/experiments/3/runs/{record.run_id})"
        assert line_with(markdown, record.headline).endswith(f"| {link} |")
    assert f"Night: [parent-r]({ui}/#/experiments/3/runs/parent-run-id)" in markdown.splitlines()


chat_text = st.text(alphabet="ab |\n\r\t*`", max_size=12)


@settings(max_examples=60)
@given(prompt=chat_text, reply=chat_text)
def test_no_chat_breaks_the_table(prompt: str, reply: str) -> None:
    lines = night([{"prompt": prompt, "reply": reply}]).as_markdown().rstrip("\n").splitlines()
    assert lines[-2] == "|---|---|"
    assert cells_of_markdown("\n".join(lines[-3:]))[1] == [" ".join(prompt.split()), " ".join(reply.split())]


@settings(max_examples=60)
@given(prompt=chat_text, reply=chat_text)
def test_every_chat_is_two_lines_of_text(prompt: str, reply: str) -> None:
    with_chat, without = (night(chats).as_text().splitlines() for chats in ([{"prompt": prompt, "reply": reply}], []))
    assert len(with_chat) == len(without) + 2


def test_a_source_that_lost_most_of_its_rows_is_named() -> None:
    sentence = "source tales: 299 of 300 rows are near duplicates of others (deduplicate); keep more"
    report = night(losses=(sentence,))
    assert f"lost on the way: {sentence}" in report.as_text()
    assert sentence in report.as_markdown()
    assert "lost" not in night().as_text()


def test_the_validation_side_is_told_in_both_forms() -> None:
    sentences = ("version v2 0123456789ab: 103 documents", "documents added since the version before: chat/chat +20")
    report = night(validation=sentences)
    for sentence in sentences:
        assert sentence in report.as_text() and sentence in report.as_markdown()
    assert "validation: version" in report.as_text() and "validation" not in night().as_text()
