"""Validation slices: which held-out rows they take, night by night, until their budget is reached.

A slice is a kind and a domain, `chat/en`. A source none of whose held-out rows found a place there has one of its own,
`chat/en/letters`, so a source that comes late is validated on, too. A slice takes held-out rows of a generation in
their shuffled order; what is in it stays, and each generation that adds to it makes a version, which holds the version
before. Bytes count, not tokens: the same text must be asked of models with any vocabulary.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from data.duplicates.ledger import KEPT, Ledger
from data.rows.parts import KINDS, PartRows
from data.sides.rules import SideRules
from schemas.domain import DOMAINS

SLICES = "slices.json"
DIGEST_CHARACTERS = 12


@dataclass(frozen=True, kw_only=True)
class SliceVersion:
    """A slice as one generation left it: a prefix of the slice's rows in the order of `read_val`."""

    number: int
    """From 1."""
    digest: str
    """Of its documents' names, in whatever order they came: equal digests are equal documents."""
    documents: int
    num_bytes: int
    """UTF-8 bytes of text; 0 if the night that made it did not count them."""
    generation: int
    """The one that made it."""

    def __str__(self) -> str:
        return f"v{self.number} {self.digest}"


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A validation slice and how it came about."""

    versions: tuple[SliceVersion, ...]
    sources: tuple[str, ...]
    """Of its rows."""
    full: bool
    """Whether it never changes again."""

    @property
    def newest(self) -> SliceVersion:
        return self.versions[-1]

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Slice:
        """Also of a slice of the time when there was one version, frozen by its first night."""
        if "versions" not in content:
            only = SliceVersion(
                number=1, digest=content["version"], documents=content["documents"], num_bytes=0,
                generation=content["since_generation"],
            )  # fmt: skip
            return cls(versions=(only,), sources=(), full=True)
        versions = tuple(SliceVersion(**version) for version in content["versions"])
        return cls(versions=versions, sources=tuple(content["sources"]), full=content["full"])


@dataclass(frozen=True, kw_only=True)
class ValidationVersion:
    """All slices at once: what a score is a score on."""

    number: int
    """How many generations changed a slice."""
    digest: str
    """Of the slices' names and digests."""
    documents: int
    num_bytes: int
    slices: int

    def __str__(self) -> str:
        return f"v{self.number} {self.digest}"


def validation_version(slices: Mapping[str, Slice]) -> ValidationVersion:
    """The version of the whole validation side."""
    newest = {name: its.newest for name, its in slices.items()}
    return ValidationVersion(
        number=len({version.generation for its in slices.values() for version in its.versions}),
        digest=digest_of_names(f"{name} {version.digest}" for name, version in newest.items()),
        documents=sum(version.documents for version in newest.values()),
        num_bytes=sum(version.num_bytes for version in newest.values()),
        slices=len(slices),
    )


def read_slices(folder: Path) -> dict[str, Slice]:
    """The slices in a folder of the sides, or of scores on them; none if nothing is written there."""
    path = folder / SLICES
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {name: Slice.from_dict(its) for name, its in content.items()}


def write_slices(folder: Path, slices: Mapping[str, Slice]) -> None:
    content = {name: asdict(its) for name, its in sorted(slices.items())}
    (folder / SLICES).write_text(json.dumps(content, indent=1), encoding="utf-8")


def digest_of_names(names: Iterable[str]) -> str:
    return hashlib.sha256("".join(sorted(names)).encode()).hexdigest()[:DIGEST_CHARACTERS]


def held_out(ledger: Ledger, parts: Sequence[PartRows], rules: SideRules, kind: str) -> pl.DataFrame:
    """Held-out rows of a kind in their shuffled order: row, size in bytes, domain, source."""
    frames = []
    for p in (p for p in parts if p.kind == kind):
        held = np.flatnonzero((ledger.fates_of(p) == KEPT) & rules.is_val(ledger.clusters_of(p)))
        facts, columns = p.part.facts[held], {"row": held + p.base, "order": rules.order(p.part.ids[held])}
        columns |= {"size": facts["num_bytes"].astype(np.int64), "domain": facts["domain"]}
        frames.append(pl.DataFrame(columns).with_columns(source=pl.lit(p.source)))
    return pl.concat(frames).sort("order", "row") if frames else pl.DataFrame(schema={"domain": pl.UInt8})


