"""A table gives each row the members of all rows: what it filled up with nulls is no part of a row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import feather

from schemas.adapters import check_rows
from tasks.recipes.stage_configs import SourceConfig
from tasks.sources.resolve import resolve
from tasks.sources.tables import lines_of


def tool(name: str, **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"properties": properties}}}


def calling(name: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    called = {"function": {"name": name, "arguments": arguments}}
    return [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [called]}]


ROWS = [
    {"messages": calling("turn", {"theta": 1.5}), "tools": [tool("turn", theta={"type": "number"})]},
    {"messages": calling("go", {"steps": [1, None]}), "tools": [tool("go", steps={"type": "array"}), tool("stop")]},
    {"messages": calling("stop", {}), "tools": [tool("stop")]},
]


def lines_at(location: str, home: Path) -> list[dict[str, Any]]:
    source = SourceConfig(name="mine", kind="chat", format="openai", location=location)
    [located] = resolve([source], home).pieces
    return [json.loads(line) for line in located.path.read_bytes().splitlines()]


def from_hub(table: pa.Table, folder: Path) -> str:
    (folder / "tools").mkdir()
    pq.write_table(table, folder / "tools" / "train.parquet")
    return f"hub:{folder / 'tools'}"


def from_parquet(table: pa.Table, folder: Path) -> str:
    pq.write_table(table, folder / "a.parquet")
    return str(folder / "a.parquet")


def from_arrow(table: pa.Table, folder: Path) -> str:
    feather.write_feather(table, str(folder / "a.arrow"))
    return str(folder / "a.arrow")


@pytest.mark.parametrize("write", [from_parquet, from_arrow, from_hub])
def test_tools_and_calls_are_those_that_were_written(
    write: Callable[[pa.Table, Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = lines_at(write(pa.Table.from_pylist(ROWS), tmp_path), tmp_path)
    assert rows == ROWS
    checked = check_rows(rows, "chat", "openai")
    assert checked.faults == {}
    assert check_rows(ROWS, "chat", "openai").good.equals(checked.good)


def test_a_null_that_a_line_has_stays(tmp_path: Path) -> None:
    rows = [{"messages": calling("turn", {"theta": None}), "tools": [tool("turn", theta={"default": None})]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = SourceConfig(name="mine", kind="chat", format="openai", location=str(tmp_path / "a.jsonl"))
    [located] = resolve([source], tmp_path).pieces
    checked = check_rows([json.loads(located.path.read_text())], "chat", "openai")
    system, _, answer = checked.good["conversations"].to_list()[0]
    assert '"default": null' in system["content"] and '{"theta": null}' in answer["content"]


def test_what_a_data_set_holds_as_json_is_as_it_was_written() -> None:
    data = Dataset.from_list([{"tools": row["tools"], "extra": {"a": None}} for row in ROWS])
    mixed = Dataset.from_dict({"a": [[{"b": None}, {"c": 0}, "x"]]}, on_mixed_types="use_json")
    for found, expected in (
        (data, [{"tools": row["tools"], "extra": {}} for row in ROWS]),
        (mixed, [{"a": [{"b": None}, {"c": 0}, "x"]}]),
    ):
        batches = [batch for table in found.with_format("arrow").iter(2) for batch in table.to_batches()]
        assert [orjson.loads(line) for batch in batches for line in lines_of(batch)] == expected


@given(st.lists(st.dictionaries(st.sampled_from(["p", "q"]), st.integers(0, 9)), min_size=1, max_size=4))
def test_rows_of_any_members_come_back(rows: list[dict[str, int]]) -> None:
    nested = [{"row": row, "rows": [row, row]} for row in rows]
    [batch] = pa.Table.from_pylist(nested).to_batches()
    assert [orjson.loads(line) for line in lines_of(batch)] == nested
