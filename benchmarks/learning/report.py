"""The table of `benchmarks/learning/learn.py`, from its results."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

OURS, SIXTH = "ours", "ours, a sixth of the time"
DENSE = "ours, dense"
MINIMIND_SIDES = ("MiniMind", "MiniMind, no accumulation")
NANOCHAT = "nanochat"
WANTED_TIME_SHARE = 1 / 6
ALIKE = 0.02
"""Active parameters of the sides may differ by this share."""


@dataclass(frozen=True)
class Result:
    """Score, curve and cost of one side with one seed."""

    identity: dict[str, Any]
    bpb: float
    """Bits per byte of all validation documents."""
    firsts_bpb: float
    """The same of the first chunk of each document."""
    curve: list[list[float]]
    """Training seconds, steps, bits per byte of the curve's documents."""
    optimizer_steps: int
    tokens: int
    """Trained on, padding left out."""
    trained_seconds: float
    cpu_seconds: float
    set_up_seconds: float
    total_parameters: int
    active_parameters: int

    @property
    def side(self) -> str:
        return str(self.identity["side"])

    @property
    def seed(self) -> int:
        return int(self.identity["seed"])

    @property
    def curve_bpb(self) -> float:
        """At the end, of the curve's documents."""
        return self.curve[-1][2]

    def seconds_to(self, bpb: float) -> float | None:
        """When the curve was first measured at or below a figure, so no sooner than it got there."""
        return next((seconds for seconds, _, score in self.curve if score <= bpb), None)


def time_share(ours: Result, other: Result) -> float | None:
    """Our time to the other's final figure, as a share of its own training time."""
    seconds = ours.seconds_to(other.curve_bpb)
    return None if seconds is None else seconds / other.trained_seconds


def rows(results: Sequence[Result]) -> Iterator[str]:
    yield (
        f"{'seed':>4} {'side':30} {'bits/byte':>9} {'of firsts':>9} {'steps':>7} {'tokens':>10} {'seconds':>8} "
        f"{'CPU':>5} {'set-up s':>8} {'parameters M':>12} {'active':>6}"
    )
    for r in results:
        yield (
            f"{r.seed:4} {r.side:30} {r.bpb:9.4f} {r.firsts_bpb:9.4f} {r.optimizer_steps:7,} {r.tokens:10,} "
            f"{r.trained_seconds:8.1f} {r.cpu_seconds / r.trained_seconds:5.0%} {r.set_up_seconds:8.1f} "
            f"{r.total_parameters / 1e6:12.2f} {r.active_parameters / 1e6:6.2f}"
        )


def judged(results: Sequence[Result], name: str, in_a_sixth: bool) -> Iterator[tuple[str, bool]]:
    """The targets of ours against one other side, and whether each is met; `in_a_sixth` of the time, too."""
    by = {(r.side, r.seed): r for r in results}
    pairs = [(by[OURS, r.seed], r) for r in results if r.side == name and (OURS, r.seed) in by]
    if not pairs:
        return
    wins = sum(ours.bpb < other.bpb for ours, other in pairs)
    yield f"lower than {name} in {wins} of {len(pairs)} seeds", wins == len(pairs)
    worst = max(abs(ours.active_parameters / other.active_parameters - 1) for ours, other in pairs)
    yield f"active parameters within {worst:.2%} of {name}'s, {ALIKE:.0%} may be", worst <= ALIKE
    if not in_a_sixth:
        return
    shares = [time_share(ours, other) for ours, other in pairs]
    each_seed = ", ".join("never" if share is None else f"{share:.3f}" for share in shares)
    by_curve = all(share is not None and share <= WANTED_TIME_SHARE for share in shares)
    sixths = [(by[SIXTH, other.seed], other) for _, other in pairs if (SIXTH, other.seed) in by]
    below = sum(short.bpb <= other.bpb for short, other in sixths)
    yield (
        f"{name}'s figure reached in {each_seed} of its time within the whole run, and by a run of a sixth of the time "
        f"in {below} of {len(sixths)}; one sixth is wanted, either way",
        by_curve or (len(sixths) == below == len(pairs)),
    )


def report(results: Sequence[Result], text: dict[str, Any]) -> tuple[list[str], bool]:
    """Lines to print, and whether all targets are met."""
    lines = [
        f"{text['train_documents']:,} documents, {text['train_bytes'] / 1e6:.1f} MB, {text['train_tokens']:,} tokens "
        f"to train on; {text['val_targets']:,} validation targets, {text['curve_targets']:,} of them for the curve",
        *rows(results),
        "",
    ]
    for side in dict.fromkeys(r.side for r in results):
        mine = [r.bpb for r in results if r.side == side]
        lines.append(f"{side:30} mean {statistics.mean(mine):.4f}, {min(mine):.4f} to {max(mine):.4f}")
    targets = [target for name in MINIMIND_SIDES for target in judged(results, name, in_a_sixth=True)]
    targets += judged(results, NANOCHAT, in_a_sixth=False)
    lines += ["", *(f"{'met   ' if met else 'missed'} {name}" for name, met in targets)]
    return lines, all(met for _, met in targets)
