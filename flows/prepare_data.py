"""Raw jsonl → validated, split, tokenised."""

from __future__ import annotations

from dataclasses import dataclass

from prefect import flow

from tasks.artifacts import DatasetRef, StageRecord, TokensRef
from tasks.split import split
from tasks.stage import Night
from tasks.tokens import tokens
from tasks.validate import validate


@dataclass(frozen=True)
class Prepared:
    """What training and evaluation need, and the records of the stages that made it."""

    rows: DatasetRef
    tokens: TokensRef
    records: list[StageRecord]


@flow(name="prepare-data", validate_parameters=False)
def prepare_data(night: Night) -> Prepared:
    """validate → split → tokens."""
    validated = validate(night)
    sides = split(night, DatasetRef(validated.path, validated.digest))
    rows = DatasetRef(sides.path, sides.digest)
    packed = tokens(night, rows)
    return Prepared(rows, TokensRef(packed.path, packed.digest), [validated, sides, packed])
