"""Rows that share a long prompt stay and are apart; copies of a row go, whatever they share."""

from __future__ import annotations

import random
from itertools import combinations, groupby

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.duplicates.ledger import EXACT, KEPT, NEAR
from data.duplicates.prompts import FEWEST_ROWS, OWN_WORDS, Counting, longest_runs
from data.rows.parts import CONTENT, asked_of, spoken_of, texts_of
from data.rows.sketch import shingle_hashes
from tests.data.corpus import RULES, WORDS, Home, Piece, Seen, document, home, plain, repeatable
from tests.data.duplicates.test_leaders import row_ids_of
from tests.reference.duplicates import jaccard

PROMPT_WORDS = 120
TURNS = CONTENT["chat"]["conversations"]


def own(number: int, num_words: int) -> str:
    """Words that no other number has."""
    return plain([f"{WORDS[number % len(WORDS)]}{number}w{place}" for place in range(num_words)])


def asked(prompt: int, number: int, num_words: int = 3) -> str:
    """A conversation of one exchange: a long prompt with a short question, and an answer."""
    return f"{plain(document(900 + prompt, PROMPT_WORDS))} {own(number, num_words)}\n{own(10_000 + number, num_words)}"


def headed(prompt: int, number: int) -> str:
    """A text below a header that others have, too."""
    return f"{plain(document(900 + prompt, PROMPT_WORDS))} {own(number, OWN_WORDS + 2)}"


def largest_cluster(rows: list[Seen]) -> int:
    names = sorted(row.cluster for row in rows if row.fate == KEPT)
    return max(len(list(same)) for _, same in groupby(names))


def is_val(row: Seen) -> bool:
    return bool(RULES.is_val(row_ids_of(row.cluster))[0])


@pytest.mark.parametrize("num_nights", [1, 3])
@pytest.mark.parametrize("num_prompts", [1, 4])
@pytest.mark.parametrize("kind", ["chat", "pretrain"])
def test_rows_of_one_prompt_stay_and_are_on_both_sides(num_nights: int, num_prompts: int, kind: str) -> None:
    make = asked if kind == "chat" else headed
    texts = [make(number % num_prompts, number) for number in range(96)]
    with home() as its:
        for night in range(num_nights):
            its.add(Piece(texts[night::num_nights], kind))
        seen = its.seen()
    assert [row.fate for row in seen] == [KEPT] * len(texts)
    assert largest_cluster(seen) == 1
    assert 0.2 < sum(map(is_val, seen)) / len(seen) < 0.6, "RULES hold 0.4 out"


