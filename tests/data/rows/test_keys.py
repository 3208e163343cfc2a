"""Names hang on what a text says, not on its spacing or its way of composing characters; and hashes mix."""

from __future__ import annotations

import hashlib
import random
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from data.hashing import mixed
from data.rows.keys import ID_DTYPE, WHITE_SPACE, name_of, names_of, normalised, parse_name, row_ids
from tests.data.corpus import repeatable
from tests.reference.duplicates import keyed, name

SPACES = [chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace()]
COMPOSING = "eao\u0301\u0323\u0308éÅ\u212b\u1100\u1161가깍한が\u304b\u3099ﬁ①Ａ中😀"
texts = st.text(
    st.one_of(st.sampled_from(COMPOSING), st.sampled_from(SPACES), st.characters(codec="utf-8")), max_size=40
)
keys = st.integers(0, 2**64 - 1)


def test_white_space_is_what_python_calls_so() -> None:
    assert sorted(WHITE_SPACE) == [code for code in range(128) if chr(code).isspace()]
    assert {"\u3000", "\u00a0", "\u2028", " ", "\n"} <= set(SPACES)


@repeatable
@given(texts, st.integers(0, 2**32))
def test_white_space_counts_nowhere(text: str, seed: int) -> None:
    generator = random.Random(seed)
    spaced = "".join(c + generator.choice(["", generator.choice(SPACES)]) for c in text)
    assert normalised(spaced) == normalised(text)
    assert normalised(generator.choice(SPACES) + text) == normalised(text)


@pytest.mark.parametrize("space", SPACES)
def test_no_white_space_keeps_a_mark_from_its_letter(space: str) -> None:
    assert normalised(f"cafe{space}\u0301") == normalised("café") == "café".encode()
    assert normalised(f"\u1100{space}\u1161") == "가".encode()


@repeatable
@given(texts)
def test_ways_of_composing_are_one(text: str) -> None:
    forms = {normalised(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")}
    assert forms == {normalised(text)}
    assert normalised(normalised(text).decode()) == normalised(text)


@repeatable
@given(texts, texts)
def test_nothing_else_is_lost(one: str, other: str) -> None:
    """Characters beside white space stay, in order, up to canonical equivalence."""

    def said(text: str) -> str:
        return unicodedata.normalize("NFD", "".join(c for c in text if not c.isspace()))

    assert (normalised(one) == normalised(other)) == (said(one) == said(other))
    assert unicodedata.normalize("NFD", normalised(one).decode()) == said(one)


@pytest.mark.parametrize(
    ("one", "other"),
    [("a", "A"), ("ﬁ", "fi"), ("Ａ", "A"), ("①", "1"), ("ab", "a\u200bb"), ("a", "a\0"), ("é", "e"), ("ß", "ss")],
)
def test_what_looks_alike_is_not_the_same(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


@repeatable
@given(st.lists(texts, max_size=8))
def test_names_are_a_hash_of_what_a_text_says(some: list[str]) -> None:
    ids = row_ids(some)
    assert ids.dtype == ID_DTYPE and len(ids) == len(some)
    assert names_of(ids) == [name_of(identity) for identity in ids] == [name(text) for text in some]


@repeatable
@given(st.lists(st.tuples(keys, keys), max_size=20))
def test_names_round_trip_and_sort_like_ids(pairs: list[tuple[int, int]]) -> None:
    ids = np.array(pairs, dtype=ID_DTYPE)
    names = names_of(ids)
    assert names == [name_of(identity) for identity in ids] == [f"{hi:016x}{lo:016x}" for hi, lo in pairs]
    for one, identity in zip(names, ids, strict=True):
        assert parse_name(one).tolist() == [identity.tolist()]
    assert names_of(np.sort(ids)) == sorted(names)
    assert names_of(ids[::-1]) == names[::-1]  # a view that is not contiguous


@pytest.mark.parametrize("name", ["", "abc", "0" * 30, "0" * 34, "g" * 32])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError):
        parse_name(name)


@repeatable
@given(st.lists(keys, max_size=30), st.text(max_size=8))
def test_mixing_is_its_definition(values: list[int], seed: str) -> None:
    array = np.array(values, dtype=np.uint64)
    assert mixed(array, seed).tolist() == [keyed(value, seed) for value in values]
    assert array.tolist() == values


def unshifted(x: np.ndarray, shift: int) -> np.ndarray:
    """What gave x when it was combined with itself shifted to the right."""
    found = x
    for _ in range(64 // shift):
        found = x ^ (found >> np.uint64(shift))
    return found


def unmixed(values: np.ndarray, seed: str) -> np.ndarray:
    """The inverse of `mixed`."""
    key = np.frombuffer(hashlib.blake2b(seed.encode(), digest_size=16).digest(), dtype="<u8")
    x = unshifted(values ^ key[1], 31)
    for factor, shift in ((0x94D049BB133111EB, 27), (0xBF58476D1CE4E5B9, 30)):
        x = unshifted(x * np.uint64(pow(factor, -1, 1 << 64)), shift)
    return x ^ key[0]


@pytest.mark.parametrize("seed", ["", "salt", "shuffle-0-0"])
def test_mixing_can_be_undone_so_that_nothing_collides(seed: str) -> None:
    ranges = np.arange(50_000, dtype=np.uint64), np.arange(2**64 - 50_000, 2**64, dtype=np.uint64)
    values = np.concatenate([*ranges, np.uint64(1) << np.arange(20, 64, dtype=np.uint64)])
    assert (unmixed(mixed(values, seed), seed) == values).all()


@pytest.mark.parametrize("shift", [0, 24, 60])
def test_a_hash_of_a_range_is_uniform(shift: int) -> None:
    """Chi-square of sixteen values of any four bits."""
    hashes = mixed(np.arange(100_000, dtype=np.uint64), "salt") >> np.uint64(shift) & np.uint64(15)
    assert chisquare(np.bincount(hashes.astype(np.int64), minlength=16)).pvalue > 1e-4


@pytest.mark.parametrize(("one", "other"), [("salt", "shuffle-7-0"), ("shuffle-7-0", "shuffle-8-0"), ("a-0", "a-1")])
def test_hashes_under_two_keys_are_unrelated(one: str, other: str) -> None:
    values = np.arange(100_000, dtype=np.uint64)
    a, b = (mixed(values, seed) for seed in (one, other))
    assert abs(np.corrcoef(a.astype(np.float64), b.astype(np.float64))[0, 1]) < 4 / np.sqrt(len(values))
    cells = (a >> np.uint64(60)) * np.uint64(16) + (b >> np.uint64(60))
    assert chisquare(np.bincount(cells.astype(np.int64), minlength=256)).pvalue > 1e-4


def test_every_bit_of_a_key_turns_half_of_the_bits_of_its_hash() -> None:
    values = np.random.default_rng(3).integers(0, 2**64, 2_000, dtype=np.uint64)
    hashes = mixed(values, "salt")
    for bit in range(64):
        turned = np.bitwise_count(hashes ^ mixed(values ^ (np.uint64(1) << np.uint64(bit)), "salt"))
        assert abs(turned.mean() - 32) < 5 * 4 / np.sqrt(len(values))
