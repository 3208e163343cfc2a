"""What every configuration class shares: unknown keys are errors, and all problems are reported at once."""

from __future__ import annotations

STRICT = {"extra": "forbid", "use_attribute_docstrings": True}
"""For whoever builds these classes from plain values, as Prefect does: an unknown key is an error, and a form shows what
stands below each field as its description."""


def require(problems: list[str], owner: str) -> None:
    """Raise one ValueError that names `owner` and lists all problems, if there are any."""
    if problems:
        raise ValueError(f"{owner}: " + "; ".join(problems))
