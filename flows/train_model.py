"""Tokens → a chat model."""

from __future__ import annotations

from dataclasses import dataclass

from prefect import flow

from tasks.home.records import CheckpointRef, StageRecord, TokensRef
from tasks.stage import Night
from tasks.stages.pretrain import pretrain
from tasks.stages.sft import sft


@dataclass(frozen=True)
class Trained:
    """The night's model, and the records of the stages that made it."""

    model: CheckpointRef
    records: list[StageRecord]


@flow(name="train-model", validate_parameters=False)
def train_model(night: Night, tokens: TokensRef) -> Trained:
    """pretrain → sft."""
    language_model = pretrain(night, tokens)
    chat_model = sft(night, tokens, CheckpointRef(language_model.path, language_model.digest))
    return Trained(CheckpointRef(chat_model.path, chat_model.digest), [language_model, chat_model])