def taken(sizes: np.ndarray, used: int, budget: int) -> tuple[np.ndarray, bool]:
    """Which rows a slice takes, (N,) bool, and whether it is full then.

    Rows of more than half of the budget are passed over, so that one of them neither ends a slice that has hardly
    begun nor is most of it; the first other row that does not fit ends it. A slice has one row at least.

    sizes: bytes of the rows in their order, shape (N,).
    used: bytes that the slice holds.
    budget: bytes that it may hold.
    """
    fitting = 2 * sizes <= budget
    taken = fitting & (used + np.cumsum(np.where(fitting, sizes, 0)) <= budget)
    full = bool((fitting & ~taken).any())
    if not used and len(sizes) and not taken.any():
        taken[0] = True
    return taken, full or used + int(sizes[taken].sum()) >= budget


@dataclass(frozen=True, kw_only=True)
class Addition:
    """What a slice takes of a generation."""

    rows: np.ndarray
    """Their numbers."""
    num_bytes: int
    sources: tuple[str, ...]
    full: bool


def addition_of(rows: pl.DataFrame, slice_: Slice | None, budget: int) -> Addition:
    """What a slice, or one that begins, takes of held-out rows."""
    chosen, full = taken(rows["size"].to_numpy(), slice_.newest.num_bytes if slice_ else 0, budget)
    mine = rows.filter(pl.Series(chosen))
    sources = tuple(sorted({*mine["source"].unique(), *(slice_.sources if slice_ else ())}))
    return Addition(rows=mine["row"].to_numpy(), num_bytes=int(mine["size"].sum()), sources=sources, full=full)


def additions(
    rows: pl.DataFrame, kind: str, slices: Mapping[str, Slice], budget: int
) -> Iterator[tuple[str, Addition]]:
    """What each slice of a kind takes of held-out rows in their order; those it leaves alone are not named."""
    for (domain,), mine in sorted(rows.group_by("domain", maintain_order=True)):
        name = f"{kind}/{DOMAINS[int(str(domain))]}"
        shared, sources = slices.get(name), slices[name].sources if name in slices else ()
        if shared is None or not shared.full:
            found = addition_of(mine, shared, budget)
            sources = found.sources
            yield name, found
        absent = mine.filter(~pl.col("source").is_in(sources))
        for (source,), its in sorted(absent.group_by("source", maintain_order=True)):
            own = f"{name}/{source}"
            if own not in slices or not slices[own].full:
                yield own, addition_of(its, slices.get(own), budget)


def grown(
    slices: Mapping[str, Slice], added: Mapping[str, Addition], names: Mapping[str, Sequence[str]], generation: int
) -> dict[str, Slice]:
    """The slices with what a generation adds to them.

    names: of all rows of each slice, by its name.
    """
    after = dict(slices)
    for name, addition in added.items():
        before = slices.get(name)
        versions = before.versions if before else ()
        if len(addition.rows):
            versions += (
                SliceVersion(
                    number=len(versions) + 1, digest=digest_of_names(names[name]), documents=len(names[name]),
                    num_bytes=addition.num_bytes + (versions[-1].num_bytes if versions else 0), generation=generation,
                ),
            )  # fmt: skip
        fresh = Slice(versions=versions, sources=addition.sources, full=addition.full)
        after[name] = replace(before, full=addition.full) if before and not len(addition.rows) else fresh
    return after


def added_by(
    ledger: Ledger, parts: Sequence[PartRows], rules: SideRules, slices: Mapping[str, Slice]
) -> tuple[dict[str, Addition], int]:
    """What a generation adds to each slice, and how many more of its rows are held out unused."""
    found: dict[str, Addition] = {}
    num_held = 0
    for kind in KINDS:
        rows = held_out(ledger, parts, rules, kind)
        num_held += len(rows)
        found |= additions(rows, kind, slices, rules.val_bytes_per_slice)
    return found, num_held - sum(len(addition.rows) for addition in found.values())


def chosen_rows(added: Mapping[str, Addition]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of all added rows, ascending, and the name of the slice of each."""
    rows = np.concatenate([np.zeros(0, dtype=np.int64), *(addition.rows for addition in added.values())])
    names = np.array([name for name, addition in added.items() for _ in addition.rows], dtype=np.str_)
    order = np.argsort(rows)
    return rows[order], names[order]
