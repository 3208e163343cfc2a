"""The folder of `register`: the exported model, its parity with transformers, and the decision."""

from __future__ import annotations

import json
from pathlib import Path

DECISION, EXPORT, PARITY = "decision.json", "model", "parity.json"
TRAINING_DATA = "training-data.json"
"""The statistics of a model's data, in its exported folder."""


def read_decision(folder: Path) -> dict[str, object]:
    """`promoted`, `reason`, `version`, whether it `waits` for a person, the time `at` which it was decided, the
    version of the `validation` side on which the models were compared, and the numbers behind it: the fields of
    `tasks.evaluation.verdict.Decision`, `budget` and `audit`."""
    return dict(json.loads((folder / DECISION).read_text(encoding="utf-8")))
