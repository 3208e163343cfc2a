"""What became of single rows, found by binary searches in memory maps: no index is read whole."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from data.duplicates.ledger import EXACT, FATES, NEAR, STRADDLING, Generation, Ledger
from data.duplicates.names import NameIndex
from data.lookup.neighbours import part_of, rows_near
from data.lookup.places import LostAnswer, Place, Segment
from data.rows.keys import name_of
from data.rows.parts import KINDS, PartRows
from data.sides.deal import MAX_BUCKETS
from data.sides.read import val_path_of
from data.sides.rules import SideRules
from data.sides.slices import read_slices
from data.tokens.folding import is_folded, span_of
from data.tokens.shards import lost_path, num_packed_rows, shard_paths

TRAIN, UNPACKED, WEIGHED_OUT = "train", "train, in no packed row", "train, left out by the weight of its source"
ROWS_ASKED = 16
"""Rows from which the number of buckets is inferred; a wrong number fits them by chance once in 2^16 cases at most."""
VALIDATION, UNUSED, HELD_OUT = "validation", "held out, unused", "held out"
WHATS = (TRAIN, UNPACKED, WEIGHED_OUT, VALIDATION, UNUSED, *FATES[EXACT:])
"""All that can become of a valid row."""


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What became of a row; fields that do not apply to it are empty."""

    place: Place
    what: str
    """One of WHATS."""
    original: int | None = None
    """Number of the row that an exact duplicate repeats."""
    cluster: str = ""
    """Name of the cluster of near duplicates."""
    kept: int | None = None
    """Number of the row that a near duplicate repeats."""
    both_sides: tuple[tuple[str, int], ...] = ()
    """(side, row): the row it repeats, and an earlier one of the other side that its cluster joins it to, if found."""
    slice: str = ""
    """Name of the validation slice, the version since when the row is in it, and that version's generation."""
    segments: tuple[Segment, ...] = ()
    lost: tuple[LostAnswer, ...] = ()
    """Of a conversation on the train side or in a slice."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Where one finished preparation of data lies."""

    ledger: Ledger
    near_threshold: float | None
    rules: SideRules
    sides: Path
    """Folder of the split."""
    shards: Path
    """Folder of the packed rows."""
    packed_rows: Mapping[str, int]
    """How many there are of the train side, by kind."""

    def place(self, row: int) -> Place:
        return Place(row, part_of(self.ledger, row))

    def generation(self, row: int) -> Generation:
        return self.ledger.generation(row)

    def fate_code(self, row: int) -> int:
        volume, place = self.ledger.place(row)
        return int(volume.fates[place])

    def cluster(self, row: int) -> np.ndarray:
        """(1,) of ID_DTYPE."""
        volume, place = self.ledger.place(row)
        return volume.clusters[place : place + 1]

    def kept(self, row: int) -> int:
        """Number of the kept row that a row, no exact duplicate, is or was left out for."""
        volume, place = self.ledger.place(row)
        return int(volume.kept[place])

    def is_val(self, row: int) -> bool:
        return bool(self.rules.is_val(self.cluster(row))[0])


def rows_named(ledger: Ledger, identity: np.ndarray) -> list[np.ndarray]:
    """Numbers of rows that bear a name, (1,) of ID_DTYPE: an array for each generation, in order of kind and row."""
    found: list[np.ndarray] = []
    for volume in ledger.volumes:
        index = NameIndex.open(volume.prefix)
        first, last = index.range_of(identity)
        rows = index.rows[first[0] : last[0]]
        if len(volume.generations) > 1:  # these are in order of kind and row through all of them
            of = np.searchsorted(volume.bases, rows, side="right")
            rows = rows[np.argsort(of, kind="stable")]
            found += np.split(rows, np.searchsorted(np.sort(of), np.arange(2, len(volume.generations) + 1)))
        else:
            found.append(rows)
    return found


def row_at_line(part: PartRows, line: int) -> int | None:
    """Number of the row that stood on a line of the part's file, if a valid one did."""
    facts = part.part.facts
    index = bisect_left(range(part.count), line, key=lambda i: int(facts[i]["line"]))
    return part.base + index if index < part.count and int(facts[index]["line"]) == line else None


def fate_of(corpus: Corpus, row: int) -> Fate:
    """What became of a row."""
    place, code = corpus.place(row), corpus.fate_code(row)
    if code == EXACT:
        return Fate(place=place, what=FATES[EXACT], original=original_of(corpus, place))
    cluster = name_of(corpus.cluster(row)[0])
    if code == NEAR:
        return Fate(place=place, what=FATES[NEAR], cluster=cluster, kept=corpus.kept(row))
    if code == STRADDLING:
        both = rows_on_both_sides(corpus, row)
        return Fate(place=place, what=FATES[STRADDLING], cluster=cluster, both_sides=both)
    if corpus.is_val(row):
        name = slice_of(corpus, place)
        lost = lost_answers(corpus.shards / f"{place.part.kind}.val.all", row) if name else ()
        return Fate(place=place, what=VALIDATION if name else UNUSED, cluster=cluster, slice=name, lost=lost)
    if not (orders := orders_of(corpus.rules, place)):
        return Fate(place=place, what=WEIGHED_OUT, cluster=cluster)
    segments = tuple(segments_of(corpus, place, orders))
    copies = [lost_answers(shard, row) for shard in shards_of(corpus, place, orders)]
    what, lost = TRAIN if segments else UNPACKED, max(copies, key=len, default=())  # each copy loses the same
    return Fate(place=place, what=what, cluster=cluster, segments=segments, lost=lost)


