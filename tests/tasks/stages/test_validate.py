"""Every line ends as valid or quarantined, is named, and too many bad ones stop the night."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.rows.parts import Part
from data.rows.scan import ScanRules
from schemas.filters import FilterConfig
from tasks.errors import NightStopped
from tasks.home.contents.bad_lines import cures_of_formats, left_out, lines_by_file, rules_broken
from tasks.home.contents.validated import PARTS, ScannedPiece
from tasks.recipes.stage_configs import SourceConfig, ValidateConfig
from tasks.sources.resolve import resolve
from tasks.stages.validate import (
    scan_key,
    scan_pieces,
    stop_if_a_source_is_lost,
    stop_if_too_bad,
)
from tests.broken_files import BROKEN_FILES, BrokenFile

LIMIT = ValidateConfig(max_line_bytes=1 << 20)
RULES = ScanRules(max_line_bytes=LIMIT.max_line_bytes, filters=FilterConfig(), near_duplicates=False)
PEAK_BYTES = 120 << 20


def scanned(location: Path, out: Path, kind: str = "pretrain", rules: ScanRules = RULES) -> list[ScannedPiece]:
    out.mkdir(exist_ok=True)
    raw = resolve([SourceConfig(name="s", kind=kind, location=str(location))], out)
    return scan_pieces([(piece, "key") for piece in raw.pieces], rules, out, 0)


def quarantine(pieces: list[ScannedPiece], out: Path) -> list[dict[str, Any]]:
    parts = [Part(out / PARTS, piece.number) for piece in pieces]
    text = "".join(part.path("quarantine.jsonl").read_text(encoding="utf-8") for part in parts)
    return [json.loads(line) for line in text.splitlines()]


def rows(pieces: list[ScannedPiece], out: Path) -> pl.DataFrame:
    return pl.concat(chunk for piece in pieces for chunk in Part(out / PARTS, piece.number).rows())


def good(number: int) -> bytes:
    return json.dumps({"text": f"A good line, number {number}."}).encode()


DIRTY = {
    "broken": (b'{"text": "cut off', "not_json"),
    "wrong keys": (b'{"txt": "hello"}', "text_missing"),
    "wrong type": (b'{"text": 5}', "text_missing"),
    "invalid UTF-8": (b'{"text": "\xff\xfe bad"}', "not_utf8"),
    "5 MB": (b'{"text": "' + b"a" * 5_000_000 + b'"}', "line_too_long"),
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
    pieces = scanned(path, tmp_path / "out")
    total = lines_by_file(pieces)["s/dirty.jsonl"]
    assert total == Counter(read=len(lines), valid=len(DIRTY) + 2, quarantined=len(DIRTY), blank=0)
    found = quarantine(pieces, tmp_path / "out")
    assert [row["rule"] for row in found] == [rule for _, rule in DIRTY.values()]
    assert rows(pieces, tmp_path / "out")["text"].to_list() == [
        f"A good line, number {n}." for n in range(len(DIRTY) + 2)
    ]
    content = path.read_bytes()
    for row, (data, _) in zip(found, DIRTY.values(), strict=True):
        assert set(row) == {"file", "line", "byte_offset", "rule", "detail", "raw"}
        assert content[row["byte_offset"] :].startswith(data)
        assert lines[row["line"] - 1] == data
        assert row["file"] == "s/dirty.jsonl"
        assert len(row["raw"]) < 10_000
    facts = Part(tmp_path / "out" / PARTS, 0).facts
    for line, offset in zip(facts["line"].tolist(), facts["byte_offset"].tolist(), strict=True):
        assert content[offset:].startswith(lines[line - 1].removesuffix(b"\r")[3 if line == 1 else 0 :]) or line == 1


@pytest.mark.parametrize(
    "broken", [file for file in BROKEN_FILES if file.for_root or os.geteuid()], ids=lambda f: f.name
)
def test_a_broken_file_is_accounted_for_line_by_line(broken: BrokenFile, tmp_path: Path) -> None:
    """Beside a good file, through the whole scan, in bounded memory."""
    data = tmp_path / "data"
    data.mkdir()
    beside = b'{"text": "Something good."}\n'
    if broken.kind == "chat":
        turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        beside = json.dumps({"conversations": turns}).encode() + b"\n"
    (data / "a-good-one.jsonl").write_bytes(beside)
    broken.make(data)
    tracemalloc.start()
    pieces = scanned(data / "*", tmp_path / "out", broken.kind)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < PEAK_BYTES
    spoilt = [piece for piece in pieces if "a-good-one" not in piece.label]
    assert sum(piece.scanned.valid for piece in spoilt) == broken.kept
    assert Counter({rule: found["count"] for rule, found in rules_broken(spoilt).items()}) == broken.faults
    assert sum(piece.scanned.read for piece in spoilt) == broken.lines
    assert sum(piece.scanned.blank for piece in spoilt) == broken.blank
    assert len(quarantine(spoilt, tmp_path / "out")) == broken.faults.total()


def test_there_are_at_least_forty_kinds_of_broken_file() -> None:
    assert len({file.name for file in BROKEN_FILES}) >= 40


@settings(max_examples=30)
@given(
    st.lists(
        st.one_of(st.binary(max_size=30).filter(lambda b: b"\n" not in b), st.integers(0, 5).map(good)), max_size=30
    )
)
def test_the_fates_add_up_whatever_the_bytes(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("any")
    path = folder / "any.jsonl"
    path.write_bytes(good(99) + b"\n" + b"".join(line + b"\n" for line in lines))
    pieces = scanned(path, folder / "out")
    total = lines_by_file(pieces)["s/any.jsonl"]
    assert total["read"] == len(lines) + 1 == total["valid"] + total["quarantined"] + total["blank"]
    assert total["valid"] == 1 + sum(line.startswith(b'{"text"') for line in lines)
    assert len(quarantine(pieces, folder / "out")) == total["quarantined"]


def test_lines_that_show_somebody_are_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "private.jsonl"
    path.write_bytes(b'{"text": "Write to jane.doe@company-mail.net today."}\n' + good(1) + b"\n")
    rules = ScanRules(max_line_bytes=1 << 20, filters=FilterConfig(personal_data=True), near_duplicates=False)
    [row] = quarantine(scanned(path, tmp_path / "out", rules=rules), tmp_path / "out")
    assert (row["rule"], row["line"], row["raw"]) == ("filter_personal_data", 1, "")
    assert "jane" not in json.dumps(row)


def test_too_many_bad_lines_stop_the_night_with_numbers_and_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\n".join([good(1)] + [b"no json"] * 6 + [good(n) for n in range(93)]))
    broken = rules_broken(scanned(path, tmp_path / "out"))
    with pytest.raises(NightStopped) as stop:
        stop_if_too_bad({"s/bad.jsonl": Counter(read=100, valid=94, quarantined=6)}, broken, LIMIT, tmp_path / "q")
    for part in ("6 of 100", "6.0%", "5.0%", "max_bad_share", "not_json", "s/bad.jsonl:2"):
        assert part in str(stop.value)
    stop_if_too_bad({"s/bad.jsonl": Counter(read=100, valid=95, quarantined=5)}, broken, LIMIT, tmp_path / "q")


def test_one_spoilt_file_cannot_hide_among_good_ones(tmp_path: Path) -> None:
    files = {"s/good": Counter(read=10_000, valid=10_000), "s/bad": Counter(read=200, valid=80, quarantined=120)}
    with pytest.raises(NightStopped, match=r"s/bad: 120 of 200 lines are bad: 60\.0%.*50\.0%.*max_bad_share_per_file"):
        stop_if_too_bad(files, {}, LIMIT, tmp_path)
    few = {"s/good": Counter(read=10_000, valid=10_000), "s/bad": Counter(read=20, valid=8, quarantined=12)}
    stop_if_too_bad(few, {}, LIMIT, tmp_path)


def test_nothing_kept_stops_the_night(tmp_path: Path) -> None:
    with pytest.raises(NightStopped, match="none of 0 lines"):
        stop_if_too_bad({}, {}, LIMIT, tmp_path)


def lost(body: bytes, folder: Path, kind: str = "chat") -> str:
    """Why a source of this file alone stops the night."""
    path = folder / "lost.jsonl"
    path.write_bytes(body)
    source = SourceConfig(name="s", kind=kind, location=str(path))
    pieces = scanned(path, folder / "out", kind)
    with pytest.raises(NightStopped) as stop:
        stop_if_a_source_is_lost(pieces, [source], folder / "out" / PARTS)
    return str(stop.value)


def test_a_source_without_a_good_row_stops_with_its_rule_and_the_cure(tmp_path: Path) -> None:
    openai = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}\n'
    told = lost(openai * 3 + b"no json\n", tmp_path)
    for part in ("source s: none of its 4 lines is a valid row.", "3 of them break the rule conversations_missing",
                 "and 1 other rule", "s/lost.jsonl:1", "set `format: openai`", str(tmp_path / "out")):  # fmt: skip
        assert part in told
    chinese = '{"text": "今天天气很好，我们一起去公园。"}\n'.encode("gbk")
    assert "iconv -f GB18030 -t UTF-8" in lost(chinese * 5, tmp_path, "pretrain")
    assert "rename the file to end in .gz" in lost(gzip.compress(good(1)), tmp_path, "pretrain")
    assert "there is no row in" in lost(b"", tmp_path)
    assert "3 blank lines alone" in lost(b"\n \n\n", tmp_path)


SHAPES_ALONE = {
    "[[{turns}], [{turns}]]": ("no row could be read\n  s/lost.jsonl: ", "an array of arrays", "jq -c '.[] | {conv"),
    '{"data": {"train": [{"conversations": [{turns}]}]}}': ("holds its rows in data.train", "jq -c '.data.train[]'"),
    '{"train": [{"conversations": [{turns}]}], "test": [{"conversations": []}]}': ("2 lists (train, test)", "a file"),
    '// comment\n[{"conversations": [{turns}]}]': ("no row could be read", "below a comment; remove"),
    "[{turns}]\n[{turns}]\n": ("none of its 2 lines is a valid row, all break the rule not_an_object", "bare arrays"),
    '{"role": "user", "content": "Hi"}\n{"role": "assistant", "content": "Hello"}\n': ("2 lines", "single turns"),
    "{}": ("its one line is no valid row: it breaks the rule conversations_missing", "Repair the data"),
    '{"messages": [{turns}]}\n{"instruction": "a", "output": "b"}\n': ("1 like openai, 1 like alpaca", "Split it"),
    "user,assistant\nHi,Hello\n": ("a table in CSV or TSV; convert it", "polars.read_csv(FILE).write_ndjson(NEW)"),
}  # fmt: skip
TURNS = '{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}'


@pytest.mark.parametrize("body", SHAPES_ALONE)
def test_a_source_of_one_strange_file_stops_with_what_it_is_and_its_cure(body: str, tmp_path: Path) -> None:
    told = lost(body.replace("{turns}", TURNS).encode(), tmp_path)
    for part in SHAPES_ALONE[body]:
        assert part in told
    for wrong in ("kind: pretrain", "row_keys_unsupported", "0 bytes", "its 1 line"):
        assert wrong not in told


def test_files_in_other_formats_among_good_ones_are_named_with_the_cure(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    ours, openai = f'{{"conversations": [{TURNS}]}}\n', f'{{"messages": [{TURNS}]}}\n'
    alpaca = '{"instruction": "a", "output": "b"}\n'
    for name, body in (("fine", ours * 9), ("mixed", (ours + openai + alpaca) * 3), ("theirs", openai * 5),
                       ("bad", '{"conversations": []}\n')):  # fmt: skip
        (data / f"{name}.jsonl").write_text(body)
    sources = [SourceConfig(name="s", kind="chat", location=str(data / "*"))]
    pieces = scanned(data / "*", out, "chat")
    cures = partial(cures_of_formats, pieces, sources, out / PARTS)
    with pytest.raises(NightStopped) as stop:
        stop_if_too_bad(lines_by_file(pieces), rules_broken(pieces), LIMIT, out / PARTS, cures)
    assert (
        "s/mixed.jsonl: bad rows look like others: 3 like openai, 3 like alpaca. Split it by format, and make each "
        "part a source with its `format`.\n"
        "s/theirs.jsonl: its rows look like openai. Make it a source of its own with `format: openai`.\n"
    ) in str(stop.value)
    assert "s/bad.jsonl: " not in str(stop.value)


def test_a_source_beside_others_is_judged_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "fine.jsonl"
    path.write_bytes(good(1) + b"\nno json\n")
    source = SourceConfig(name="s", kind="pretrain", location=str(path))
    stop_if_a_source_is_lost(scanned(path, tmp_path / "out"), [source], tmp_path / "out" / PARTS)


def test_blank_lines_are_counted_and_not_weighed(tmp_path: Path) -> None:
    path = tmp_path / "spaced.jsonl"
    path.write_bytes(b"\n\n".join(good(number) for number in range(200)) + b"\n\n")
    pieces = scanned(path, tmp_path / "out")
    by_file = lines_by_file(pieces)
    assert by_file["s/spaced.jsonl"] == Counter(read=400, valid=200, quarantined=0, blank=200, merged=0)
    stop_if_too_bad(by_file, rules_broken(pieces), LIMIT, tmp_path)
    worse = {"s/spaced.jsonl": Counter(read=400, valid=94, quarantined=6, blank=300)}
    with pytest.raises(NightStopped, match=r"6 of 100 lines are bad: 6\.0%"):
        stop_if_too_bad(worse, rules_broken(scanned(path, tmp_path / "out")), LIMIT, tmp_path)


def test_a_file_that_is_something_else_is_told_like_one_left_out(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "fine.jsonl").write_bytes(good(1) + b"\n")
    (data / "page.jsonl").write_bytes(b"<html>\n<p>Sorry</p>\n")
    (data / "torn.jsonl.gz").write_bytes(gzip.compress(good(1) + b"\n") + b"garbage")
    (page, reason), (torn, broken) = left_out(scanned(data / "*", tmp_path / "out"))
    assert (page, torn) == ("s/page.jsonl", "s/torn.jsonl.gz")
    assert reason.startswith("the file looks like HTML")
    assert "Not a gzipped file" in broken
    assert "1 line is read, what follows byte 35 is lost; bring it anew" in broken


def test_a_compressed_array_that_breaks_off_says_how_much_was_read(tmp_path: Path) -> None:
    lines = [good(number) for number in range(900)]
    body = gzip.compress(b"[" + b", ".join(lines) + b"]")
    path = tmp_path / "cut.json.gz"
    path.write_bytes(body[: len(body) // 2])
    pieces = scanned(path, tmp_path / "out")
    [(label, reason)] = left_out(pieces)
    [piece] = pieces
    valid = piece.scanned.valid
    assert (label, 0 < valid < 900) == ("s/cut.json.gz", True)
    offset = len(b"[" + b", ".join(lines[:valid]))
    assert f"{valid:,} rows are read, what follows byte {offset:,} is lost; bring it anew" in reason
    assert "EOFError" not in reason


def test_merged_turns_are_counted(tmp_path: Path) -> None:
    question, answer = ({"role": role, "content": role} for role in ("user", "assistant"))
    rows = [{"conversations": turns} for turns in ([question, answer], [question, question, answer], [question])]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for merge_turns, valid in ((False, 1), (True, 2)):
        source = SourceConfig(name="s", kind="chat", location=str(tmp_path / "a.jsonl"), merge_turns=merge_turns)
        out = tmp_path / str(merge_turns)
        out.mkdir()
        pieces = scan_pieces([(piece, "key") for piece in resolve([source], out).pieces], RULES, out, 0)
        [lines] = lines_by_file(pieces).values()
        assert (lines["valid"], lines["merged"]) == (valid, valid - 1)


def test_another_setting_for_turns_is_another_scan(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    sources = [
        SourceConfig(name="s", kind="chat", location=str(tmp_path / "a.jsonl"), merge_turns=merge_turns)
        for merge_turns in (False, True)
    ]
    keys = {scan_key(resolve([source], tmp_path).pieces[0], RULES) for source in sources}
    assert len(keys) == 2
