"""The frame of a stage: what is in its key, what is kept of unfinished work, how its run ends, what Prefect retries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from prefect import Task, flow

from benchmarks.data.ours import UntrackedNight, UntrackedStore
from tasks.errors import Interrupted, NightBusy, NightStopped
from tasks.home.journal import Journal
from tasks.home.records import BegunStage, StageRecord
from tasks.home.stage_table import STAGES, TRAINING_STAGES, entry_of
from tasks.recipes.recipe import Recipe
from tasks.sources.resolve import Resolved
from tasks.stage import Night, Outcome, StageRun, declared, stage, training_stage
from tasks.tracking.tracker import DictTracker
from tests.tasks.rows import stage_record
from tests.tiny_recipe import tiny_recipe

DONE = Outcome(counts={"rows": 1}, headline="done")


class WatchedNight(UntrackedNight):
    """A night that keeps the trackers it gave."""

    trackers: ClassVar[list[DictTracker]] = []

    @property
    def store(self) -> UntrackedStore:
        trackers = self.trackers

        class Watched(UntrackedStore):
            def tracker(self, run_id: str, system_metrics: bool = False) -> DictTracker:
                trackers.append(DictTracker(run_id))
                return trackers[-1]

        return Watched()


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Night]:
    monkeypatch.setattr("tasks.stage.code_version", lambda module: f"code of {module}")
    monkeypatch.setattr(WatchedNight, "trackers", [])
    recipe = tiny_recipe(tmp_path / "raw")
    with Journal(tmp_path / "home").lease("test") as token:
        yield WatchedNight(recipe, "key", tmp_path / "home", "", "night", token, Resolved(()))


def made(work: Callable[[StageRun], None] = lambda run: None, **declaration: Any) -> Task[..., StageRecord]:
    """A stage by the name of split that writes one file."""

    def split(run: StageRun, rows: StageRecord, label: str = "") -> Outcome:
        (run.folder / "made").write_text(rows.digest)
        work(run)
        return DONE

    return stage(**{"config": lambda recipe: recipe.split} | declaration)(split)


ROWS = stage_record(Path("rows"), digest="d1")


def key(night: Night, rows: StageRecord = ROWS, label: str = "", **declaration: Any) -> str:
    return made(**declaration).fn(night, rows, label).key


def test_a_stage_is_done_once(night: Night) -> None:
    first, again = (made().fn(night, ROWS) for _ in range(2))
    assert (first.reused, again.reused) == (False, True)
    assert first == again
    assert (again.stage, again.branch, again.name, again.inputs) == ("split", "", "split", {"rows": "d1"})


def test_what_it_is_is_noted_before_it_works(night: Night) -> None:
    noted: list[BegunStage | None] = []
    record = made(lambda run: noted.append(BegunStage.read(run.folder))).fn(night, ROWS)
    [begun] = noted
    assert begun is not None and begun.night_run == night.run_id
    expected = replace(record, digest="", files={}, counts={}, headline="", seconds=0.0)
    assert begun.record(record.path) == expected
    assert BegunStage.read(record.path) == begun


def test_inputs_settings_code_and_branch_are_in_the_key(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [
        key(night),
        key(night, replace(ROWS, digest="d2")),
        key(night, config=lambda recipe: "other"),
        key(replace(night, branch="twin")),
        key(night, inputs=lambda night, rows, label: {"rows": rows.digest, "label": label}, label="other"),
    ]
    monkeypatch.setattr("tasks.stage.code_version", lambda module: "other code")
    keys.append(key(night))
    assert len(set(keys)) == len(keys)


def test_what_is_no_record_is_not_in_the_key(night: Night) -> None:
    assert key(night) == key(night, label="champion") == key(night, replace(ROWS, headline="other words"))


def test_a_branch_is_a_field_and_stands_in_the_name(night: Night) -> None:
    record = made().fn(replace(night, branch="twin"), ROWS)
    assert (record.stage, record.branch, record.name) == ("split", "twin", "twin-split")
    assert record.path.name.startswith("twin-split@")
    read = StageRecord.read(record.path)
    assert read is not None
    assert (read.stage, read.branch) == ("split", "twin")


def test_a_stage_grows_from_what_it_made_of_the_rows_that_grew(night: Night) -> None:
    bases: list[StageRecord | None] = []
    growing = made(lambda run: bases.append(run.base), grows=True)

    def grown(digest: str, grown_from: str) -> StageRecord:
        return growing.fn(night, replace(ROWS, digest=digest, inputs={"base": grown_from}))

    first = grown("d1", "")
    second = grown("d2", "d1")
    unrelated = grown("d4", "d3")
    assert bases == [None, first, None]
    assert [r.inputs["base"] for r in (first, second, unrelated)] == ["", first.digest, ""]
    assert grown("d4", "d3").reused


class Broken(BaseException):
    """Nothing sees it coming."""


@pytest.mark.parametrize(("resumable", "left"), [(True, ["d1"]), (False, [])])
def test_unfinished_work_is_kept_where_the_stage_resumes(night: Night, resumable: bool, left: list[str]) -> None:
    found: list[list[str]] = []

    def work(run: StageRun) -> None:
        found.append([path.read_text() for path in run.folder.glob("half")])
        (run.folder / "half").write_text("d1")
        if len(found) == 1:
            raise Broken

    with pytest.raises(Broken):
        made(work, resumable=resumable).fn(night, ROWS)
    record = made(work, resumable=resumable).fn(night, ROWS)
    assert found == [[], left]
    assert set(record.files) == {"made", "half"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "FINISHED"), (NightStopped("too bad"), "FAILED"), (OSError("disk"), "FAILED"),
        (Interrupted("asked"), "KILLED"), (KeyboardInterrupt(), "KILLED"),
    ],
)  # fmt: skip
def test_the_run_ends_as_the_stage_ended(night: Night, error: BaseException | None, status: str) -> None:
    def work(run: StageRun) -> None:
        if error:
            raise error

    if error:
        with pytest.raises(type(error)):
            made(work).fn(night, ROWS)
    else:
        made(work).fn(night, ROWS)
    assert WatchedNight.trackers[-1].status == status
    assert len(list((night.home / "data").glob("split@*.partial"))) == (error is not None)


def test_a_stage_that_was_overtaken_publishes_nothing_and_leaves_its_run_to_the_new_owner(night: Night) -> None:
    def work(run: StageRun) -> None:
        run.night.journal.take_over("a person")

    with pytest.raises(NightBusy, match="overtaken"):
        made(work).fn(night, ROWS)
    assert WatchedNight.trackers[-1].status == DictTracker("").status, "the run goes on"
    assert not [path for path in (night.home / "data").glob("split@*") if path.suffix != ".partial"]


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(("error", "tries"), [(OSError("once"), 2), (NightStopped("for good"), 1)])
def test_prefect_tries_again_what_may_help(night: Night, error: Exception, tries: int) -> None:
    seen: list[int] = []

    def work(run: StageRun) -> None:
        seen.append(1)
        if len(seen) == 1:
            raise error

    @flow(name="retried", validate_parameters=False)
    def retried() -> StageRecord:
        return made(work, retries=1)(night, ROWS)

    if tries == 1:
        with pytest.raises(NightStopped):
            retried()
    else:
        assert retried().counts == {"rows": 1}
    assert len(seen) == tries


@pytest.mark.parametrize("entry", STAGES, ids=lambda entry: entry.name)
def test_the_table_names_the_stages_there_are(entry: Any) -> None:
    assert entry_of(entry.name) is entry
    assert declared(entry).name == entry.name


def test_each_training_stage_starts_from_an_earlier_one() -> None:
    seen: set[str] = set()
    for entry in TRAINING_STAGES:
        assert entry.starts_from in seen or (not entry.starts_from and not seen)
        assert hasattr(Recipe, entry.name) or entry.name in Recipe.__dataclass_fields__
        seen.add(entry.name)


def test_a_training_stage_depends_on_its_own_kind_alone(night: Night) -> None:
    def sft(run: StageRun, tokens: StageRecord, pretrained: StageRecord) -> Outcome:
        return DONE

    files = {"pretrain.train.g0.arrow": "a", "chat.train.g0.arrow": "b", "tokenizer.json": "c", "figures.json": "d"}
    packed, before = stage_record(Path("tokens"), files=files), stage_record(Path("pretrain"), digest="w")
    train = training_stage(sft).fn
    first = train(night, packed, before)
    same = replace(packed, digest="other", files=files | {"pretrain.train.g0.arrow": "!", "figures.json": "!"})
    assert train(night, same, before).reused
    for file in ("chat.train.g0.arrow", "tokenizer.json"):
        assert train(night, replace(packed, files=files | {file: "!"}), before).key != first.key
    assert train(night, packed, replace(before, digest="!")).key != first.key
    assert set(first.inputs) == {"tokens", "pretrained"}
