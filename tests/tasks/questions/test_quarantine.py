"""What was not kept is counted, shown, found, and looked at again by today's rules."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data.rows.keys import row_ids
from data.rows.parts import Part, Scanned
from data.rows.piece import Piece
from flows.__main__ import main
from schemas.jsonl import excerpt
from tasks.errors import NightStopped
from tasks.home.contents.validated import PARTS, PIECES, ScannedPiece, read_pieces, write_pieces
from tasks.home.journal import Journal
from tasks.pages.text import plural
from tasks.questions import quarantine
from tasks.questions.history import History
from tasks.questions.quarantine import BadLine, Validation, newest_validation
from tasks.questions.recheck import RecheckCounts, recheck
from tasks.recipes.recipe import Recipe, side_rules
from tasks.sources.resolve import resolve
from tasks.stages.validate import rules_of, scan_pieces
from tests.lived_home import first_night, publish, small_recipe

quick = settings(max_examples=80)


def validated(folder: Path, recipe: Recipe, home: Path) -> Validation:
    """A validation's output, as the stage leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [(piece, str(n)) for n, piece in enumerate(resolve(recipe.sources, home).pieces)]
    write_pieces(folder, scan_pieces(pieces, rules_of(recipe), folder, 0))
    return Validation(folder, recipe.name, read_pieces(folder))


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """With its raw files; two of the three are compressed."""
    raw = tmp_path / "raw"
    raw.mkdir()
    found = small_recipe(raw, "*.jsonl*")
    for label, lines in first_night(side_rules(found)).items():
        content, path = b"\n".join(lines) + b"\n", raw / Path(label).name
        if label.startswith("text"):
            path.write_bytes(content)
        else:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
    return found


@pytest.fixture
def validation(tmp_path: Path, recipe: Recipe) -> Validation:
    return validated(tmp_path / "validate", recipe, tmp_path / "home")


def with_rules(recipe: Recipe, min_characters: int | None, max_line_bytes: int) -> Recipe:
    filters = replace(recipe.validate.filters, min_characters=min_characters)
    return replace(recipe, validate=replace(recipe.validate, filters=filters, max_line_bytes=max_line_bytes))


def all_lines(validation: Validation) -> list[BadLine]:
    contents = [validation.lines(piece).read().decode() for piece in validation.pieces]
    return [BadLine(**json.loads(line)) for content in contents for line in content.splitlines()]


def test_lines_are_counted_by_rule_and_file(validation: Validation) -> None:
    counts = Counter((line.rule, line.file) for line in all_lines(validation))
    head, *rest = quarantine.summary(validation)
    assert head.startswith(
        f"{counts.total()} of {sum(p.scanned.read for p in validation.pieces)} lines were quarantined"
    )
    assert {tuple(line.split()[1:3]): int(line.split()[0]) for line in rest} == dict(counts)
    numbers = [int(line.split()[0]) for line in rest]
    assert numbers == sorted(numbers, reverse=True)


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_the_first_lines_of_a_rule_and_file_are_listed(validation: Validation, limit: int) -> None:
    lines = all_lines(validation)
    for rule, file in [*{(line.rule, line.file) for line in lines}, (lines[0].rule, None), (None, lines[0].file)]:
        chosen = [line for line in lines if rule in (None, line.rule) and file in (None, line.file)]
        shown = quarantine.listing(validation, rule, file, limit)
        assert shown == [
            *(line.as_text() for line in chosen[:limit]),
            f"{min(limit, len(chosen))} of {plural(len(chosen), 'line')} shown",
        ]
        assert max(map(len, shown)) < 600


def test_a_line_is_found_by_its_number(validation: Validation) -> None:
    lines = {(line.file, line.line): line for line in all_lines(validation)}
    for piece in validation.pieces:
        for number in range(piece.scanned.read + 2):
            assert quarantine.line_at(validation.lines(piece), number) == lines.get((piece.label, number))


spelt = st.sampled_from([lambda t: json.dumps({"text": t}), lambda t: json.dumps({"text": t}, ensure_ascii=False)])
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=300)


@pytest.fixture(scope="module")
def one_line(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Validation]:
    """A quarantine of one line."""
    piece = ScannedPiece(
        piece=Piece(source="s", label="s/f.jsonl", start=0, end=None, first_line=1, num_lines=0, digest=""),
        number=0, kind="pretrain", scan_key="",
        scanned=Scanned(read=1, valid=0, quarantined=1, num_bytes=0, rules={}, statistics={}),
    )  # fmt: skip
    found = Validation(tmp_path_factory.mktemp("one"), "tiny", [piece])
    path = Part(found.folder / PARTS, piece.number).path("quarantine.jsonl")
    path.parent.mkdir()

    def with_raw(raw: str) -> Validation:
        row = asdict(BadLine("s/f.jsonl", 1, 0, "rule", "detail", excerpt(raw.encode())))
        path.write_text(json.dumps(row, ensure_ascii=False) + "\n")
        return found

    return with_raw


@quick
@given(text=texts, times=st.integers(1, 30), spell=spelt, other=texts)
def test_a_text_is_found_however_its_line_spells_it(
    one_line: Callable[[str], Validation], text: str, times: int, spell: Callable[[str], str], other: str
) -> None:
    """Even cut off in the middle; and no text that has nothing to do with it."""
    validation = one_line(spell(text * times))
    assume(quarantine.letters_of(quarantine.beginning_of(text)))
    assert len(quarantine.search_text(validation, text * times, 5).lines) == 1
    if quarantine.letters_of(other) not in quarantine.letters_of(f"text{text * times}"):
        assert quarantine.search_text(validation, other, 5).lines == []
    if len(spell(text)) < 500:
        assert len(quarantine.search_name(one_line(spell(text)), row_ids([text]), 5).lines) == 1
        assert quarantine.search_name(validation, row_ids([text + "x"]), 5).lines == []


