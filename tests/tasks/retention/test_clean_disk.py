"""What goes from a home's disk and what never does, whatever nights there were and wherever a kill comes."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.errors import NightBusy
from tasks.home.contents.pages import night_page_path
from tasks.home.journal import Journal
from tasks.home.records import StageRecord
from tasks.home.trunk import Start, Trunk
from tasks.questions.history import History
from tasks.recipes.retention_config import RetentionConfig
from tasks.retention.clean import clean_disk, empty_trash
from tasks.retention.plan import Plan, Tracked, disk_bytes, plan_for
from tests.tasks.retention.made_up import MadeUp, folders_of, state_of

FEW = RetentionConfig(nights=2, tracked_nights=3, versions=1, unfinished_days=0.0)
SYSTEM_CALLS = ("rename", "replace", "unlink", "rmdir", "mkdir")


class Killed(BaseException):
    """The process ended here."""


@contextmanager
def killed_after(calls: int) -> Iterator[None]:
    """Nothing changes on the disk from the call of this number on."""
    done = 0

    def counted(name: str) -> Any:
        real = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal done
            if done >= calls:
                raise Killed
            done += 1
            return real(*arguments, **named)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in SYSTEM_CALLS:
            patch.setattr(os, name, counted(name))
        with suppress(Killed):
            yield


def plan_of(made: MadeUp, recipe: str = "a", config: RetentionConfig = FEW) -> Plan:
    tracked = {name: Tracked(versions=versions) for name, versions in made.versions.items()}
    return plan_for(made.home, recipe, config, tracked)


def clean(made: MadeUp, recipe: str = "a", config: RetentionConfig = FEW) -> Plan:
    plan = plan_of(made, recipe, config)
    clean_disk(plan, 0)
    return plan


def must_stay(made: MadeUp) -> set[str]:
    """Said slowly: the folders of the nights that matter, and all that those were made from."""
    notes = {name: json.loads((made.home / "nights" / name).read_text()) for name in made.nights}
    mine = [name for name in made.nights if name.startswith("a@")]
    roles = {("a", v.version) for v in made.versions.get("a", []) if v.roles}
    matter = [
        note for name, note in notes.items()
        if name not in mine or name in mine[-FEW.nights :] or "waiting" in note or ("a", note.get("version")) in roles
    ]  # fmt: skip
    found = {folder for note in matter for folder in note.get("stages", {}).values()}
    for path in (made.home / "newest").glob("*.json"):
        found |= set(json.loads(path.read_text()).values())
    records = {path.name: StageRecord.read(path) for path in folders_of(made.home)}
    for _ in range(9):
        for name in list(found):
            record = records[name]
            assert record
            for called, digest in record.inputs.items():
                for other in filter(None, records.values()):
                    kinds = [other.digest_of_files(f"{kind}.", "tokenizer.json") for kind in ("pretrain", "chat")]
                    if called != "base" and digest in (other.digest, *kinds):
                        found.add(other.path.name)
    return found


nights = st.lists(
    st.tuples(
        st.sampled_from("aaab"), st.sampled_from(["", "", "champion", "previous", "mine"]),
        st.sampled_from([False, False, False, True]), st.sampled_from([True, True, True, False]),
    ),
    min_size=1, max_size=6,
)  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(past=nights, calls=st.integers(0, 60))
def test_what_is_needed_reads_after_a_kill_and_the_next_cleaning_finishes(past: list[Any], calls: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = MadeUp(Path(folder) / "home")
        for recipe, role, waits, finished in past:
            made.night(recipe, role, waits, finished)
        stays, before = must_stay(made), state_of(made.home)
        ancestors = {name: ancestry(made.home, name) for name in stays if name.startswith("tokens@")}
        undisturbed = MadeUp(Path(folder) / "other", made.nights, made.versions)
        shutil.copytree(made.home, undisturbed.home)
        clean(undisturbed)

        with killed_after(calls):
            clean(made)
        for name in stays:
            inside = {path: content for path, content in before.items() if path.startswith(f"data/{name}/")}
            assert inside.items() <= state_of(made.home).items(), f"{name} is needed"
        for path in folders_of(made.home):
            record = StageRecord.read(path)
            assert record, "what has a place in the data has a record"
            assert set(record.files) <= {file.name for file in path.iterdir()}, "and is whole"
        for name, above in ancestors.items():
            there = [digest for digest in above if any(digest == r.digest for r in tokens_of(made.home))]
            assert ancestry(made.home, name) == there

        clean(made)
        assert state_of(made.home) == state_of(undisturbed.home)
        assert not (made.home / "trash").exists()
        assert {path.name for path in folders_of(made.home)} >= stays


def test_a_page_goes_with_the_note_of_its_night_and_the_trunks_note_stays(tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "home")
    trunk = made.night("a")["pretrain"]
    begun = Start(how="scratch", reason="from scratch")
    Trunk(folder=trunk.path.name, night="first", data="rows", start=begun).write(made.home, "a")
    for _ in range(5):
        made.night("a")
    pages = [night_page_path(made.home, "a", name.removesuffix(".json").partition("@")[2]) for name in made.nights]
    pages[0].parent.mkdir()
    for page in pages:
        page.write_text("<html>")
    clean(made)
    left = [number for number, name in enumerate(made.nights) if (made.home / "nights" / name).exists()]
    assert left == [0, 3, 4, 5], "the trunk's, which has the lineage of later nights, and the newest"
    assert [number for number, page in enumerate(pages) if page.exists()] == left


def test_however_many_trials_follow_the_night_of_the_trunk_is_kept_whole(tmp_path: Path) -> None:
    """Else the next night, with nothing new, would do it again instead of being skipped."""
    made = MadeUp(tmp_path / "home")
    records = made.night("a")
    key = json.loads((made.home / "nights" / made.nights[0]).read_text())["key"]
    begun = Start(how="scratch", reason="from scratch")
    Trunk(folder=records["pretrain"].path.name, night=key, data="rows", start=begun).write(made.home, "a")
    for _ in range(9):
        made.night("a")
    clean(made)
    assert all(record.path.exists() for record in records.values())


def tokens_of(home: Path) -> list[StageRecord]:
    return [r for path in folders_of(home) if (r := StageRecord.read(path)) and r.stage == "tokens"]


def ancestry(home: Path, name: str) -> list[str]:
    """Digests of all that a tokens folder grew from and that are there, the nearest first."""
    step, found = StageRecord.read(home / "data" / name), []
    while step and (step := History(home).grown_from(step)):
        found.append(step.digest)
    return found


def test_the_newest_data_is_known_to_have_grown_from_what_the_champion_read(tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "home")
    nights = [made.night("a", "" if number else "champion") for number in range(6)]
    for _ in range(2):
        clean(made)
        assert not nights[2]["tokens"].path.exists()
        expected = [nights[4]["tokens"].digest, nights[0]["tokens"].digest]
        assert ancestry(made.home, nights[5]["tokens"].path.name) == expected


def test_folders_and_bytes_are_flat_over_sixty_nights(tmp_path: Path) -> None:
    made, sizes = MadeUp(tmp_path / "home"), []
    for number in range(60):
        made.night("a", "champion" if number == 3 else "")
        clean(made)
        sizes.append((len(list(folders_of(made.home))), sum(1 for _ in (made.home / "nights").iterdir())))
    assert len(set(sizes[10:])) == 1, sizes
    assert sizes[-1][0] == 5 * (FEW.nights + 1), "the newest nights' and the champion's"
    assert len(Journal(made.home).grown()) == FEW.nights + 1


def test_working_folders_go_when_they_are_old_and_no_sooner(tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "home")
    for _ in range(3):
        made.night("a")
    for name, hours in (("old", 0), ("young", 2)):
        working = Journal(made.home).working_folder("sft", name * 4, resumable=True)
        for path in (working, working / "logs"):
            os.utime(path, (made.now - 3 * 3_600 + hours * 3_600 - 1,) * 2)
    assert [n for n in plan_of(made).folders if n.endswith(".partial")] == ["sft@oldoldoldold.partial"]
    patient = RetentionConfig(nights=2, tracked_nights=3, unfinished_days=100_000)
    assert not [n for n in plan_of(made, config=patient).folders if n.endswith(".partial")]


def test_what_a_trunk_names_stays_and_what_it_grew_from_goes(tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "home")
    stages = [made.night("a")["pretrain"] for _ in range(5)]
    (made.home / "trunks").mkdir()
    hint = {"folder": stages[1].path.name, "deeper": [{"step": 3}]}
    (made.home / "trunks" / "a.json").write_text(json.dumps(hint))
    clean(made)
    there = [record.path.exists() for record in stages]
    assert there == [False, True, False, True, True]
    assert StageRecord.read(stages[1].path)


def test_another_recipe_and_an_overtaken_owner_touch_nothing(tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "home")
    for _ in range(4):
        made.night("a")
    assert not plan_of(made, "b").folders
    with Journal(made.home).lease("someone else"), pytest.raises(NightBusy, match="overtaken"):
        clean(made)
    assert len(list(folders_of(made.home))) == 20


def test_bytes_that_have_another_name_are_not_free(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / "shared").write_bytes(b"x" * 1_000)
    os.link(tmp_path / "one" / "shared", tmp_path / "two" / "shared")
    (tmp_path / "one" / "own").write_bytes(b"x" * 10)
    assert disk_bytes([tmp_path / "one"]) == 1_010
    assert disk_bytes([tmp_path / "one"], freed=True) == 10
    assert disk_bytes([tmp_path / "one", tmp_path / "two"], freed=True) == 1_010
    (tmp_path / "trash").mkdir()
    (tmp_path / "one").rename(tmp_path / "trash" / "0.one")
    assert empty_trash(tmp_path) == 10
