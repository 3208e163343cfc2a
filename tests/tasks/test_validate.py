"""Every line ends as kept, duplicate or quarantined, is named, and too many bad ones stop the night."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import NightStopped
from tasks.recipe import SourceConfig, ValidateConfig
from tasks.sources import SourceFile, resolve
from tasks.validate import QUARANTINE, Counts, normalised, row_id, stop_if_too_bad, validate_files

LIMIT = ValidateConfig(max_line_bytes=1 << 20)


def source_file(path: Path, kind: str = "pretrain") -> SourceFile:
    [file] = resolve([SourceConfig(name="s", kind=kind, location=str(path))], path.parent)
    return file


def run(
    path: Path, out: Path, kind: str = "pretrain", config: ValidateConfig = LIMIT
) -> tuple[Counts, list[dict], pl.DataFrame]:
    out.mkdir(exist_ok=True)
    by_file, _ = validate_files([source_file(path, kind)], config, out)
    [counts] = by_file.values()
    quarantine = [json.loads(line) for line in (out / QUARANTINE).read_text(encoding="utf-8").splitlines()]
    return counts, quarantine, pl.read_parquet(out / f"{kind}.parquet")


def good(number: int) -> bytes:
    return json.dumps({"text": f"A good line, number {number}."}).encode()


DIRTY = {
    "broken": (b'{"text": "cut off', "not_json"),
    "wrong keys": (b'{"txt": "hello"}', "text_missing"),
    "wrong type": (b'{"text": 5}', "text_missing"),
    "invalid UTF-8": (b'{"text": "\xff\xfe bad"}', "not_utf8"),
    "5 MB": (b'{"text": "' + b"a" * 5_000_000 + b'"}', "line_too_long"),
    "blank": (b"   ", "line_blank"),
    "array": (b"[1, 2]", "not_an_object"),
    "only spaces": (b'{"text": " \\n "}', "text_blank"),
    "escaped NUL": (b'{"text": "a\\u0000b"}', "text_control_characters"),
}


def test_each_bad_line_is_quarantined_and_named(tmp_path: Path) -> None:
    """Among good lines with a byte order mark and carriage returns, which are no fault."""
    lines = [b"\xef\xbb\xbf" + good(0), good(1) + b"\r"]
    for number, (data, _) in enumerate(DIRTY.values(), start=2):
        lines += [data, good(number)]
    path = tmp_path / "dirty.jsonl"
    path.write_bytes(b"\n".join(lines))
    counts, quarantine, kept = run(path, tmp_path / "out")
    assert counts == Counts(read=len(lines), kept=len(DIRTY) + 2, duplicate=0, quarantined=len(DIRTY))
    assert [row["rule"] for row in quarantine] == [rule for _, rule in DIRTY.values()]
    assert kept["text"].to_list() == [f"A good line, number {n}." for n in range(len(DIRTY) + 2)]
    content = path.read_bytes()
    for row, (data, _) in zip(quarantine, DIRTY.values(), strict=True):
        assert set(row) == {"file", "line", "byte_offset", "rule", "detail", "raw"}
        assert content[row["byte_offset"] :].startswith(data)
        assert lines[row["line"] - 1] == data
        assert row["file"] == "s/dirty.jsonl"
        assert len(row["raw"]) < 10_000


def test_an_empty_conversation_and_its_like_are_quarantined(tmp_path: Path) -> None:
    user, assistant = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
    cases = [
        ({"conversations": []}, "conversation_empty"),
        ({"conversations": [user]}, "conversation_unanswered"),
        ({"conversations": [user, user, assistant]}, "conversation_order"),
        ({"conversations": [user, {"role": "bot", "content": "Hello"}]}, "role_unknown"),
        ({"conversations": "Hi"}, "conversations_missing"),
        ({"messages": [user, assistant]}, "conversations_missing"),
        ({"conversations": [user, {"role": "assistant", "content": ""}]}, "content_blank"),
    ]
    rows = [{"conversations": [user, assistant]}, *(case for case, _ in cases)]
    path = tmp_path / "chat.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    counts, quarantine, kept = run(path, tmp_path / "out", kind="chat")
    assert [row["rule"] for row in quarantine] == [rule for _, rule in cases]
    assert kept["conversations"].to_list() == [[user, assistant]]
    assert counts.kept == 1


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(st.binary(max_size=30).filter(lambda b: b"\n" not in b), st.integers(0, 5).map(good)), max_size=30
    )
)
def test_the_fates_add_up_whatever_the_bytes(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("any")
    path = folder / "any.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    counts, quarantine, kept = run(path, folder / "out")
    assert counts.read == len(lines) == counts.kept + counts.duplicate + counts.quarantined
    assert (len(kept), len(quarantine)) == (counts.kept, counts.quarantined)
    assert counts.kept == len({line for line in lines if line.startswith(b'{"text"')})


def test_duplicates_are_counted_across_files_and_the_first_copy_stays(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(good(1) + b"\n" + good(2) + b"\n")
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "A  good line,\\nnumber 1."}\n' + good(3) + b"\n")
    files = [source_file(tmp_path / "a.jsonl"), source_file(tmp_path / "b.jsonl")]
    (tmp_path / "out").mkdir()
    by_file, _ = validate_files(files, LIMIT, tmp_path / "out")
    assert [(c.kept, c.duplicate) for c in by_file.values()] == [(2, 0), (1, 1)]
    assert pl.read_parquet(tmp_path / "out" / "pretrain.parquet")["file"].to_list() == [
        "s/a.jsonl",
        "s/a.jsonl",
        "s/b.jsonl",
    ]


def test_too_many_bad_lines_stop_the_night_with_numbers_and_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\n".join([b"no json"] * 6 + [good(n) for n in range(94)]))
    (tmp_path / "out").mkdir()
    _, validation = validate_files([source_file(path)], LIMIT, tmp_path / "out")
    with pytest.raises(NightStopped) as stop:
        stop_if_too_bad(Counts(100, 94, 0, 6), validation.report, LIMIT, tmp_path / "q.jsonl")
    for part in ("6 of 100", "6.0%", "5.0%", "max_bad_share", "not_json", "s/bad.jsonl:1", "q.jsonl"):
        assert part in str(stop.value)
    stop_if_too_bad(Counts(100, 95, 0, 5), validation.report, LIMIT, tmp_path / "q.jsonl")


def test_nothing_kept_stops_the_night(tmp_path: Path) -> None:
    from schemas.report import FailureReport

    with pytest.raises(NightStopped, match="none of 0 lines"):
        stop_if_too_bad(Counts(), FailureReport(), LIMIT, tmp_path)


@given(st.text())
def test_a_row_keeps_its_name_under_white_space(text: str) -> None:
    assert row_id({"text": text}) == row_id({"text": f"  {text}\r\n"})
    assert normalised(normalised(text)) == normalised(text)
