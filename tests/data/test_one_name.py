"""A name ignores every white space, a sketch sees some: copies of one name must not land on two sides."""

from __future__ import annotations

import pytest

from tests.data.corpus import Piece, home

WORDS = " ".join(f"word{number}" for number in range(40))
RESPACED = WORDS.replace(" ", "\u00a0")


@pytest.mark.parametrize("at_once", [True, False])
def test_one_name_in_two_kinds_is_kept_twice_in_one_cluster(at_once: bool) -> None:
    with home() as here:
        text, chat = Piece([WORDS]), Piece([RESPACED], kind="chat")
        for pieces in [(text, chat)] if at_once else [(text,), (chat,)]:
            here.add(*pieces)
        one, other = here.kept()
        assert one.name == other.name and one.cluster == other.cluster
        assert {one.kind, other.kind} == {"pretrain", "chat"}
