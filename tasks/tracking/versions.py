"""Names in the model registry: models, aliases and the tags of a version."""

from __future__ import annotations

MODEL_PREFIX = "nightschool-"
OLD_MODEL = "nightschool"
"""What all recipes shared once."""
MODEL_DESCRIPTION = "MoE chat models of the nightly retraining"
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
DIGEST = "nightschool.digest"
"""Of the weights."""
DATA = "nightschool.data"
"""What the version was trained on, as JSON."""
RECIPE = "nightschool.recipe"
BITS_PER_BYTE, ARCHITECTURE = "nightschool.val_bpb", "nightschool.architecture"
"""Of the validation side on the night, with four decimals; transformers' class."""
PARENT, TRUNK = "nightschool.parent_night", "nightschool.trunk"
"""The night whose weights pretraining began with, by the beginning of its key, and the folder of that trunk; empty from
scratch."""
DECISION = "nightschool.decision"
"""Why a night made the version the champion."""
VERDICT = "nightschool.verdict"
"""What the night that registered the version decided of it, whose process did, and by which numbers, as JSON."""
BY_HAND = "nightschool.by_hand"
"""When a person made the version the champion, and in place of which; a later night that does so removes it."""
ROLLED_BACK = "nightschool.rolled_back"
"""When and to which version a person went back from this one."""


def model_of(recipe: str) -> str:
    """Name of a recipe's registered model."""
    return f"{MODEL_PREFIX}{recipe}"