def lost_answers(shard: Path, row: int) -> tuple[LostAnswer, ...]:
    """Of a conversation; none of a text."""
    if not (path := lost_path(shard)).exists():
        return ()
    found = pl.read_parquet(path).filter(pl.col("document") == row).unique(maintain_order=True)
    return tuple(LostAnswer(*answer) for answer in found.select("answer", "tokens", "needed").iter_rows())


def original_of(corpus: Corpus, place: Place) -> int | None:
    """The first row of the kind that bears the name."""
    for rows in rows_named(corpus.ledger, place.identity):
        if (found := first_of_kind(corpus.ledger, rows, place.part.kind)) is not None:
            return found
    return None


def first_of_kind(ledger: Ledger, rows: np.ndarray, kind: str) -> int | None:
    """Of rows in order of kind."""
    code = KINDS.index(kind)

    def kind_of(index: int) -> int:
        return int(ledger.kind_of_rows(rows[index : index + 1])[0])

    index = bisect_left(range(len(rows)), code, key=kind_of)
    return int(rows[index]) if index < len(rows) and kind_of(index) == code else None


def rows_on_both_sides(corpus: Corpus, row: int) -> tuple[tuple[str, int], ...]:
    """The kept row that a row repeats, and of those on its cluster's side the nearest earlier one."""
    base, repeated = corpus.generation(row).base, corpus.kept(row)
    found = {HELD_OUT if corpus.is_val(repeated) else TRAIN: repeated}
    for near in rows_near(corpus.ledger, row, corpus.near_threshold):
        if near < base and len(found) < 2:
            found.setdefault(HELD_OUT if corpus.is_val(near) else TRAIN, near)
    return tuple(sorted(found.items()))


def slice_of(corpus: Corpus, place: Place) -> str:
    """The validation slice that a held-out row is in and the version since when it is, or nothing."""
    generation = corpus.generation(place.row).number
    path = val_path_of(corpus.sides, place.part.kind, generation)
    if path is None or not (found := column_where(path, "slice", place.row)):
        return ""
    name = found[0] or f"{place.part.kind}/{place.domain}"  # slices once had no names in the file
    known = read_slices(corpus.sides).get(name)
    since = next((version for version in known.versions if version.generation == generation), None) if known else None
    return f"{name}, since version {since or ''}, of generation {generation}"


def column_where(path: Path, wanted: str, row: int) -> list[str]:
    """The value of a column, empty if there is none, of the validation row of a number; no other column is read."""
    with pa.memory_map(str(path)) as source:
        schema = pa.ipc.open_file(source).schema
        fields = sorted(i for name in ("row", wanted) if (i := schema.get_field_index(name)) >= 0)
        reader = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=fields))
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            for at in np.flatnonzero(batch.column("row").to_numpy() == row):
                return [batch.column(wanted)[int(at)].as_py() if wanted in batch.schema.names else ""]
    return []


def orders_of(rules: SideRules, place: Place) -> list[int]:
    """The place in the shuffled order of each copy of a row on the train side."""
    copies = rules.copies(place.part.source, place.identity)
    return [int(rules.order(place.identity, copy)[0]) for copy, chosen in copies if chosen[0]]


def segments_of(corpus: Corpus, place: Place, orders: Sequence[int]) -> Iterator[Segment]:
    """Where the copies of a train row were packed."""
    paths = shard_paths(corpus.shards, place.part.kind, "train")
    for shard in shards_of(corpus, place, orders):
        segments = segments_in(shard, place.row)
        base = rows_before(paths, paths.index(shard), corpus.packed_rows) if len(segments) else 0
        for row, start, length in segments.iter_rows():
            yield Segment(shard.name, row, base + row, start, length)


def shards_of(corpus: Corpus, place: Place, orders: Sequence[int]) -> list[Path]:
    """The shards to look for the copies of a train row in: the place of each in the order names one."""
    spans = {path: span_of(path) for path in shard_paths(corpus.shards, place.part.kind, "train")}
    generation = corpus.generation(place.row).number
    of_it = {path: span for path, span in spans.items() if span[0][0] <= generation <= span[1][0]}
    folded = [path for path in of_it if is_folded(path)]  # the order names a bucket, and here are several
    buckets = {first[1]: path for path, (first, _) in of_it.items() if path not in folded}
    bits = bits_of_bucket(corpus, buckets)
    wanted = set(buckets) if bits is None else {order >> (64 - bits) for order in orders} & set(buckets)
    return sorted([*folded, *(buckets[number] for number in wanted)])


def bits_of_bucket(corpus: Corpus, buckets: Mapping[int, Path]) -> int | None:
    """How many leading bits of the order are the number of a bucket, by rows of the last one; None if none fits."""
    if not buckets:
        return None
    last = max(buckets)
    documents = pl.scan_parquet(f"{buckets[last]}.segments.parquet").select("document").head(ROWS_ASKED).collect()
    orders = [orders_of(corpus.rules, corpus.place(row)) for row in documents["document"].to_list()]

    def fits(bits: int) -> bool:
        return all(any(order >> (64 - bits) == last for order in copies) for copies in orders)

    return next(filter(fits, range(MAX_BUCKETS.bit_length())), None)


def segments_in(path: Path, row: int) -> pl.DataFrame:
    """Packed row, start and length of a row's segments in a shard."""
    table = pl.read_parquet(f"{path}.segments.parquet", columns=["row", "start", "length", "document"])
    return table.filter(pl.col("document") == row).select("row", "start", "length")


def rows_before(paths: Sequence[Path], number: int, packed_rows: Mapping[str, int]) -> int:
    """Packed rows of all shards before one, from the headers of these or of all others, whichever are fewer."""
    if number <= len(paths) // 2:
        return sum(map(num_packed_rows, paths[:number]))
    kind = paths[number].name.partition(".")[0]
    return packed_rows[kind] - sum(map(num_packed_rows, paths[number:]))