def test_a_prompt_that_comes_in_small_numbers_is_known_in_time() -> None:
    """Fewer rows a night than a prompt is known by; those of later nights are not lost to the first ones."""
    with home() as its:
        for night in range(6):
            its.add(Piece([asked(0, 10 * night + n) for n in range(FEWEST_ROWS // 2)], "chat"))
        late = [row for row in its.seen() if row.generation > 1]
    assert all(row.fate == KEPT for row in late)


@repeatable
@given(st.integers(0, 10**6), st.integers(1, 3), st.sampled_from(["chat", "pretrain"]))
def test_copies_go_and_no_two_alike_stay_whatever_they_share(seed: int, num_nights: int, kind: str) -> None:
    """A copy has another word at the end of its own part: what is asked and learnt is alike, the name is not."""
    generator = random.Random(seed)
    make = asked if kind == "chat" else headed
    texts = [make(0, number) for number in range(8 * FEWEST_ROWS)]
    texts += [f"{make(0, number, 30) if kind == 'chat' else plain([make(0, number), own(number + 500, 60)])}"
              for number in range(200, 206)]  # fmt: skip
    copies = [f"{text} again{number}" for number, text in enumerate(texts[-6:])]
    every = [*texts, *copies]
    generator.shuffle(every)
    with home() as its:
        for night in range(num_nights):
            its.add(Piece(every[night::num_nights], kind))
        seen = its.seen()
    kept = {row.text for row in seen if row.fate == KEPT}
    assert all((text in kept) + (copy in kept) == 1 for text, copy in zip(texts[-6:], copies, strict=True))
    assert set(texts[:-6]) <= kept
    for row in (row for row in seen if row.fate == NEAR):
        assert seen[row.kept].fate == KEPT and row.text[:400] == seen[row.kept].text[:400]


@repeatable
@given(st.randoms(use_true_random=False), st.integers(1, 5))
def test_neither_order_nor_cutting_matters(generator: random.Random, rows_per_part: int) -> None:
    nights = [[asked(n % 2, 40 * night + n) for n in range(24)] + [asked(0, 7), own(night, 40)] for night in (0, 1)]

    def verdicts(its: Home) -> set[tuple[str, int, str]]:
        return {(row.name, row.fate, row.cluster) for row in its.seen() if row.fate != EXACT}

    with home() as whole, home() as cut:
        for texts in nights:
            whole.add(Piece(texts, "chat"))
            shuffled = generator.sample(texts, len(texts))
            cut.add(*(Piece(shuffled[n : n + rows_per_part], "chat") for n in range(0, len(texts), rows_per_part)))
            assert verdicts(whole) == verdicts(cut)
            generation = len(whole.ledger.generations) - 1
            shared = [its.files(generation)[f"g{generation:04d}.shared"] for its in (whole, cut)]
            assert shared[0] == shared[1]
            assert generation or shared[0]


def test_edits_of_one_text_are_no_passages_of_their_own() -> None:
    """Each has words of its own, here and there: a source of nothing else keeps one."""
    words = document(3, 200)
    copies = [plain([*words[:place], f"own{place}", *words[place + 1 :]]) for place in range(5, 195, 9)]
    with home() as its:
        its.add(Piece(copies))
        assert sum(row.fate == KEPT for row in its.seen()) == 1


def test_a_conversation_and_its_text_are_on_one_side_whatever_they_share() -> None:
    texts = [asked(0, number, 20) for number in range(40)]
    with home() as its:
        its.add(Piece([f"{text} end" for text in texts[:20]]), Piece(texts, "chat"))
        its.add(Piece([f"{text} end" for text in texts[20:]], source="web"))
        kept = [row for row in its.seen() if row.fate == KEPT]
    of_text = {row.text: row for row in kept}
    both = [(of_text[text], of_text[f"{text} end"]) for text in texts if text in of_text and f"{text} end" in of_text]
    assert len(both) >= 20
    assert all(is_val(one) == is_val(other) for one, other in both)


def test_system_turns_are_not_what_is_asked_and_learnt() -> None:
    roles = ("system", "user", "assistant", "user", "assistant")
    content = pl.Series([[{"role": role, "content": f"{role}{n}"} for n, role in enumerate(roles)]], dtype=TURNS)
    assert texts_of(content).to_list() == ["system0\nuser1\nassistant2\nuser3\nassistant4"]
    assert spoken_of(content).to_list() == ["user1\nassistant2\nuser3\nassistant4"]
    assert asked_of(content).to_list() == ["user1\nuser3"]
    text = pl.Series(["a text"])
    assert spoken_of(text).to_list() == asked_of(text).to_list() == ["a text"]


@repeatable
@given(st.lists(st.lists(st.booleans(), max_size=30), max_size=6))
def test_the_longest_run_of_each(marks: list[list[bool]]) -> None:
    owner = np.repeat(np.arange(len(marks)), [len(some) for some in marks])
    marked = np.array([mark for some in marks for mark in some], dtype=bool)
    expected = [max((len(list(run)) for mark, run in groupby(some) if mark), default=0) for some in marks]
    assert longest_runs(marked, owner, len(marks)).tolist() == expected


@repeatable
@given(st.sampled_from(["chat", "pretrain"]), st.integers(1, 40), st.booleans())
def test_which_shingles_count(kind: str, num_own: int, passages: bool) -> None:
    prompt, rest = plain(document(1, 60)), own(1, num_own)
    content = pl.Series([f"{prompt} {rest}", prompt, rest])
    shared = np.unique(shingle_hashes(pl.Series([prompt]))[0][:56])
    hashes, owner = Counting(shared, passages)(kind, content)
    whole = np.bincount(shingle_hashes(content)[1]).tolist()
    enough = num_own >= OWN_WORDS or kind == "chat" or not passages
    counted = np.bincount(owner, minlength=3).tolist()
    assert counted[0] == (num_own + 4 if enough else whole[0])
    assert counted[1] == (4 if kind == "chat" or not passages else whole[1]), "the last four reach beyond the prompt"
    assert counted[2] == num_own
    assert set(hashes[owner == 2].tolist()) == set(shingle_hashes(content[2:])[0].tolist())


def test_few_rows_of_one_prompt_are_copies() -> None:
    one, other = asked(0, 1), asked(0, 2)
    assert jaccard(one, other) > 0.8
    with home() as its:
        its.add(Piece([asked(0, number) for number in range(FEWEST_ROWS - 1)], "chat"))
        few = its.seen()
    assert sum(row.fate == KEPT for row in few) == 1, "too few to tell a prompt from copies"
    assert all(jaccard(a.text, b.text) > 0.8 for a, b in combinations(few, 2))
