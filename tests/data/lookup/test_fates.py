"""Every row has one fate: the one that walking through all tables gives. What a model read is what its steps read."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from data.duplicates import likeness
from data.duplicates.decide import NearDuplicateRules, add_generation
from data.duplicates.ledger import EXACT, FATES, KEPT, NEAR, STRADDLING, Ledger
from data.lookup.exposure import ROWS_NOTED, ReadRows, TrainingInput, exposure_of, last_step, note_reading, rows_read
from data.lookup.fates import (
    HELD_OUT,
    TRAIN,
    UNPACKED,
    UNUSED,
    VALIDATION,
    WEIGHED_OUT,
    Corpus,
    Fate,
    fate_of,
    row_at_line,
    rows_named,
)
from data.lookup.neighbours import neighbours, rows_near
from data.rows.folding import bad_lines_of
from data.rows.keys import ID_DTYPE, names_of, normalised, parse_name
from data.rows.parts import FACTS_DTYPE, KINDS, Part, PartRows, texts_of
from data.rows.sketch import SKETCH_BYTES
from data.sides.read import read_train, read_val
from data.sides.rules import SideRules
from data.sides.slices import read_slices
from data.tokens.shards import num_packed_rows, open_segments, shard_paths
from model.tokens.order import Reading, permutation, rows_of_step
from tasks.questions.history import History
from tests.lived_home import LivedHome, live
from tests.reference.duplicates import jaccard


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> LivedHome:
    return live(tmp_path_factory.mktemp("lived"))


@pytest.fixture(scope="module")
def corpus(lived: LivedHome) -> Corpus:
    return History(lived.home).newest_data("tiny").corpus


@pytest.fixture(scope="module")
def fates(corpus: Corpus) -> list[Fate]:
    return [fate_of(corpus, row) for row in range(corpus.ledger.next_row)]


@pytest.fixture(scope="module")
def spaced(corpus: Corpus) -> list[str]:
    """Text of each row, in order of their numbers."""
    parts = corpus.ledger.parts
    return [text for part in parts for frame in part.part.rows() for text in texts_of(frame.to_series())]


@pytest.fixture(scope="module")
def texts(corpus: Corpus, spaced: list[str]) -> list[tuple[str, bytes]]:
    """Kind and normalised text of each row."""
    kinds = [part.kind for part in corpus.ledger.parts for _ in range(part.count)]
    return [(kind, normalised(text)) for kind, text in zip(kinds, spaced, strict=True)]


def whats(fates: list[Fate]) -> Counter[str]:
    return Counter(fate.what for fate in fates)


def test_the_home_has_rows_of_every_fate(fates: list[Fate]) -> None:
    wanted = {TRAIN, UNPACKED, WEIGHED_OUT, VALIDATION, UNUSED, FATES[EXACT], FATES[NEAR], FATES[STRADDLING]}
    assert set(whats(fates)) == wanted


def test_fates_are_those_of_the_tables(corpus: Corpus, fates: list[Fate]) -> None:
    codes = np.concatenate([corpus.ledger.fates_of(part) for part in corpus.ledger.parts])
    dealt = {row for kind in KINDS for row in read_train(corpus.sides, kind)["row"]}
    chosen = {row for kind in KINDS for row in read_val(corpus.sides, kind)["row"]}
    packed = {row for kind in KINDS for row in open_segments(corpus.shards, kind, "train")["document"]}
    clusters = np.concatenate([corpus.ledger.clusters_of(part) for part in corpus.ledger.parts])
    held = corpus.rules.is_val(clusters)
    for row, fate in enumerate(fates):
        assert fate.place.row == row
        if codes[row] != KEPT:
            assert fate.what == FATES[codes[row]]
        elif held[row]:
            assert row not in dealt | packed
            assert fate.what == (VALIDATION if row in chosen else UNUSED)
        else:
            assert row not in chosen
            assert fate.what == (TRAIN if row in packed else UNPACKED if row in dealt else WEIGHED_OUT)


def test_an_exact_duplicate_names_the_first_row_of_its_text(fates: list[Fate], texts: list[tuple[str, bytes]]) -> None:
    first: dict[tuple[str, bytes], int] = {}
    for row, text in enumerate(texts):
        first.setdefault(text, row)
    for fate in fates:
        expected = first[texts[fate.place.row]]
        assert fate.original == (expected if fate.what == FATES[EXACT] else None)
        assert (expected == fate.place.row) == (fate.what != FATES[EXACT])


def test_a_near_duplicate_names_the_row_that_it_repeats(corpus: Corpus, fates: list[Fate], spaced: list[str]) -> None:
    for fate in (f for f in fates if f.what == FATES[NEAR]):
        assert fate.kept is not None
        kept = fates[fate.kept]
        assert corpus.fate_code(fate.kept) == KEPT
        assert kept.place.part.kind == fate.place.part.kind
        assert jaccard(spaced[fate.place.row], spaced[fate.kept]) >= 0.8


def test_a_row_that_repeats_one_of_the_other_side_names_one_of_each(
    corpus: Corpus, fates: list[Fate], spaced: list[str]
) -> None:
    for fate in (f for f in fates if f.what == FATES[STRADDLING]):
        assert [side for side, _ in fate.both_sides] == [HELD_OUT, TRAIN]
        assert [corpus.is_val(row) for _, row in fate.both_sides] == [True, False]
        assert max(jaccard(spaced[fate.place.row], spaced[row]) for _, row in fate.both_sides) >= 0.8


def test_neighbours_are_mutual_and_near(corpus: Corpus) -> None:
    ledger, threshold = corpus.ledger, corpus.near_threshold
    assert threshold is not None
    rows = [row for row in range(ledger.next_row) if corpus.fate_code(row) != EXACT]
    found = {row: neighbours(ledger, [row], threshold) - {row} for row in rows}
    assert any(found.values())
    assert all(row in found[near] for row in rows for near in found[row]), "exact duplicates are in no index"
    for row in (row for row in rows if found[row]):
        reached, waiting = {row}, [row]
        while waiting:
            waiting += (more := found[waiting.pop()] - reached)
            reached |= more
        assert set(rows_near(ledger, row, threshold)) == reached - {row}
    assert list(rows_near(ledger, 0, None)) == []


def test_the_whole_cluster_is_found_in_a_long_run_of_one_band(tmp_path: Path) -> None:
    """A chain of sketches of which only the next ones are near to each other, all alike in their first band."""
    rng, count = np.random.default_rng(7), 64
    sketches = np.repeat(rng.integers(0, 256, (1, SKETCH_BYTES), dtype=np.uint8), count, axis=0)
    for row in range(1, count):
        sketches[row] = sketches[row - 1]
        sketches[row, rng.integers(4, SKETCH_BYTES, 2)] = rng.integers(0, 256, 2)
    sketches = sketches[rng.permutation(count)]
    part = Part(tmp_path, 0)
    names = np.frombuffer(rng.bytes(16 * count), dtype=ID_DTYPE)
    facts = np.zeros(count, dtype=FACTS_DTYPE)
    for array, suffix in ((names, "ids"), (sketches, "sketches"), (facts, "facts")):
        array.tofile(part.path(suffix))
    rules = SideRules(val_share=0.01, salt="", shuffle_seed=1, val_bytes_per_slice=1, weights={"s": 1.0})
    rows = PartRows(part, 0, count, "chat", "s")
    near = NearDuplicateRules(threshold=0.8, drop=False)
    with patch.object(likeness, "FEWEST_ROWS", count + 1):  # there are no texts to look for a prompt in
        ledger = add_generation(Ledger((), ()), [rows], tmp_path, near, rules.is_val)
    clusters = ledger.clusters_of(rows).tolist()
    assert len(set(clusters)) < count / 10
    for row in range(0, count, 4):
        assert set(rows_near(ledger, row, 0.8)) == {at for at in range(count) if clusters[at] == clusters[row]} - {row}


def test_a_name_finds_all_its_rows_and_no_other(corpus: Corpus, fates: list[Fate]) -> None:
    by_name: dict[str, list[int]] = defaultdict(list)
    for part in corpus.ledger.parts:
        for row, name in enumerate(names_of(part.part.ids), start=part.base):
            by_name[name].append(row)
            assert fates[row].place.name == name
    assert max(map(len, by_name.values())) > 5
    for name, rows in by_name.items():
        found = rows_named(corpus.ledger, parse_name(name))
        assert sorted(row for some in found for row in some) == rows
        assert (
            sum(map(len, rows_named(corpus.ledger, parse_name(name[:31] + "0123456789abcdef"[name[31] == "0"])))) == 0
        )


def test_each_line_is_a_row_or_quarantined_or_blank(lived: LivedHome, corpus: Corpus) -> None:
    pieces = History(lived.home).newest_data("tiny").pieces
    for part, piece in zip(corpus.ledger.parts, pieces, strict=True):
        lines = list(bad_lines_of(part.part))
        bad = {json.loads(line)["line"] for line in lines}
        found = {line: row_at_line(part, line) for line in range(len(piece.lines) + 3)}
        blank = {line for line in piece.lines if not lived.written[piece.label][line - 1].strip()}
        assert {line for line in piece.lines if found[line] is None} == bad | blank
        assert not bad & blank
        assert found[0] is None and found[len(piece.lines) + 1] is None
        rows = [found[line] for line in piece.lines if found[line] is not None]
        assert rows == list(range(part.base, part.base + part.count))
        content = (lived.raw / Path(piece.label).name).read_bytes()
        for line in (line for line in piece.lines if line not in bad | blank):
            place = corpus.place(found[line] or 0)
            assert content[place.byte_offset :].startswith(lived.written[piece.label][line - 1])


def test_slices_are_named_with_their_version(corpus: Corpus, fates: list[Fate]) -> None:
    slices = read_slices(corpus.sides)
    named = Counter(fate.slice.partition(",")[0] for fate in fates if fate.what == VALIDATION)
    assert named == {name: its.newest.documents for name, its in slices.items()}
    for fate in (f for f in fates if f.slice):
        name, generation = fate.slice.partition(",")[0], corpus.generation(fate.place.row).number
        [since] = [version for version in slices[name].versions if version.generation == generation]
        assert fate.slice == f"{name}, since version {since}, of generation {generation}"


def test_segments_are_those_of_the_table_of_all(corpus: Corpus, fates: list[Fate]) -> None:
    expected = {
        (document, row, start, length)
        for kind in KINDS
        for row, start, length, document, *_ in open_segments(corpus.shards, kind, "train").iter_rows()
    }
    found = [(f.place.row, s.packed_row, s.start, s.length) for f in fates for s in f.segments]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert any(len(fate.segments) > 2 for fate in fates)
    assert len({s.shard for f in fates for s in f.segments}) > 8


def test_rows_are_found_in_buckets_that_nothing_explains(corpus: Corpus, fates: list[Fate]) -> None:
    """As if the code that shuffles had changed since."""
    today = replace(corpus, rules=replace(corpus.rules, shuffle_seed=99))
    for fate in fates[::7]:
        assert fate_of(today, fate.place.row) == fate


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("steps", "seed"), [(0, 1), (3, 1), (25, 2), (120, 3)])
def test_what_a_stage_notes_is_what_a_walk_finds(
    corpus: Corpus, kind: str, steps: int, seed: int, tmp_path: Path
) -> None:
    num_rows = sum(num_packed_rows(path) for path in shard_paths(corpus.shards, kind, "train"))
    reading = Reading(num_rows, 4, seed, steps)
    trained = TrainingInput(kind, corpus.shards, reading)
    note_reading(tmp_path, trained)
    noted = ReadRows.read(tmp_path)
    exposure = exposure_of([trained], corpus.ledger.next_row)
    rows = np.flatnonzero(exposure.read).tolist()
    assert noted.first == [(row, exposure.packed[row], exposure.read[row]) for row in rows[:ROWS_NOTED]]
    expected: dict[str, tuple[int, int]] = {}
    for part in (part for part in corpus.ledger.parts if part.kind == kind):
        read, before = exposure.read[part.base : part.base + part.count], expected.get(part.source, (0, 0))
        expected[part.source] = before[0] + int((read > 0).sum()), before[1] + int(read.sum())
    assert noted.sources == expected
    walked = {row: step + 1 for step in range(steps) for row in rows_of_step(num_rows, 4, seed, step).tolist()}
    begun = steps * 4 // num_rows * num_rows
    for row in range(num_rows):
        at = walked.get(row, 0)
        position = permutation(num_rows, seed, begun // num_rows).tolist().index(row) + begun
        assert last_step(tmp_path, reading, row) == (at if position < steps * 4 else None)


@pytest.mark.parametrize(("steps", "seed"), [((0, 3), 1), ((30, 25), 2), ((120, 90), 3)])
def test_what_was_read_is_what_the_steps_read(corpus: Corpus, steps: tuple[int, int], seed: int) -> None:
    """The reference walks over all steps, packed row by packed row."""
    batch_rows, trained = 4, []
    tokens: Counter[int] = Counter()
    copies: dict[int, int] = Counter(row for kind in KINDS for row in read_train(corpus.sides, kind)["row"])
    packed: Counter[int] = Counter()
    for kind, num_steps in zip(KINDS, steps, strict=True):
        segments = open_segments(corpus.shards, kind, "train")
        num_rows = int(segments["row"].max()) + 1
        by_row = segments.partition_by("row", as_dict=True)
        for length, document in segments.select("length", "document").iter_rows():
            packed[document] += length
        for step in range(num_steps):
            for row in rows_of_step(num_rows, batch_rows, seed, step).tolist():
                for length, document in by_row[row,].select("length", "document").iter_rows():
                    tokens[document] += length
        trained.append(TrainingInput(kind, corpus.shards, Reading(num_rows, batch_rows, seed, num_steps)))
    exposure = exposure_of(trained, corpus.ledger.next_row)
    assert exposure.read.tolist() == [tokens[row] for row in range(corpus.ledger.next_row)]
    for part in corpus.ledger.parts:
        frames = list(rows_read(exposure, part, corpus.rules))
        rows = [row for row in range(part.base, part.base + part.count) if tokens[row]]
        assert [name for frame in frames for name in frame["name"]] == [corpus.place(row).name for row in rows]
        expected = [tokens[row] * copies[row] / packed[row] for row in rows]
        assert [times for frame in frames for times in frame["times"]] == pytest.approx(expected, abs=5e-4)
