"""What a model was trained on, and the many names by which it is asked for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from data.rows.keys import name_of, row_ids
from data.rows.parts import KINDS
from data.tokens.shards import open_segments
from model.tokens.order import TextReplay, rows_of_step
from tasks.errors import NightStopped, StoreAway
from tasks.home.journal import Journal
from tasks.questions.answers import who_ate, who_ate_rows
from tasks.questions.history import History
from tasks.questions.lineage import find_model
from tasks.questions.quarantine import text_of
from tests.lived_home import REPLAY_SHARE, STEPS, LivedHome, run_id_of, trained_stage


def reference_rows(lived: LivedHome, version: int) -> Counter[str]:
    """Name → tokens read, step by step."""
    packed, data = lived.nights[version - 1][3], History(lived.home).data_of(lived.nights[version - 1][3])
    text_rows, chat_rows = (packed.counts[f"{kind}_train_rows"] for kind in ("pretrain", "chat"))
    first_steps, last_steps = STEPS[version - 1]
    read = [("pretrain", row) for n in range(first_steps) for row in rows_of_step(text_rows, 4, version, n).tolist()]
    replay = TextReplay(chat_rows, text_rows, REPLAY_SHARE) if version == 2 else None
    num_rows = chat_rows + text_rows if replay else chat_rows
    for step in range(last_steps):
        for row in rows_of_step(num_rows, 4, version, step, replay).tolist():
            read.append(("chat", row) if row < chat_rows else ("pretrain", row - chat_rows))
    segments = {k: open_segments(packed.path, k, "train").partition_by("row", as_dict=True) for k in KINDS}
    tokens: Counter[str] = Counter()
    for kind, row in read:
        for length, document in segments[kind][row,].select("length", "document").iter_rows():
            tokens[data.corpus.place(document).name] += length
    return tokens


@pytest.mark.parametrize("version", [1, 2])
def test_all_rows_of_a_model_are_those_that_its_steps_touched(lived: LivedHome, version: int) -> None:
    rows = [json.loads(line) for some in who_ate_rows(lived.home, str(version)) for line in some.splitlines()]
    expected = reference_rows(lived, version)
    assert {row["name"]: round(row["tokens"] * row["times"]) for row in rows} == expected
    assert len(rows) == len(expected)
    for row in rows:
        raw = lived.written[row["file"]][row["line"] - 1]
        assert name_of(row_ids([text_of(raw.decode()) or ""])[0]) == row["name"]
        assert (lived.raw / Path(row["file"]).name).read_bytes()[row["byte_offset"] :].startswith(raw)


@pytest.mark.parametrize("version", [1, 2])
def test_what_a_model_ate_and_never_saw_is_all_there_is(lived: LivedHome, version: int) -> None:
    answer = who_ate(lived.home, str(version))
    rows = [json.loads(line) for some in who_ate_rows(lived.home, str(version)) for line in some.splitlines()]
    expected = reference_rows(lived, version)
    for source, kind in {(row["source"], row["kind"]) for row in rows}:
        names = {row["name"] for row in rows if row["source"] == source}
        tokens = sum(expected[name] for name in names)
        assert f"  {kind:<8}  {source}: {len(names):,} rows, {tokens:,} tokens" in answer
    [never] = [line for line in answer if line.startswith("never seen")]
    numbers = [int(word.replace(",", "")) for word in never.split() if word.replace(",", "").isdigit()]
    counts = lived.nights[version - 1][1].counts
    assert numbers[:2] == [counts["read"] - len(rows), counts["read"]]
    assert sum(numbers[2:]) == numbers[0]
    assert min(numbers) >= 0
    shown = [line.split()[0] for line in answer[answer.index(never) + 2 :]]
    assert shown == [row["name"] for row in rows[:20]]


def test_a_model_is_found_by_every_name_it_has(lived: LivedHome) -> None:
    """A version by its register stage or the night's note, a run by its beginning."""
    second = [trained_stage(lived, stage, 2) for stage in ("pretrain", "sft")]
    for run in ("2", run_id_of("night 2"), run_id_of("night 2")[:8], second[1].run_id, second[1].run_id[:9]):
        model = find_model(History(lived.home), run)
        assert [t.record.digest for t in model.trainings] == [r.digest for r in second]
    [only] = find_model(History(lived.home), second[0].run_id).trainings
    assert only.record.digest == second[0].digest


def test_the_champion_is_whom_the_registry_names(lived: LivedHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal says version 1; somebody moved the alias."""
    monkeypatch.setattr("tasks.questions.lineage.registered_champion", lambda home, recipe: {"tiny": 2}[recipe])
    assert find_model(History(lived.home), "champion").name == "champion of tiny, version 2"
    monkeypatch.setattr("tasks.questions.lineage.registered_champion", lambda home, recipe: None)
    with pytest.raises(NightStopped, match="no model of recipe tiny is champion"):
        find_model(History(lived.home), "champion")


def test_a_home_of_an_earlier_release_says_when_its_versions_are_taken_over(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a version that was taken over is the model it was, under its new number."""
    monkeypatch.setattr("tasks.questions.lineage.registered_champion", lambda home, recipe: None)
    Journal(copied).note(event="decided", version=5, promoted=True)
    with pytest.raises(NightStopped, match="taken over by the recipe's next night"):
        find_model(History(copied), "champion")
    second = find_model(History(copied), "2").trainings
    Journal(copied).note(event="adopted", recipe="tiny", version=1, digest=second[-1].record.digest, promoted=True)
    adopted = find_model(History(copied), "1", "tiny")
    assert adopted.name == "version 1 of tiny"
    assert [t.record.path for t in adopted.trainings] == [t.record.path for t in second]


def test_without_the_registry_the_journal_is_asked_and_named(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(home: Path, recipe: str) -> int:
        raise StoreAway("no answer")

    monkeypatch.setattr("tasks.questions.lineage.registered_champion", away)
    remark = "by the journal, as the model registry did not answer"
    assert find_model(History(copied), "champion").name == f"champion of tiny, version 1 {remark}"
    with (copied / "journal.jsonl").open("a") as stream:
        stream.write('{"at": "cut o\n')
    Journal(copied).note(event="promoted by hand", recipe="tiny", version=2, before=1)
    Journal(copied).note(event="decided", recipe="another", version=7, promoted=True)
    assert find_model(History(copied), "champion").name == f"champion of tiny, version 2 {remark}"


def test_a_beginning_of_several_runs_is_refused(copied: Path) -> None:
    note = json.loads((copied / "nights" / "tiny@2.json").read_text())
    for end in "01":
        (copied / "nights" / f"tiny@{end}.json").write_text(json.dumps(note | {"run_id": "0123abcd" + end * 24}))
    with pytest.raises(NightStopped, match="0123abcd is the beginning of 2 run ids: 0123abcd0"):
        find_model(History(copied), "0123abcd")
    assert find_model(History(copied), "0123abcd1").name.startswith("run 0123abcd1")


def test_a_run_of_a_stage_that_trains_nothing_says_so(lived: LivedHome) -> None:
    with pytest.raises(NightStopped, match="of the stage tokens, which trains nothing"):
        find_model(History(lived.home), lived.nights[1][3].run_id)
