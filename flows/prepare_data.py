"""Raw jsonl → validated, deduplicated, split, tokenised, looked at."""

from __future__ import annotations

from dataclasses import dataclass

from prefect import flow

from tasks.artifacts import DatasetRef, Ref, StageRecord, TokensRef
from tasks.deduplicate import deduplicate
from tasks.inspect import inspect
from tasks.split import split
from tasks.stage import Night
from tasks.tokens import tokens
from tasks.validate import validate


@dataclass(frozen=True)
class Prepared:
    """What training and evaluation need, and the records of the stages that made it."""

    rows: DatasetRef
    tokens: TokensRef
    data: Ref
    """Statistics of the data."""
    records: list[StageRecord]


@flow(name="prepare-data", validate_parameters=False)
def prepare_data(night: Night) -> Prepared:
    """validate → deduplicate → split → tokens → inspect. Each stage adds what is new to what it made before."""
    validated = validate(night)
    distinct = deduplicate(night, DatasetRef(validated.path, validated.digest), grown_from=validated.inputs["base"])
    sides = split(night, DatasetRef(distinct.path, distinct.digest), grown_from=distinct.inputs["base"])
    rows = DatasetRef(sides.path, sides.digest)
    packed = tokens(night, rows, grown_from=sides.inputs["base"])
    inspected = inspect(night, validated, distinct, rows, packed)
    return Prepared(
        rows, TokensRef(packed.path, packed.digest), Ref(inspected.path, inspected.digest),
        [validated, distinct, sides, packed, inspected],
    )  # fmt: skip
