"""Tokens → a chat model."""

from __future__ import annotations

from prefect import flow

from tasks.home.records import StageRecord
from tasks.home.stage_table import TRAINING_STAGES
from tasks.stage import Night, declared


@flow(name="train-model", validate_parameters=False)
def train_model(night: Night, tokens: StageRecord) -> list[StageRecord]:
    """All training stages in order, each with the weights that it starts from. The last one's model is the night's."""
    records: dict[str, StageRecord] = {}
    for entry in TRAINING_STAGES:
        weights = [records[entry.starts_from]] if entry.starts_from else []
        records[entry.name] = declared(entry)(night, tokens, *weights)
    return list(records.values())
