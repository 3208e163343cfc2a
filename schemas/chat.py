"""A chat row: `{"conversations": [{"role": …, "content": …}, …]}`, checked turn by turn and as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandera.polars as pa
import polars as pl

from schemas.pretrain import CONTROL_CHARACTERS, string_or_none
from schemas.report import Checked, faults_of

ROLES = ("system", "user", "assistant")
TURN_KEYS = frozenset({"role", "content"})
TURNS = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))


class ChatTurn(pa.DataFrameModel):
    """One turn; `row` is the conversation it belongs to."""

    row: int
    turn: int
    role: str = pa.Field(nullable=False)
    content: str = pa.Field(nullable=False)
    extra_keys: str

    @pa.check("role", name="role_unknown")
    @classmethod
    def role_is_known(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col(data.key).is_in(ROLES).fill_null(True))

    @pa.check("content", name="content_blank")
    @classmethod
    def has_content(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select((pl.col(data.key).str.strip_chars().str.len_bytes() > 0).fill_null(True))

    @pa.check("content", name="content_control_characters")
    @classmethod
    def is_printable(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select((~pl.col(data.key).str.contains(CONTROL_CHARACTERS)).fill_null(True))

    @pa.check("extra_keys", name="turn_keys_unsupported")
    @classmethod
    def only_known_keys(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col(data.key) == "")

    class Config:
        strict = True


class Conversation(pa.DataFrameModel):
    """A conversation as a whole; `roles` is its roles in order, joined by spaces."""

    row: int = pa.Field(unique=True)
    num_turns: int = pa.Field(nullable=False)
    roles: str

    @pa.check("num_turns", name="conversation_empty")
    @classmethod
    def has_turns(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select((pl.col(data.key) > 0).fill_null(True))

    @pa.check("roles", name="conversation_order")
    @classmethod
    def turns_alternate(cls, data: pa.PolarsData) -> pl.LazyFrame:
        pattern = r"^(system )?(user assistant )*(user )?$"
        empty_or_alternating = pl.col(data.key).str.contains(pattern)
        return data.lazyframe.select(empty_or_alternating)

    @pa.check("roles", name="conversation_unanswered")
    @classmethod
    def has_answer(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select((pl.col(data.key) == "") | pl.col(data.key).str.contains("assistant"))

    class Config:
        strict = True


def turns_of(row: Mapping[str, object]) -> list[Mapping[str, object]] | None:
    """The list of turns, or None if the row has no such list."""
    turns = row.get("conversations")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return None
    return turns


def check_chat(rows: Sequence[Mapping[str, object]]) -> Checked:
    """Check parsed rows. The good ones come back as a frame (row, conversations).

    Keys of a turn beyond role and content are refused rather than ignored: a tool call that silently vanished
    would teach the model to answer without it.
    """
    conversations = [turns_of(row) for row in rows]
    turns = pl.DataFrame(
        [
            (index, number, string_or_none(turn.get("role")), string_or_none(turn.get("content")),
             ",".join(sorted(repr(key) for key, value in turn.items() if key not in TURN_KEYS and value)))
            for index, conversation in enumerate(conversations)
            for number, turn in enumerate(conversation or [])
        ],
        schema={"row": pl.Int64, "turn": pl.Int64, "role": pl.String, "content": pl.String, "extra_keys": pl.String},
        orient="row",
    )  # fmt: skip
    faults = faults_of(ChatTurn, turns)
    whole = pl.DataFrame(
        {
            "row": range(len(rows)),
            "num_turns": [None if c is None else len(c) for c in conversations],
            "roles": ["".join(f"{turn.get('role')} " for turn in c or []) for c in conversations],
        },
        schema={"row": pl.Int64, "num_turns": pl.Int64, "roles": pl.String},
    )
    as_whole = faults_of(Conversation, whole.filter(~pl.col("row").is_in(list(faults))))
    faults |= {
        row: fault if fault.rule != "num_turns_missing" else type(fault)("conversations_missing", "no list of turns")
        for row, fault in as_whole.items()
    }
    good = [index for index in range(len(rows)) if index not in faults]
    return Checked(
        pl.DataFrame(
            {
                "row": good,
                "conversations": [
                    [{"role": t["role"], "content": t["content"]} for t in conversations[i] or []] for i in good
                ],
            },
            schema={"row": pl.Int64, "conversations": TURNS},
        ),
        faults,
    )
