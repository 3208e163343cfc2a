"""Which documents lie in some packed rows, from the tables of the shards that hold these rows alone."""

from __future__ import annotations

import numpy as np
import polars as pl

from data.lookup.exposure import TrainingInput, sizes_of_shards
from data.lookup.places import Segment


def segments_of_rows(training: TrainingInput, rows: np.ndarray) -> dict[int, list[tuple[Segment, int]]]:
    """Segments of packed rows, by the row's number and in order of their slots, each with the number of its document.

    training: whose rows of the train side; rows: their numbers, counted over all shards, (N,). Raises ValueError for a
    number that there is no row of.
    """
    sizes = sizes_of_shards(training)
    bases = np.cumsum([0, *sizes.values()])
    wanted = np.unique(rows)
    if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < bases[-1]:
        raise ValueError(f"packed rows {wanted[0]} to {wanted[-1]} of {bases[-1]} in {training.shards}")
    found: dict[int, list[tuple[Segment, int]]] = {int(row): [] for row in wanted}
    for path, base, end in zip(sizes, bases, bases[1:], strict=False):
        here = wanted[(wanted >= base) & (wanted < end)] - base
        if not len(here):
            continue
        table = pl.scan_parquet(f"{path}.segments.parquet").filter(pl.col("row").is_in(here.tolist()))
        columns = table.select("row", "start", "length", "document").sort("row", "start").collect()
        for row, start, length, document in columns.iter_rows():
            packed_row = int(base) + row
            found[packed_row].append((Segment(path.name, row, packed_row, start, length), document))
    return found
