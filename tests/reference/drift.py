"""The population stability index, bin by bin."""

from __future__ import annotations

import math
from collections.abc import Sequence


def plain_psi(p: Sequence[float], q: Sequence[float]) -> float:
    """Of two lists of shares that are all above 0."""
    return math.fsum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))


def reference_psi(tonight: Sequence[float], reference: Sequence[float], rows: tuple[int, int]) -> float:
    """With 10 pseudo-rows for every bin in use, laid out like the mean of both, beside the smaller side's rows."""
    if min(rows) == 0 or sum(tonight) == 0 or sum(reference) == 0:
        return 0.0
    used = [(a / sum(tonight), b / sum(reference)) for a, b in zip(tonight, reference, strict=True) if a or b]
    real, pseudo = min(rows), 10 * len(used)
    ours = [(real * a + pseudo * (a + b) / 2) / (real + pseudo) for a, b in used]
    theirs = [(real * b + pseudo * (a + b) / 2) / (real + pseudo) for a, b in used]
    return plain_psi(ours, theirs)
