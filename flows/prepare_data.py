"""Raw jsonl → validated, deduplicated, split, tokenised, looked at."""

from __future__ import annotations

from dataclasses import dataclass

from prefect import flow

from tasks.home.records import DatasetRef, Ref, StageRecord, TokensRef
from tasks.stage import Night
from tasks.stages.deduplicate import deduplicate
from tasks.stages.inspect import inspect
from tasks.stages.split import split
from tasks.stages.tokens import tokens
from tasks.stages.validate import validate


@dataclass(frozen=True)
class Prepared:
    """What training and evaluation need, and the records of the stages that made it."""

    rows: DatasetRef
    tokens: TokensRef
    data: Ref
    """Statistics of the data."""
    records: list[StageRecord]


def packed_data(night: Night) -> list[StageRecord]:
    """validate → deduplicate → split → tokens. Each stage adds what is new to what it made before."""
    validated = validate(night)
    distinct = deduplicate(night, DatasetRef(validated.path, validated.digest), grown_from=validated.inputs["base"])
    sides = split(night, DatasetRef(distinct.path, distinct.digest), grown_from=distinct.inputs["base"])
    packed = tokens(night, DatasetRef(sides.path, sides.digest), grown_from=sides.inputs["base"])
    return [validated, distinct, sides, packed]


@flow(name="prepare-data", validate_parameters=False)
def prepare_data(night: Night) -> Prepared:
    """The packed data, looked at."""
    validated, distinct, sides, packed = packed_data(night)
    rows = DatasetRef(sides.path, sides.digest)
    inspected = inspect(night, validated, distinct, rows, packed)
    return Prepared(
        rows, TokensRef(packed.path, packed.digest), Ref(inspected.path, inspected.digest),
        [validated, distinct, sides, packed, inspected],
    )  # fmt: skip
