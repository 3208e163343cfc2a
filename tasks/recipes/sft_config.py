"""What fine-tuning on conversations has beside how it trains."""

from __future__ import annotations

from dataclasses import dataclass

from model.config.checks import Share, field_problems, require
from model.config.training import TrainConfig
from tasks.recipes.pretrain_config import described_as


@dataclass(frozen=True, kw_only=True)
class SftConfig(TrainConfig):
    """Training on conversations, mixed with some of the text that the model was pretrained on."""

    __pydantic_config__ = described_as(TrainConfig)

    replay_share: Share = 0.0
    """Share of the rows that are pretraining text, so that it is not forgotten (arXiv 2203.02155, 2205.12393). Of the
    targets it is more, as in conversations the answers alone are targets."""

    def __post_init__(self) -> None:
        super().__post_init__()
        problems = field_problems(self)
        if self.replay_share == 1:
            problems.append("replay_share (1) leaves no row of a conversation; set it below 1, to 0.25 say")
        require(problems, "SftConfig")
