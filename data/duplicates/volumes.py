"""Volumes of the ledger folded (`data.folding`): a look-up in one finds what it found in those that it was made of."""

from __future__ import annotations

from pathlib import Path

from data.duplicates.ledger import Ledger, Volume
from data.duplicates.names import fold_names
from data.duplicates.near import fold_near, near_path
from data.folding import join_bytes, number_folded

FULL_BYTES = 1 << 30
"""Of a volume's files. Three million rows; folding holds a tenth of it in memory."""
COLUMNS = ("fates", "clusters", "kept")
"""With a record for each row."""


def files_of(volume: Volume) -> list[Path]:
    return sorted(volume.folder.glob(f"{volume.name}.*"))


def fold_volumes(ledger: Ledger) -> Ledger:
    """Join the newest volumes of a ledger; returns the ledger with the new one, which is written.

    Call it in a folder that nobody reads yet, and only if rows are new in it: whatever depends on these files is done
    anew then in any case.
    """
    files = [files_of(volume) for volume in ledger.volumes]
    number = number_folded([sum(path.stat().st_size for path in some) for some in files], FULL_BYTES)
    if not number:
        return ledger
    some = ledger.volumes[-number:]
    generations = tuple(generation for volume in some for generation in volume.generations)
    shared = tuple(len(found) for volume in some for found in volume.shared_by_generation)
    joined = Volume(some[0].folder, generations, shared)
    fold_names([volume.prefix for volume in some], joined.prefix, ledger.kind_of_rows)
    for column in COLUMNS:
        join_bytes([volume.path(column) for volume in some], joined.path(column))
    if near_path(some[0].prefix, "rows").exists():
        join_bytes([volume.path("shared") for volume in some], joined.path("shared"))
        for name in ("prefix", "own_prefix"):
            indexes = [(getattr(volume, name), len(volume.generations)) for volume in some]
            fold_near(indexes, getattr(joined, name))
    for path in (path for paths in files[-number:] for path in paths):
        path.unlink()
    after = Ledger(ledger.parts, (*ledger.volumes[:-number], joined))
    after.write(joined.folder)
    return after
