"""Generated corpora: what the census says is what a reader finds, and the files are a function of size and seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import orjson
import pytest

from benchmarks.data import corpora
from benchmarks.data.corpora import Census, append, generate
from benchmarks.data.material import SECTIONS, Material, Section
from benchmarks.data.row_rules import is_good, readable

SENTENCES = [
    f"The {a} {b} of this small corpus is long enough to be a sentence, and {c} at that."
    for a in ("first", "second", "third", "last")
    for b in ("line", "word", "row", "page", "file")
    for c in ("a good one", "not a bad one", "rather a plain one")
]


@pytest.fixture(scope="module")
def material() -> Material:
    """Few sentences stand for the built-in corpus, which takes seconds to read."""
    texts = {"chinese": ["今天天气很好。你叫什么名字？我不知道。"]}
    made = {
        name: Section.of(name, texts.get(name, SENTENCES)) for name in {n for part in SECTIONS.values() for n in part}
    }
    return {kind: {name: made[name] for name in part} for kind, part in SECTIONS.items()}


def found_in(folder: Path, prefix: str = "") -> Census:
    """The census by looking: near duplicates cannot be told from others and are left at 0."""
    rows = size = broken = copies = 0
    for kind in corpora.KINDS:
        seen: Counter[bytes] = Counter()
        for path in sorted(folder.glob(f"{prefix}{kind}-*.jsonl")):
            for line in path.read_bytes().splitlines():
                rows, size = rows + 1, size + len(line) + 1
                if is_good(line, kind):
                    seen[line] += 1
                else:
                    broken += 1
        copies += seen.total() - len(seen)
    return Census(rows, size, copies, 0, broken)


def test_the_census_is_what_a_reader_finds(tmp_path: Path, material: Material) -> None:
    census = generate(tmp_path, 3_000_000, material=material)
    found = found_in(tmp_path)
    assert (census.rows, census.bytes, census.exact_duplicates, census.broken) == (
        found.rows, found.bytes, found.exact_duplicates, found.broken,
    )  # fmt: skip
    assert 3_000_000 <= census.bytes < 3_050_000
    assert 0.01 < census.exact_duplicates / census.rows < 0.03
    assert 0.01 < census.near_duplicates / census.rows < 0.03
    assert 0.005 < census.broken / census.rows < 0.015
    assert 700 < census.bytes / census.rows < 1_400


def test_broken_lines_are_broken_in_several_ways(tmp_path: Path, material: Material) -> None:
    generate(tmp_path, 1_000_000, material=material)
    line = (tmp_path / "pretrain-000.jsonl").read_bytes().splitlines()[0]
    damaged = [corpora.broken(line, "pretrain", number) for number in range(8)]
    assert len(set(damaged)) == 8
    assert not any(is_good(one, "pretrain") for one in damaged)
    assert 0 < sum(readable(one, "pretrain") for one in damaged) < 8


def test_a_corpus_is_a_function_of_size_and_seed(tmp_path: Path, material: Material) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        generate(tmp_path / name, 300_000, seed, material)
    one, same, other = (
        [path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in ("one", "same", "other")
    )
    assert one == same
    assert one != other


def test_no_file_is_larger_than_the_limit(tmp_path: Path, material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpora, "FILE_BYTES", 400_000)
    monkeypatch.setattr(corpora, "BLOCK_ROWS", 50)
    census = generate(tmp_path, 2_000_000, material=material)
    sizes = [path.stat().st_size for path in tmp_path.glob("pretrain-*.jsonl")]
    assert len(sizes) >= 5
    assert max(sizes) <= 400_000
    assert found_in(tmp_path).rows == census.rows


def test_new_files_repeat_some_rows_that_were_there(tmp_path: Path, material: Material) -> None:
    first = generate(tmp_path, 2_000_000, material=material)
    old = {path: path.read_bytes() for path in tmp_path.iterdir()}
    second = append(tmp_path, share=0.1, material=material)
    assert {path: path.read_bytes() for path in old} == old
    assert sorted(path.name for path in set(tmp_path.iterdir()) - set(old)) == ["chat-001.jsonl", "pretrain-001.jsonl"]
    both = first + second
    found = found_in(tmp_path)
    assert (both.rows, both.bytes, both.broken) == (found.rows, found.bytes, found.broken)
    assert both.exact_duplicates == found.exact_duplicates
    assert 0.09 < second.bytes / first.bytes < 0.12


def test_the_vocabulary_goes_on_growing(tmp_path: Path, material: Material) -> None:
    """A few dozen sentences have a few dozen words; the made-up ones keep coming."""
    generate(tmp_path, 2_000_000, material=material)
    lines = (tmp_path / "pretrain-000.jsonl").read_bytes().splitlines()
    words: set[str] = set()
    sizes = []
    for line in lines:
        if is_good(line, "pretrain"):
            words.update(orjson.loads(line)["text"].split())
        sizes.append(len(words))
    assert sizes[-1] > 1.3 * sizes[len(sizes) // 2]


def test_a_section_without_text_is_refused() -> None:
    with pytest.raises(ValueError, match="'code' has no sentence"):
        Section.of("code", ["", " "])
