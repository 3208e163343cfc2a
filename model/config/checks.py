"""What every configuration class shares: unknown keys are errors, and all problems are reported at once."""

from __future__ import annotations

STRICT = {"extra": "forbid"}
"""For whoever builds these classes from plain values, as Prefect does: an unknown key is an error."""


def require(problems: list[str], owner: str) -> None:
    """Raise one ValueError that names `owner` and lists all problems, if there are any."""
    if problems:
        raise ValueError(f"{owner}: " + "; ".join(problems))
