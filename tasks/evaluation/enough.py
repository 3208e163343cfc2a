"""Is there enough validation text to promote by? Asked before anything is trained, and when a model is judged."""

from __future__ import annotations

from tasks.pages.text import plural
from tasks.recipes.stage_configs import PromoteConfig


def why_too_few(
    documents: int, num_bytes: int, found: str, config: PromoteConfig, *, clusters: int | None = None
) -> str:
    """Why these validation documents decide nothing; empty if they are enough.

    documents, num_bytes: how many with text that is scored, and the UTF-8 bytes of that text.
    found: how the sentence begins.
    clusters: of near duplicates, into which the documents fall: each counts for one. None if that is not known.
    """
    apart = documents if clusters is None else clusters
    if apart >= max(2, config.min_documents) and num_bytes >= config.min_bytes:
        return ""
    together = f" in {plural(apart, 'cluster')} of near duplicates" if apart != documents else ""
    return (
        f"too little validation text to promote by: {found} {plural(documents, 'validation document')}{together} with "
        f"{plural(num_bytes, 'byte')} of text that is scored, needed {config.min_documents:,} "
        f"(promote.min_documents) and {config.min_bytes:,} (promote.min_bytes); add data, raise split.val_share, or "
        "lower these numbers in the recipe"
    )