def test_a_search_says_how_far_it_went(validation: Validation) -> None:
    total = len(all_lines(validation))
    nothing = quarantine.search_text(validation, "nobody wrote this", 5)
    assert (nothing.lines, nothing.searched, nothing.total) == ([], total, total)
    one = quarantine.search_text(validation, "cut off", 1)
    assert len(one.lines) == 1
    assert one.searched < total


@pytest.mark.parametrize(("min_characters", "max_line_bytes"), [(8, 5_000), (None, 5_000), (None, 100_000), (8, 9_500)])
def test_what_would_be_kept_is_what_a_new_scan_keeps(
    tmp_path: Path, recipe: Recipe, validation: Validation, min_characters: int | None, max_line_bytes: int
) -> None:
    today = with_rules(recipe, min_characters, max_line_bytes)
    found = recheck(validation, today, tmp_path / "home", None, None)
    before = {(line.file, line.line): line.rule for line in all_lines(validation)}
    after = {
        (line.file, line.line): line.rule for line in all_lines(validated(tmp_path / "new", today, tmp_path / "home"))
    }
    assert found.read == Counter(before.values())
    assert found.admitted == Counter(rule for place, rule in before.items() if place not in after)
    assert found.still == Counter((rule, after[place]) for place, rule in before.items() if place in after)
    assert not found.gone
    text = "\n".join(found.as_text())
    assert ("the next night validates them again" in text) == bool(found.admitted)
    assert f"{found.admitted.total()} would be kept now" in text


def test_a_rule_or_file_is_looked_at_alone(tmp_path: Path, recipe: Recipe, validation: Validation) -> None:
    today = with_rules(recipe, None, 100_000)
    of_rule = recheck(validation, today, tmp_path / "home", "line_too_long", None)
    assert (of_rule.read, of_rule.admitted) == (Counter(line_too_long=3), Counter(line_too_long=2))
    of_file = recheck(validation, today, tmp_path / "home", None, "text/text.jsonl")
    assert of_file.read.total() == 6


def test_lines_of_files_that_changed_or_went_are_not_guessed_at(
    tmp_path: Path, recipe: Recipe, validation: Validation
) -> None:
    """What the quarantine holds whole is still judged."""
    today = with_rules(recipe, None, 100_000)
    changed = tmp_path / "raw" / "text.jsonl"
    changed.write_bytes(changed.read_bytes().replace(b"far too long", b"not the same"))
    (tmp_path / "raw" / "talk.jsonl.gz").unlink()
    found = recheck(validation, today, tmp_path / "home", None, None)
    assert found.gone == Counter(line_too_long=2, not_utf8=1)
    assert found.admitted["filter_too_short"] == 2
    assert found.read == found.admitted + Counter(r for (r, _), n in found.still.items() for _ in range(n)) + found.gone
    without = replace(today, sources=today.sources[1:])
    assert recheck(validation, without, tmp_path / "home", None, "text/text.jsonl").gone.total() == 6


def test_nothing_rechecked_is_told_without_a_promise() -> None:
    [only] = RecheckCounts().as_text()
    assert only.startswith("0 quarantined lines checked again: 0 would be kept now")


def test_a_validation_that_stopped_its_night_is_the_newest(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("NIGHTSCHOOL_HOME", str(home))
    validated(home / "data" / "validate@0123456789ab.partial", recipe, home)
    assert main(["quarantine"]) == 0
    assert "by validate@0123456789ab.partial, the night that stopped there" in capsys.readouterr().out
    assert main(["quarantine", "--rule", "not_json", "--show", "1"]) == 0
    assert capsys.readouterr().out.endswith("1 of 3 lines shown\n")
    assert main(["quarantine", "--recheck"]) == 2
    assert "name one with --recipe" in capsys.readouterr().err
    assert newest_validation(History(home), "demo").recipe is None
    settings = [
        f"sources.{n}.{key}={value}"
        for n, source in enumerate(recipe.sources[:2])
        for key, value in (("name", source.name), ("kind", source.kind), ("location", source.location))
    ]
    words = [word for setting in [*settings, "validate.max_line_bytes=100000"] for word in ("--set", setting)]
    assert main(["quarantine", "--recheck", "--recipe", "demo", "--rule", "line_too_long", *words]) == 0
    assert "3 quarantined lines checked again" in capsys.readouterr().out
    shutil.rmtree(home / "data")
    with pytest.raises(NightStopped, match="no night has validated anything"):
        newest_validation(History(home), None)


def test_the_newer_of_a_stopped_and_a_finished_validation_is_shown(tmp_path: Path, recipe: Recipe) -> None:
    home = tmp_path / "home"
    record = publish(home, "validate", {}, {"read": 1})
    Journal(home).remember(record, "tiny")
    validated(record.path, recipe, home)
    stopped = home / "data" / "validate@0123456789ab.partial"
    validated(stopped, recipe, home)
    history = History(home)
    for seconds, expected in ((-9, record.path), (9, stopped)):
        then = (record.path / PIECES).stat().st_mtime + seconds
        os.utime(stopped / PIECES, (then, then))
        assert newest_validation(history, None).folder == expected
        assert newest_validation(history, "tiny").folder == record.path
    assert newest_validation(history, "another").folder == stopped
