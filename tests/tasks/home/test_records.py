"""Digests notice every difference that counts and no other; a record is whole or it is none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.files import sha256_of
from tasks.home.digests import digest_of
from tasks.home.records import BEGUN, LOGS, RECORD, BegunStage, StageRecord, file_digests
from tests.tasks.rows import stage_record, write_files

quick = settings(max_examples=80)
tricky_text = st.text(alphabet='ab",:[]{}\\é', max_size=3)
leaves = st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-2, 2) | tricky_text
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(tricky_text, inner, max_size=3), max_leaves=6
)


def canonical(value: Any) -> object:
    """Equal for equal configurations and for no others: types count, the order of keys does not."""
    if isinstance(value, dict):
        return "map", frozenset((key, canonical(item)) for key, item in value.items())
    if isinstance(value, list):
        return "list", tuple(canonical(item) for item in value)
    return type(value).__name__, repr(value)


def rearranged(value: Any) -> Any:
    """The same configuration with keys the other way round and tuples for lists."""
    if isinstance(value, dict):
        return {key: rearranged(value[key]) for key in reversed(value)}
    return tuple(rearranged(item) for item in value) if isinstance(value, list) else value


@quick
@given(values, values)
def test_digests_are_equal_exactly_for_equal_values(one: Any, other: Any) -> None:
    assert (digest_of(one) == digest_of(other)) == (canonical(one) == canonical(other))


@quick
@given(values)
def test_the_order_of_keys_does_not_count(value: Any) -> None:
    assert digest_of(value) == digest_of(rearranged(value))


@dataclass(frozen=True)
class Point:
    x: int
    y: object = None


def test_a_dataclass_is_the_mapping_of_its_fields() -> None:
    assert digest_of(Point(1, Point(2))) == digest_of({"x": 1, "y": {"x": 2, "y": None}})
    assert digest_of(Point(1)) != digest_of(Point(2))


@pytest.mark.parametrize("value", [{1, 2}, Path("a"), b"bytes", object(), Point, len])
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: {"a": [1, v]}, lambda v: Point(1, v)])
def test_what_has_no_stable_text_is_refused_by_name(value: object, wrap: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match=f"a {type(value).__name__} has no stable digest"):
        digest_of(wrap(value))


FILES = {"a.txt": "one", "b.txt": "two", "deep/c.txt": "three"}


@pytest.mark.parametrize(
    "changed",
    [
        {"a.txt": "one", "b.txt": "two", "deep/d.txt": "three"},
        {"a.txt": "one", "b.txt": "two", "deeper/c.txt": "three"},
        {"a.txt": "two", "b.txt": "one", "deep/c.txt": "three"},
        {"a.txt": "one", "b.txt": "two", "deep/c.txt": "thre_"},
        {"a.txt": "one", "b.txt": "two"},
        FILES | {"e.txt": ""},
        FILES | {f"deep/{LOGS}/seconds": "1"},
    ],
    ids=["renamed", "moved", "swapped", "changed", "removed", "added", "logs of something else"],
)
def test_a_folder_digest_notices(tmp_path: Path, changed: dict[str, str]) -> None:
    before = file_digests(write_files(tmp_path / "before", FILES))
    assert file_digests(write_files(tmp_path / "after", changed)) != before


def test_a_folder_digest_ignores_place_logs_and_record(tmp_path: Path) -> None:
    plain = file_digests(write_files(tmp_path / "plain", FILES))
    logged = write_files(tmp_path / "logged", {f"{LOGS}/x/seconds": "2", RECORD: "{}"} | dict(reversed(FILES.items())))
    assert file_digests(logged) == plain
    assert sha256_of(logged / "a.txt") != sha256_of(logged / "b.txt")


finite = st.floats(allow_nan=False, allow_infinity=False)


@quick
@given(
    config=values,
    counts=st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
    figures=st.dictionaries(st.text(max_size=3), finite, max_size=3),
    headline=st.text(max_size=20),
    seconds=finite,
)
def test_a_record_reads_back_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, **content: Any) -> None:
    folder = tmp_path_factory.mktemp("stage@0123")
    record = stage_record(folder, **content)
    record.write(folder)
    read = StageRecord.read(folder)
    assert read == record
    assert (read.reused, record.reused) == (True, False)


def test_a_record_goes_with_its_folder(tmp_path: Path) -> None:
    """It is written before the rename, so it must not remember where it was written."""
    (tmp_path / "split@0123.partial").mkdir()
    record = stage_record(tmp_path / "split@0123")
    record.write(tmp_path / "split@0123.partial")
    (tmp_path / "split@0123.partial").rename(record.path)
    assert str(tmp_path) not in (record.path / RECORD).read_text(encoding="utf-8")
    assert StageRecord.read(record.path) == record
    elsewhere = record.path.rename(tmp_path / "moved")
    assert StageRecord.read(elsewhere) == replace(record, path=elsewhere)


def test_a_torn_record_is_none(tmp_path: Path) -> None:
    """Cut anywhere, by a crash in the middle of writing."""
    stage_record(tmp_path).write(tmp_path)
    whole = (tmp_path / RECORD).read_bytes()
    for kept in [*range(0, len(whole) - 1, 7), len(whole) - 1]:
        (tmp_path / RECORD).write_bytes(whole[:kept])
        assert StageRecord.read(tmp_path) is None


@pytest.mark.parametrize("content", ["[]", "null", "5", "{}", '{"stage": "split"}', '{"surprise": 1}'])
def test_json_that_is_no_record_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / RECORD).write_text(content)
    assert StageRecord.read(tmp_path) is None


def test_a_record_of_another_version_is_none(tmp_path: Path) -> None:
    stage_record(tmp_path).write(tmp_path)
    text = (tmp_path / RECORD).read_text(encoding="utf-8")
    (tmp_path / RECORD).write_text(text.replace('"headline"', '"motto"'), encoding="utf-8")
    assert StageRecord.read(tmp_path) is None


def test_no_record_is_none(tmp_path: Path) -> None:
    assert StageRecord.read(tmp_path) is None
    assert StageRecord.read(tmp_path / "nowhere") is None


def test_a_record_with_figures_that_are_no_numbers_reads_back(tmp_path: Path) -> None:
    stage_record(tmp_path, figures={"val/bpb": math.nan, "train/loss": math.inf}).write(tmp_path)
    read = StageRecord.read(tmp_path)
    assert read is not None
    assert math.isnan(read.figures["val/bpb"])
    assert read.figures["train/loss"] == math.inf


BEGUN_STAGE = BegunStage(
    stage="pretrain", branch="twin", key="k", inputs={"tokens": "d"}, config={"train": {"seed": 1}}, code="c",
    run_id="of the stage", night_run="of the night",
)  # fmt: skip


def test_what_a_stage_is_can_be_read_from_its_beginning_on(tmp_path: Path) -> None:
    (tmp_path / LOGS).mkdir()
    BEGUN_STAGE.write(tmp_path)
    found = BegunStage.read(tmp_path)
    assert found == BEGUN_STAGE
    record = found.record(tmp_path)
    assert (record.name, record.path, record.run_id) == ("twin-pretrain", tmp_path, "of the stage")
    assert (record.inputs, record.config, record.code_version) == ({"tokens": "d"}, {"train": {"seed": 1}}, "c")
    assert (record.digest, record.files, record.counts) == ("", {}, {})


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"stage": "pretrain"}', '{"stage": "\\ud800', "\x00"])
def test_what_is_no_beginning_of_a_stage_is_none(tmp_path: Path, content: str) -> None:
    assert BegunStage.read(tmp_path) is None
    (tmp_path / LOGS).mkdir()
    (tmp_path / LOGS / BEGUN).write_text(content)
    assert BegunStage.read(tmp_path) is None
