"""Is there enough validation text to promote by? Asked before anything is trained, and when a model is judged."""

from __future__ import annotations

from tasks.pages.text import plural
from tasks.recipes.stage_configs import PromoteConfig


def why_too_few(documents: int, num_bytes: int, found: str, config: PromoteConfig) -> str:
    """Why these validation documents decide nothing; empty if they are enough.

    documents, num_bytes: how many with text that is scored, and the UTF-8 bytes of that text.
    found: how the sentence begins.
    """
    if documents >= config.min_documents and num_bytes >= config.min_bytes:
        return ""
    return (
        f"too little validation text to promote by: {found} {plural(documents, 'validation document')} with "
        f"{plural(num_bytes, 'byte')} of text that is scored, needed {config.min_documents:,} "
        f"(promote.min_documents) and {config.min_bytes:,} (promote.min_bytes); add data, raise split.val_share, or "
        "lower these numbers in the recipe"
    )
