"""Sketches: a function of one text alone, and an estimate as good as its docstring says."""

from __future__ import annotations

import hashlib
import random
import string
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.duplicates.near import accepted_from
from data.rows import sketch
from data.rows.sketch import BANDS, SKETCH_BYTES, band_keys, similarity, sketches_of, word_hashes
from tests.data.corpus import GAPS, VOCABULARIES, document, plain, repeatable, respaced
from tests.reference.duplicates import jaccard, shingles, word_hash, words

odd_texts = st.sampled_from(
    ["", " ", "\n\t", "a", "A", "中", "😀", "é", "中a", "a中b", "x" * 3_000, "’s", "\u00a0", "@[`{Zz"]
)
planted = st.tuples(st.integers(0, 8), st.integers(1, 90)).map(lambda p: plain(document(*p)))
some_texts = st.lists(st.one_of(odd_texts, planted, st.text(max_size=30)), max_size=12)
ALL_WORDS = sorted({word for vocabulary in VOCABULARIES for word in vocabulary} | {*string.ascii_letters, "@[", "`{"})


def sketched(*texts: str) -> np.ndarray:
    return sketches_of(pl.Series(texts, dtype=pl.String))


def likeness(one: str, other: str) -> float:
    return float(similarity(sketched(one), sketched(other))[0])


def random_text(generator: np.random.Generator, num_words: int) -> list[str]:
    return [f"w{number}" for number in generator.integers(0, 10**9, num_words)]


@repeatable
@given(some_texts, st.integers(1, 5_000))
def test_a_sketch_is_a_function_of_its_text_alone(texts: list[str], slice_bytes: int) -> None:
    alone = [sketched(text)[0] for text in texts]
    together = sketched(*texts)
    assert together.shape == (len(texts), SKETCH_BYTES) and together.dtype == np.uint8
    assert (together == np.array(alone, dtype=np.uint8).reshape(-1, SKETCH_BYTES)).all()
    with patch.object(sketch, "SLICE_BYTES", slice_bytes):
        assert (sketched(*texts) == together).all()
    assert (sketched(*texts[::-1]) == together[::-1]).all()
    series = pl.Series(texts, dtype=pl.String)
    assert (sketches_of(series[1:4]) == together[1:4]).all()
    assert (sketches_of(pl.concat([series[:2], series[2:]], rechunk=False)) == together).all()


@repeatable
@given(st.lists(st.sampled_from(ALL_WORDS), min_size=1, max_size=60), st.integers(0, 99))
def test_ascii_case_and_white_space_do_not_count(found: list[str], seed: int) -> None:
    text = plain(found)
    folded = "".join(c.swapcase() if c.isascii() else c for c in text)
    assert (sketched(text) == sketched(respaced(found, seed), folded, f"\n{text}\t\0 ")).all()


@repeatable
@given(st.text(st.sampled_from("ab é中文😀’"), max_size=30), st.integers(0, 99))
def test_wide_characters_are_words_whatever_stands_beside_them(text: str, seed: int) -> None:
    generator = random.Random(seed)
    apart = "".join(
        f"{generator.choice(('', *GAPS))}{c}{generator.choice(('', *GAPS))}" if ord(c) > 0x7FF else c for c in text
    )
    assert words(apart) == words(text)
    assert (sketched(apart) == sketched(text)).all()


@repeatable
@given(st.lists(st.one_of(odd_texts, st.sampled_from(ALL_WORDS), st.text(max_size=12)), max_size=30))
def test_word_hashes_are_those_of_a_loop_over_words(texts: list[str]) -> None:
    text = " " + " ".join(texts)
    raw, found = text.encode(), words(text)
    starts, hashes = word_hashes(raw)
    assert hashes.tolist() == [word_hash(word) for word in found]
    assert [raw[s : s + len(w.encode())].lower() for s, w in zip(starts, found, strict=True)] == [
        word.encode() for word in found
    ]


def test_a_text_has_as_many_shingles_as_words() -> None:
    texts = [plain(document(number, size)) for number in range(3) for size in (1, 2, 4, 5, 6, 40)]
    hashes, owner = sketch.shingle_hashes(pl.Series(texts))
    for number, text in enumerate(texts):
        mine = hashes[owner == number]
        assert len(mine) == len(words(text))
        assert len(set(mine.tolist())) == len(shingles(text))


def pairs(num_words: int, jaccard_index: float, count: int) -> list[tuple[str, str]]:
    """Pairs of one similarity, as near as may be to the one wanted: the first words of one are others in the other."""
    generator = np.random.default_rng(num_words)
    differing = max(1, round(num_words * (1 - jaccard_index) / (1 + jaccard_index)))
    found = []
    for _ in range(count):
        one = random_text(generator, num_words)
        found.append((plain(one), plain([*random_text(generator, differing), *one[differing:]])))
    return found


