"""How pretraining goes on from night to night, beside how it trains."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from model.config.checks import STRICT, Range, Share, field_problems, require
from model.config.optim import OptimConfig
from model.config.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class PretrainOptimConfig(OptimConfig):
    """The same with a stretch at the peak unless it is said otherwise: the trunk is made there."""

    __pydantic_config__ = STRICT

    stable_share: Share = 0.75
    """Share of all steps at the peak after warming up; the rest decays. 0, for which there is no trunk, takes
    `pretrain.start: scratch` or `champion`."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainConfig):
    """Training on text: the first night takes `num_tokens`, each later one goes on from the night before.

    The trunk is the training at its peak rate, which grows from night to night; each night ends on a branch of it, the
    decay of the schedule, whose model is fine-tuned and judged (arXiv 2404.06395, 2405.18392).
    """

    __pydantic_config__ = STRICT

    optim: PretrainOptimConfig = field(default_factory=PretrainOptimConfig)
    """Optimizer and schedule."""
    start: Literal["trunk", "champion", "scratch"] = "trunk"
    """What a night begins with: `trunk`, weights and moments before the last night's decay; `champion`, the champion's
    pretrained weights, warmed up again (arXiv 2403.08763); `scratch`, weights from the seed."""
    night_tokens: Annotated[int, Range(1, 10**15)] | None = None
    """Token slots of a night that goes on, decay included; null takes `num_tokens`."""
    night_minutes: Annotated[float, Range(0, 10**5, above=True)] | None = None
    """The same as a time: as many steps as a measurement at the night's start expects in it; null takes tokens."""
    replay_share: Share = 0.25
    """Share of a night's rows that the trunk has read before, so that it does not forget them; the others are new."""
    new_rows_epochs: Annotated[float, Range(0, 10**6, above=True)] = 4.0
    """How often a night reads a new row at most: where that leaves room, more are read again (arXiv 2305.16264)."""
    restart_every_nights: Annotated[int, Range(1, 10**6)] | None = None
    """Nights after which the trunk begins from scratch again; null goes on for ever."""

    def __post_init__(self) -> None:
        super().__post_init__()
        problems = field_problems(self)
        if self.night_tokens is not None and self.night_minutes is not None:
            problems.append(
                f"night_tokens ({self.night_tokens}) and night_minutes ({self.night_minutes}) are two budgets of one "
                "night; leave one of them out"
            )
        if self.start == "trunk" and not self.optim.stable_share:
            problems.append(
                "start (trunk) with optim.stable_share (0): a trunk is trained at the peak rate, and there is no "
                "stretch of it; set optim.stable_share, to 0.75 say, or start: scratch"
            )
        require(problems, "PretrainConfig")

    def trunk_problems(self) -> list[str]:
        """Why later nights could not go on from the trunk of a first one; nothing if they can."""
        branch = self.optim.warmup_share + self.optim.stable_share
        late = [change.at_share for change in self.expert_changes if change.at_share > branch + 1e-9]
        if self.start != "trunk" or not late:
            return []
        return [
            f"expert_changes at_share ({', '.join(f'{share:g}' for share in late)}) with start (trunk): the trunk is "
            f"kept where the decay begins, at {branch:g}, and would have the experts of before; change them earlier or "
            "set start: scratch"
        ]

    def going_on(self, num_tokens: int, warm: bool) -> TrainConfig:
        """How a night trains that goes on, over `num_tokens` token slots.

        Warm, with its moments, the trunk stays at the peak until the decay, which takes the same share as in the first
        night; else the schedule begins with its warm-up. Experts were changed in the first night.
        """
        optim = self.optim
        if warm:
            optim = replace(optim, warmup_share=0.0, stable_share=min(1.0, optim.warmup_share + optim.stable_share))
        return replace(self, num_tokens=num_tokens, optim=optim, expert_changes=())
