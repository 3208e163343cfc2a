"""Whether a model is right as often as it is sure: a table of reliability over equally filled bins."""

from __future__ import annotations

import numpy as np
import polars as pl

BINS = 15
"""As in Guo et al. 2017 (arXiv 1706.04599)."""


def reliability(confidence: np.ndarray, correct: np.ndarray, num_bins: int = BINS) -> pl.DataFrame:
    """How sure and how often right the model was, bin by bin: (tokens, confidence, accuracy), the least sure bin first.

    Bins hold equally many targets, up to one, since most probabilities of a language model lie near 0 or 1 and bins of
    equal width would leave some to chance (Nguyen and O'Connor 2015, arXiv 1508.05154). Their gap, weighed by targets,
    is the expected calibration error (Naeini et al. 2015).

    confidence: probability of the likeliest id at each target, shape (targets,).
    correct: whether that id was the target, shape (targets,).
    num_bins: fewer where there are fewer targets.
    """
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, num_bins) if len(part)]
    return pl.DataFrame(
        {
            "tokens": [len(part) for part in parts],
            "confidence": [float(confidence[part].mean(dtype=np.float64)) for part in parts],
            "accuracy": [float(correct[part].mean(dtype=np.float64)) for part in parts],
        },
        schema={"tokens": pl.Int64, "confidence": pl.Float64, "accuracy": pl.Float64},
    )
