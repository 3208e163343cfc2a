"""Spikes of a training: steps whose loss or gradient norm is far from usual, followed until it is known what they were.

A step that stands out makes training suspect. Then either the figures come back, and it was benign, or they do not, and
training diverges; a batch whose loss is what its domains' usual losses make of it was only mixed unlike others. All of
it is a function of the recorded steps, so that a training that was broken off and resumed has the same verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from model.dynamics.baseline import Baseline

LIMIT_DEVIATIONS = 6.0
"""Beyond so many a step stands out: clean runs of this trainer came to 4.4 for the loss."""
LOSS_FLOOR_SHARE, LOG_NORM_FLOOR = 0.003, 0.25
"""Smallest deviations: of the loss as a share of it, of the norm's logarithm, whose noise is calm for long and then is
not: with this floor a norm stands out from 4.5 times its median on."""
CALM_STEPS = 4
"""Usual steps one after another that end an incident."""
PATIENCE_STEPS = 12
"""Steps that stand out, of one incident, after which training diverges if most domains are worse than usual."""
LONGEST_STEPS = 64
"""Steps after which an incident is judged in any case."""
MOVED_SHARE = 0.5
"""Of the targets in known domains: from it on "most" have moved."""


class Judgement(Enum):
    """What an incident was."""

    MIXTURE = "mixture"
    """The batch had other shares of domains than usual; no domain was worse than usual."""
    BENIGN = "benign"
    """It came back by itself."""
    DIVERGING = "diverging"
    """It did not come back."""


@dataclass(frozen=True)
class Look:
    """What is recorded of a step, as far as judgements depend on it."""

    step: int
    loss: float
    """Nats per target."""
    grad_norm: float
    domains: Mapping[str, tuple[float, int]]
    """Of each domain in the batch: nats per target, and targets."""


@dataclass(frozen=True)
class Incident:
    """Steps that stood out, from the first to the one at which it is judged."""

    first_step: int
    last_step: int
    """The newest that stood out."""
    peak_step: int
    """The step that stood out most."""
    loss: float
    """Of the peak."""
    usual_loss: float
    """Before the first."""
    loss_deviations: float
    grad_norm: float
    usual_grad_norm: float
    norm_deviations: float
    moved: tuple[str, ...]
    """Domains that cost more than usual at the peak, or that were new in it, by name."""
    num_steps: int = 1
    """That stood out."""
    judgement: Judgement | None = None
    """None while it is not over."""

    @property
    def size(self) -> float:
        """Of the peak, in deviations."""
        return max(self.loss_deviations, self.norm_deviations)


def log_of(norm: float) -> float:
    """Natural logarithm; inf for what is no number, and that of a tiny norm for 0."""
    return math.log(max(norm, 1e-30)) if math.isfinite(norm) else math.inf


@dataclass
class SpikeDetector:
    """Follows a training step by step; it forgets nothing but by its windows, and looks at no clock and no weights."""

    loss: Baseline = field(default_factory=Baseline)
    log_norm: Baseline = field(default_factory=lambda: Baseline(LOG_NORM_FLOOR))
    domains: dict[str, Baseline] = field(default_factory=dict)
    incident: Incident | None = None
    """The one that is not over."""
    calm_steps: int = 0
    """Usual ones since it stood out last."""

    def add(self, look: Look) -> Incident | None:
        """Count a step, in their order; returns an incident that is over, with its judgement."""
        loss_deviations = self.loss.deviations(look.loss)
        norm_deviations = self.log_norm.deviations(log_of(look.grad_norm))
        if max(loss_deviations, norm_deviations) <= LIMIT_DEVIATIONS:
            return self._calm(look)
        self.calm_steps = 0
        now = Incident(
            first_step=look.step, last_step=look.step, peak_step=look.step, loss=look.loss, usual_loss=self.loss.centre,
            loss_deviations=loss_deviations, grad_norm=look.grad_norm, usual_grad_norm=math.exp(self.log_norm.centre),
            norm_deviations=norm_deviations, moved=self._moved(look),
        )  # fmt: skip
        by_mixture = now.norm_deviations <= LIMIT_DEVIATIONS and self._mixture_explains(look)
        if self.incident is None:
            self.incident = now
        else:
            before, num_steps = self.incident, self.incident.num_steps + 1
            peak = now if now.size > before.size else before
            self.incident = replace(
                peak, first_step=before.first_step, last_step=look.step, num_steps=num_steps,
                usual_loss=before.usual_loss, usual_grad_norm=before.usual_grad_norm,
            )  # fmt: skip
        if by_mixture and self.incident.num_steps == 1:
            return self._over(Judgement.MIXTURE)
        if self.incident.num_steps >= PATIENCE_STEPS and self._most_moved(look):
            return self._over(Judgement.DIVERGING)
        if look.step - self.incident.first_step >= LONGEST_STEPS:
            return self._over(Judgement.DIVERGING)
        return None

    def _calm(self, look: Look) -> Incident | None:
        """Count a usual step."""
        self.loss.floor = LOSS_FLOOR_SHARE * look.loss
        self.loss.add(look.loss)
        self.log_norm.add(log_of(look.grad_norm))
        for name, (nats, _) in look.domains.items():
            baseline = self.domains.setdefault(name, Baseline())
            baseline.floor = LOSS_FLOOR_SHARE * nats
            baseline.add(nats)
        self.calm_steps += 1
        return self._over(Judgement.BENIGN) if self.incident and self.calm_steps >= CALM_STEPS else None

    def _over(self, judgement: Judgement) -> Incident:
        assert self.incident is not None
        found, self.incident = replace(self.incident, judgement=judgement), None
        if judgement is Judgement.DIVERGING:  # what was usual is so no more: it would be told again at each step
            self.loss, self.log_norm, self.domains = Baseline(), Baseline(LOG_NORM_FLOOR), {}
        return found

    def _moved(self, look: Look) -> tuple[str, ...]:
        """Domains that cost more than usual, and those that are new."""
        return tuple(
            sorted(
                name
                for name, (nats, _) in look.domains.items()
                if name not in self.domains or self.domains[name].deviations(nats) > LIMIT_DEVIATIONS
            )
        )

    def _most_moved(self, look: Look) -> bool:
        """Whether most targets are in domains that cost more than usual, of those whose usual cost is known; if there
        is none, whether the whole loss does."""
        known = {name: its for name, its in look.domains.items() if name in self.domains}
        targets = sum(count for _, count in known.values())
        if not targets:
            return self.loss.deviations(look.loss) > LIMIT_DEVIATIONS
        moved = set(self._moved(look))
        return sum(count for name, (_, count) in known.items() if name in moved) >= MOVED_SHARE * targets

    def _mixture_explains(self, look: Look) -> bool:
        """Whether the loss is as usual for the shares of domains in the batch, all of which are known."""
        if not look.domains or not all(name in self.domains for name in look.domains):
            return False
        targets = sum(count for _, count in look.domains.values())
        usual = sum(self.domains[name].centre * count for name, (_, count) in look.domains.items()) / targets
        return look.loss - usual <= LIMIT_DEVIATIONS * self.loss.deviation
