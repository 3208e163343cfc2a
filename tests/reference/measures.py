"""Calibration, repetition and multiple choice as their sources have them, one line at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from model.network.transformer import Transformer


def calibration_error(confidence: Sequence[float], correct: Sequence[bool], num_bins: int) -> float:
    """Guo et al. 2017, section 2, over bins that are filled equally: the first ones hold one more where it does not
    come out even."""
    lines = sorted(zip(confidence, correct, strict=True), key=lambda line: line[0])
    least, more = divmod(len(lines), num_bins)
    error, start = 0.0, 0
    for number in range(num_bins):
        some = lines[start : start + least + (number < more)]
        start += len(some)
        if some:
            sure = sum(c for c, _ in some) / len(some)
            right = sum(r for _, r in some) / len(some)
            error += len(some) / len(lines) * abs(right - sure)
    return error


def repeated_runs(ids: Sequence[int], size: int) -> tuple[int, int]:
    """(runs, runs that stood there before): seq-rep-n of Welleck et al. 2019 is their quotient."""
    runs = repeated = 0
    for start in range(len(ids)):
        if start + size <= len(ids):
            runs += 1
            repeated += any(ids[earlier : earlier + size] == ids[start : start + size] for earlier in range(start))
    return runs, repeated


def continuation_nats(model: Transformer, before: Sequence[int], continuation: Sequence[int]) -> float:
    """-log p of ids that follow others, each by itself."""
    nats = 0.0
    with torch.no_grad():
        for number, token in enumerate(continuation):
            logits = model(torch.tensor([[*before, *continuation[:number]]]))[0, -1].float()
            nats -= float(F.log_softmax(logits, dim=-1)[token])
    return nats
