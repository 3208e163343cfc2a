"""What a night takes of a disk."""

from __future__ import annotations

from tasks.recipes.recipe import Recipe


def disk_needed(recipe: Recipe) -> int:
    """What checkpoints and exports of a night take, in bytes."""
    from tasks.planning.plan import disk_bytes  # torch takes seconds to import, and a full disk alone needs it

    return disk_bytes(recipe)
