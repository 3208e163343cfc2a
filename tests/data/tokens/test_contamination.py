"""N-grams are found exactly where comparing tuples finds them, and nowhere across documents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.tokens import contamination
from data.tokens.contamination import CONTAMINATED_FROM, NGRAM_TOKENS, Fingerprints, ngram_hashes

quick = settings(max_examples=80)
Document = list[int]
NGram = tuple[int, ...]
documents = st.lists(st.lists(st.integers(0, 2), max_size=14), max_size=7)
"""So few ids that trigrams repeat."""


@contextmanager
def trigrams(block_tokens: int = 1 << 20) -> Iterator[None]:
    """N-grams of three tokens, and a sieve so coarse that most of what passes it is no hit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contamination, "NGRAM_TOKENS", 3)
        patch.setattr(contamination, "FILTER_BITS", 4)
        patch.setattr(contamination, "BLOCK_TOKENS", block_tokens)
        yield


def laid_out(documents: list[Document], dtype: type = np.uint16) -> tuple[np.ndarray, np.ndarray]:
    ids = np.array([token for document in documents for token in document], dtype=dtype)
    return ids, np.array([0, *accumulate(map(len, documents))])


def tuples_of(document: Document, length: int = 3) -> list[NGram]:
    return [tuple(document[start : start + length]) for start in range(len(document) - length + 1)]


def check_hashes(documents: list[Document], length: int, dtype: type = np.uint16) -> None:
    """One hash a tuple: in order, at its place, the same for equal tuples and for no others."""
    ids, offsets = laid_out(documents, dtype)
    hashes, where = ngram_hashes(ids, offsets)
    assert hashes.dtype == np.uint64
    expected = [
        (start + place, ngram)
        for start, document in zip(offsets.tolist(), documents, strict=False)
        for place, ngram in enumerate(tuples_of(document, length))
    ]
    assert where.tolist() == [place for place, _ in expected]
    tuple_of = dict(zip(hashes.tolist(), (ngram for _, ngram in expected), strict=True))
    assert [tuple_of[h] for h in hashes.tolist()] == [ngram for _, ngram in expected]
    assert len(tuple_of) == len({ngram for _, ngram in expected})


@quick
@given(documents)
def test_a_hash_stands_for_a_tuple_inside_a_document(documents: list[Document]) -> None:
    with trigrams():
        check_hashes(documents, 3)


@quick
@given(st.lists(st.lists(st.integers(0, 70_000), max_size=50), max_size=4), st.integers(15, 26))
def test_a_hash_stands_for_all_twenty_tokens(documents: list[Document], period: int) -> None:
    """Also where documents go round, so that their n-grams differ in where they begin alone."""
    check_hashes([*documents, list(range(period)) * 3], NGRAM_TOKENS, np.uint32)


def test_order_and_multiplicity_count() -> None:
    base = list(range(NGRAM_TOKENS))
    swapped, doubled, shifted = [1, 0, *base[2:]], [0, 0, *base[2:]], [token + 1 for token in base]
    hashes, _ = ngram_hashes(*laid_out([base, swapped, doubled, shifted, [*base[:-1], 99]]))
    assert len(set(hashes.tolist())) == 5


@quick
@given(documents, documents, st.integers(1, 30))
def test_what_is_found_is_what_both_sides_hold_for_any_size_of_blocks(
    validation: list[Document], train: list[Document], block_tokens: int
) -> None:
    with trigrams(block_tokens):
        fingerprints = Fingerprints.of(*laid_out(validation))
        found = fingerprints.found_in(*laid_out(train), fingerprints.sieve())
    held = {ngram for document in train for ngram in tuples_of(document)}
    ngrams = [ngram for document in validation for ngram in tuples_of(document)]
    assert [bool(found[place]) for place in fingerprints.place] == [ngram in held for ngram in ngrams]
    assert len(found) == len(fingerprints.hashes) == len(set(ngrams))
    shares = fingerprints.shares(found, len(validation))
    assert shares.tolist() == [
        sum(ngram in held for ngram in tuples) / max(1, len(tuples)) for tuples in map(tuples_of, validation)
    ]


def prose(seed: int, length: int) -> Document:
    return np.random.default_rng(seed).integers(0, 6_400, length).tolist()


def shares_of(validation: list[Document], train: list[Document]) -> list[float]:
    fingerprints = Fingerprints.of(*laid_out(validation))
    found = fingerprints.found_in(*laid_out(train), fingerprints.sieve())
    return fingerprints.shares(found, len(validation)).tolist()


def test_a_planted_copy_is_found_and_an_unrelated_text_is_not() -> None:
    copied, unrelated, short = prose(1, 300), prose(2, 300), prose(3, NGRAM_TOKENS - 1)
    train = [prose(4, 500), [*prose(5, 40), *copied, *prose(6, 40)], short, prose(7, 10)]
    assert shares_of([copied, unrelated, short], train) == [1.0, 0.0, 0.0]


def test_a_quarter_of_a_document_is_told_as_a_quarter() -> None:
    document = prose(1, 100 + NGRAM_TOKENS - 1)
    [share] = shares_of([document], [[*prose(2, 30), *document[: 25 + NGRAM_TOKENS - 1], *prose(3, 30)]])
    assert share == 0.25 >= CONTAMINATED_FROM


def test_a_copy_that_falls_apart_into_two_documents_is_only_found_in_parts() -> None:
    """What bridges the two stands nowhere in the train side."""
    document = prose(1, 100)
    [share] = shares_of([document], [document[:50], document[50:]])
    assert share == (2 * (50 - NGRAM_TOKENS + 1)) / (100 - NGRAM_TOKENS + 1)


@pytest.mark.parametrize("documents", [[], [[]], [[], [1, 2], []], [list(range(NGRAM_TOKENS - 1))]])
def test_documents_without_an_n_gram_hold_nothing(documents: list[Document]) -> None:
    hashes, where = ngram_hashes(*laid_out(documents))
    assert (len(hashes), len(where)) == (0, 0)
    assert shares_of(documents, [prose(1, 90)]) == [0.0] * len(documents)
    assert shares_of([prose(1, 90)], documents) == [0.0]


def test_fingerprints_come_back_from_disk(tmp_path: Path) -> None:
    """As three arrays, which is how workers get them."""
    fingerprints = Fingerprints.of(*laid_out([prose(1, 60), prose(2, 60)]))
    for name in ("hashes", "owner", "place"):
        np.save(tmp_path / f"{name}.npy", getattr(fingerprints, name))
    again = Fingerprints(*(np.load(tmp_path / f"{name}.npy") for name in ("hashes", "owner", "place")))
    found = again.found_in(*laid_out([prose(2, 60)]), again.sieve())
    assert again.shares(found, 2).tolist() == [0.0, 1.0]
