"""Raw jsonl → validated, deduplicated, split, tokenised, looked at."""

from __future__ import annotations

from dataclasses import dataclass

from prefect import flow

from tasks.errors import StoreAway
from tasks.home.records import StageRecord
from tasks.night.incumbent import champion_of
from tasks.services.endings import ON_FAILURE
from tasks.stage import Night
from tasks.stages.deduplicate import deduplicate
from tasks.stages.inspect import inspect
from tasks.stages.split import split
from tasks.stages.tokens import tokens
from tasks.stages.validate import validate
from tasks.tracking.registry import ModelFilesGone


@dataclass(frozen=True)
class Prepared:
    """What training and evaluation need, and the records of all stages that made it."""

    rows: StageRecord
    tokens: StageRecord
    data: StageRecord
    """The data report."""
    records: list[StageRecord]


def packed_data(night: Night) -> list[StageRecord]:
    """validate → deduplicate → split → tokens. Each stage adds what is new to what it made before."""
    validated = validate(night)
    distinct = deduplicate(night, validated)
    sides = split(night, distinct)
    return [validated, distinct, sides, tokens(night, sides)]


@flow(
    name="prepare-data", flow_run_name="prepare-data {night.recipe.name} {night.day}", validate_parameters=False,
    on_failure=ON_FAILURE,
)  # fmt: skip
def prepare_data(night: Night) -> Prepared:
    """The packed data, looked at."""
    validated, distinct, sides, packed = packed_data(night)
    champion, unknown = None, ""
    try:
        champion = champion_of(night)
    except (StoreAway, ModelFilesGone) as problem:
        unknown = str(problem)
    inspected = inspect(night, validated, distinct, sides, packed, champion, unknown)
    return Prepared(sides, packed, inspected, [validated, distinct, sides, packed, inspected])
