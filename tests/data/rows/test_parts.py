"""What is written of a validated piece is what later stages read, however it was cut into chunks."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.files import raw_records
from data.rows.keys import ID_DTYPE, row_ids
from data.rows.parts import CONTENT, FACTS_DTYPE, KINDS, Part, PartWriter, content_column, texts_of
from data.rows.sketch import SKETCH_BYTES, sketches_of
from tests.data.corpus import Piece, content_of, repeatable, write_part

texts = st.lists(st.text(max_size=20), max_size=12)


@repeatable
@given(texts, st.sampled_from(KINDS), st.integers(1, 13))
def test_a_part_gives_back_what_was_written(some: list[str], kind: str, rows_per_chunk: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        part = write_part(Part(Path(folder), 3), Piece(some, kind), rows_per_chunk)
        frames = list(part.rows())
        assert [len(frame) for frame in frames] == [
            len(some[s : s + rows_per_chunk]) for s in range(0, len(some), rows_per_chunk)
        ]
        content = pl.concat([pl.DataFrame(schema=CONTENT[kind]), *frames])[content_column(kind)]
        assert content.to_list() == content_of(some, kind).to_list()
        assert texts_of(content).to_list() == some
        assert part.ids.dtype == ID_DTYPE and part.facts.dtype == FACTS_DTYPE
        assert part.ids.tolist() == row_ids(some).tolist()
        assert (part.sketches == sketches_of(pl.Series(some, dtype=pl.String))).all()
        assert part.sketches.shape == (len(some), SKETCH_BYTES)
        assert part.facts["num_bytes"].tolist() == [len(text.encode()) for text in some]
        assert part.facts["line"].tolist() == list(range(1, len(some) + 1))


def test_files_lie_under_the_number_of_their_part(tmp_path: Path) -> None:
    for number in (0, 12, 99_999):
        part = write_part(Part(tmp_path, number), Piece(["text"]))
        part.path("quarantine.jsonl").touch()
        assert all(path.exists() and path.name.startswith(f"{number:05d}.") for path in part.files)
    assert len({path for n in (0, 12, 99_999) for path in Part(tmp_path, n).files}) == len(list(tmp_path.iterdir()))


@pytest.mark.parametrize("kind", KINDS)
def test_columns_have_types_that_every_reader_of_arrow_knows(tmp_path: Path, kind: str) -> None:
    part = write_part(Part(tmp_path, 0), Piece(["a\nb", "中"], kind))
    schema = pa.ipc.open_file(part.path("rows.arrow")).schema
    assert schema.names == [content_column(kind)]
    assert "view" not in str(schema)


def test_turns_are_lines_of_one_text() -> None:
    turns = [[("user", "one\ntwo"), ("assistant", "three")], [("user", "")], []]
    content = [[{"role": role, "content": text} for role, text in row] for row in turns]
    assert texts_of(pl.Series(content, dtype=CONTENT["chat"]["conversations"])).to_list() == ["one\ntwo\nthree", "", ""]


@pytest.mark.parametrize("width", [0, 1, SKETCH_BYTES])
def test_no_records_are_records_too(tmp_path: Path, width: int) -> None:
    (tmp_path / "none").touch()
    records = raw_records(tmp_path / "none", np.dtype(np.uint8), width)
    assert records.shape == ((0, width) if width else (0,)) and records.dtype == np.uint8


def test_arrays_that_are_views_are_written_row_by_row(tmp_path: Path) -> None:
    texts = ["one", "two", "three", "four"]
    ids, sketches = row_ids(texts), sketches_of(pl.Series(texts))
    facts = np.zeros(4, dtype=FACTS_DTYPE)
    facts["domain"] = range(4)
    part = Part(tmp_path, 0)
    with PartWriter(part, "pretrain") as writer:
        writer.write(pl.Series(texts)[::2], ids[::2], sketches[::2], facts[::2])
    assert part.ids.tolist() == ids[[0, 2]].tolist()
    assert (part.sketches == sketches[[0, 2]]).all()
    assert part.facts["domain"].tolist() == [0, 2]


def test_a_failure_leaves_what_was_written_before_it_readable(tmp_path: Path) -> None:
    part = Part(tmp_path, 0)
    with pytest.raises(RuntimeError), PartWriter(part, "pretrain") as writer:
        writer.write(pl.Series(["one"]), row_ids(["one"]), np.zeros((1, SKETCH_BYTES)), np.zeros(1, FACTS_DTYPE))
        raise RuntimeError
    assert [frame["text"].to_list() for frame in part.rows()] == [["one"]]
    assert part.ids.tolist() == row_ids(["one"]).tolist()