@pytest.mark.parametrize("num_words", [2, 3, 4, 6, 10, 25, 60, 120, 700])
@pytest.mark.parametrize("wanted", [0.33, 0.6, 0.8, 0.95])
def test_estimates_have_no_bias_and_the_spread_of_eighty_independent_bins(num_words: int, wanted: float) -> None:
    count = 250
    some = pairs(num_words, wanted, count)
    exact = jaccard(*some[0])
    assert {round(jaccard(*pair), 9) for pair in some[:20]} == {round(exact, 9)}
    one, other = (sketched(*texts) for texts in zip(*some, strict=True))
    errors = similarity(one, other) - exact
    spread = np.sqrt(exact * (1 - exact) / SKETCH_BYTES)
    assert abs(errors.mean()) < 5 * spread / np.sqrt(count)
    assert 0.6 * spread < errors.std() < 1.65 * spread


def test_bands_and_estimates_find_what_is_near_and_leave_what_is_not() -> None:
    """0.8: no pair in hundreds is missed; 0.3: about 7 of 50 share a band, and none is taken for near."""
    for wanted, fewest, most, accepted in ((0.8, 0.995, 1.0, (0.99, 1.0)), (0.3, 0.1, 0.18, (0.0, 0.0))):
        some = pairs(300, wanted, 1_000)
        one, other = (sketched(*texts) for texts in zip(*some, strict=True))
        shared = np.any([band_keys(one, band) == band_keys(other, band) for band in range(BANDS)], axis=0)
        assert fewest <= shared.mean() <= most
        low, high = accepted
        assert low <= (similarity(one, other) >= accepted_from(0.8)).mean() <= high


@repeatable
@given(st.one_of(odd_texts, planted))
def test_equal_texts_are_wholly_alike(text: str) -> None:
    assert likeness(text, text) == 1


@pytest.mark.parametrize("num_words", [1, 2, 3, 5, 20, 200])
def test_unrelated_texts_are_not_alike(num_words: int) -> None:
    """Of a hundred thousand pairs none is, however short: few values must not agree by chance in all bins."""
    generator = np.random.default_rng(5)
    sketches = sketched(*(plain(random_text(generator, num_words)) for _ in range(450)))
    one, other = np.triu_indices(len(sketches), 1)
    found = similarity(sketches[one], sketches[other])
    assert abs(found.mean()) < 0.001
    assert found.max() < 0.12
    assert found.min() >= -0.01


def test_short_texts_that_differ_in_one_word_are_no_near_duplicates() -> None:
    colours = ["red", "green", "blue", "black", "white", "grey", "brown", "pink"]
    some = sketched(*(f"{colour} apple" for colour in colours))
    one, other = np.triu_indices(len(some), 1)
    assert similarity(some[one], some[other]).max() < accepted_from(0.8)


def test_texts_without_words_are_alike_and_like_nothing_else() -> None:
    empty = sketched("", " ", "\n\t\r", "\0")
    assert (empty == empty[0]).all()
    others = sketched(*(f"word{number}" for number in range(300)))
    assert similarity(others, np.repeat(empty[:1], 300, axis=0)).max() < 0.12
    assert sketches_of(pl.Series([], dtype=pl.String)).shape == (0, SKETCH_BYTES)


def test_the_order_of_words_counts() -> None:
    found = random_text(np.random.default_rng(1), 100)
    assert likeness(plain(found), plain(sorted(found))) < 0.12


def test_real_texts_are_as_alike_as_their_shingles(docstrings: list[str]) -> None:
    sketches = sketched(*docstrings)
    one, other = np.triu_indices(len(docstrings), 1)
    estimates = similarity(sketches[one], sketches[other])
    related = np.argsort(estimates)[-60:]
    exact = np.array([jaccard(docstrings[a], docstrings[b]) for a, b in zip(one[related], other[related], strict=True)])
    assert exact.max() > 0.7
    assert np.abs(estimates[related] - exact).max() < 4 * 0.5 / np.sqrt(SKETCH_BYTES)
    assert (estimates < 0.5).mean() > 0.99


def test_sketches_on_disk_stay_readable() -> None:
    """Indexes of earlier nights hold sketches: a change of these digests asks for new ones of all rows."""
    texts = ["one", "Hello, world! 你好，世界 😀abc", "naïve " * 30, " ".join(str(number) for number in range(500))]
    digests = [hashlib.sha256(row.tobytes()).hexdigest()[:8] for row in sketched(*texts)]
    assert digests == ["7c42cd4c", "f52e050b", "8d317c09", "3bdf9960"]
