"""A chat row: `{"conversations": [{"role": …, "content": …}, …]}`, checked turn by turn and as a whole.

A turn is a role, a content and whether it is learned. So reasoning, tools, tool calls and their results are text, in
the way of Qwen3's public chat format; the exported chat template writes the same text from the same messages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import pandera.polars as pa
import polars as pl

from schemas.jsonl import Fault
from schemas.pretrain import holds_text, is_decodable, is_printable, string_series, without
from schemas.report import Checked, faults_of

ROLES = ("system", "user", "assistant")
REPEATED = re.compile(r"\b(user|assistant) \1\b")
"""Turns of one role in a row, among the roles of a conversation."""


class ChatTurn(pa.DataFrameModel):
    """One turn; `row` is the conversation it belongs to."""

    row: int
    role: str = pa.Field(nullable=False)
    content: str = pa.Field(nullable=False)
    extra_keys: str
    context: bool

    @pa.check("role", name="role_unknown")
    @classmethod
    def role_is_known(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col(data.key).is_in(ROLES).fill_null(True))

    @pa.check("content", name="content_blank")
    @classmethod
    def content_holds_something(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return holds_text(data.lazyframe, data.key)

    @pa.check("content", name="content_control_characters")
    @classmethod
    def content_is_printable(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return is_printable(data.lazyframe, data.key)

    @pa.check("content", name="content_undecodable")
    @classmethod
    def content_is_decodable(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return is_decodable(data.lazyframe, data.key)

    @pa.check("extra_keys", name="turn_keys_unsupported")
    @classmethod
    def only_known_keys(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col(data.key) == "")

    class Config:
        strict = True


class Conversation(pa.DataFrameModel):
    """A conversation as a whole.

    `roles` is its roles in order, each followed by a space; `learned`: whether an answer is, or there is none.
    """

    row: int = pa.Field(unique=True)
    num_turns: int
    roles: str
    learned: bool

    @pa.check("num_turns", name="conversation_empty")
    @classmethod
    def has_turns(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col(data.key) > 0)

    @pa.check("roles", name="conversation_order")
    @classmethod
    def turns_alternate(cls, data: pa.PolarsData) -> pl.LazyFrame:
        pattern = r"^(?:system )?(?:user assistant )*(?:user )?$"
        return data.lazyframe.select(pl.col(data.key).str.contains(pattern))

    @pa.check("roles", name="conversation_unanswered")
    @classmethod
    def has_answer(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(
            (pl.col(data.key) == "") | pl.col(data.key).str.contains("assistant", literal=True)
        )

    @pa.check("learned", name="conversation_not_learned")
    @classmethod
    def is_learned(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col(data.key))

    class Config:
        strict = True


@dataclass(frozen=True)
class Turns:
    """Conversations of a chunk, flat."""

    rows: Sequence[int]
    """Index in the chunk of each conversation, rising; one without turns is listed too."""
    frame: pl.DataFrame
    """One line a turn: row, role, content, extra_keys, context. Those of a conversation are together and in order."""
    faults: dict[int, Fault]
    """Rows that hold no conversation, and why."""
    merged: frozenset[int] = frozenset()
    """Rows in which several turns of a role were made one, results of tools that were called together apart."""


def turn_frame(
    rows: Sequence[int], lengths: Sequence[int], roles: Sequence[object], contents: Sequence[object],
    lost: Sequence[object] | None = None, context: Sequence[bool] | None = None,
) -> pl.DataFrame:  # fmt: skip
    """One line a turn: row, role, content, extra_keys, and whether it is context whoever speaks.

    A role or content that is not a string is null.
    """
    owners = pl.DataFrame({"row": rows, "length": lengths}, schema={"row": pl.Int64, "length": pl.Int64})
    return pl.DataFrame(
        [
            owners.filter(pl.col("length") > 0).select(pl.col("row").repeat_by("length").explode())["row"],
            string_series("role", roles),
            string_series("content", contents),
            pl.repeat("", len(roles), dtype=pl.String, eager=True).alias("extra_keys")
            if lost is None
            else string_series("extra_keys", lost),
            pl.repeat(False, len(roles), dtype=pl.Boolean, eager=True).alias("context")
            if context is None
            else pl.Series("context", context, dtype=pl.Boolean),
        ]
    )


def check_turns(turns: Turns) -> Checked:
    """Check conversations turn by turn, then as a whole. The good ones come back as a frame (row, conversations).

    Keys of a turn that hold something beyond role and content are refused rather than ignored: a tool call that
    silently vanished would teach the model to answer without it. `schemas.adapters` writes those that it knows into the
    content.
    """
    faults = turns.faults | faults_of(ChatTurn, turns.frame)
    learned = (pl.col("role") == "assistant") & ~pl.col("context")
    turn = pl.struct("role", "content", learned.alias("learned"))
    grouped = turns.frame.group_by("row", maintain_order=True).agg("role", learned=learned.any(), conversations=turn)
    joined = pl.DataFrame({"row": turns.rows}, schema={"row": pl.Int64}).join(
        grouped, on="row", how="left", maintain_order="left"
    )
    sound = without(joined, faults)
    roles = (pl.col("role").list.join(" ") + " ").fill_null("")
    whole = sound.select(
        "row",
        num_turns=pl.col("role").list.len().cast(pl.Int64).fill_null(0),
        roles=roles,
        learned=pl.col("learned").fill_null(False) | ~roles.str.contains("assistant", literal=True),
    )
    as_whole = {row: with_cure(fault) for row, fault in faults_of(Conversation, whole).items()}
    faults |= as_whole
    good = without(sound, as_whole).select("row", "conversations")
    return Checked(good, faults, turns.merged.difference(faults))


def with_cure(fault: Fault) -> Fault:
    """The fault of a whole conversation, with what a recipe can do about it."""
    if fault.rule == "conversation_order" and REPEATED.search(fault.detail):
        return Fault(fault.rule, f"{fault.detail}; merge_turns of a source makes turns of one role in a row one turn")
    if fault.rule == "conversation_not_learned":
        return Fault(fault.rule, "every answer has weight 0 or train false: there is nothing to learn")
    return fault


def is_list_of_objects(value: object) -> TypeGuard[list[dict[str, object]]]:
    return isinstance(value, list) and set(map(type, value)) <= {dict}
