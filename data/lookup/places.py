"""A row and where it stands: in its part, in packed rows, or in none of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.rows.keys import name_of
from data.rows.parts import PartRows
from schemas.domain import DOMAINS


@dataclass(frozen=True)
class Place:
    """A row: its number, and the part it stands in."""

    row: int
    part: PartRows

    @property
    def index(self) -> int:
        return self.row - self.part.base

    @property
    def identity(self) -> np.ndarray:
        """(1,) of ID_DTYPE."""
        return self.part.part.ids[self.index : self.index + 1]

    @property
    def name(self) -> str:
        return name_of(self.identity[0])

    @property
    def line(self) -> int:
        return int(self.part.part.facts[self.index]["line"])

    @property
    def byte_offset(self) -> int:
        return int(self.part.part.facts[self.index]["byte_offset"])

    @property
    def num_bytes(self) -> int:
        return int(self.part.part.facts[self.index]["num_bytes"])

    @property
    def domain(self) -> str:
        return DOMAINS[self.part.part.facts[self.index]["domain"]]


@dataclass(frozen=True)
class Segment:
    """Where a piece of a row was packed."""

    shard: str
    row: int
    """In the shard."""
    packed_row: int
    """Counted over all shards, as training counts."""
    start: int
    length: int


@dataclass(frozen=True)
class LostAnswer:
    """An answer of a conversation that is in no packed row, as it needs a longer one."""

    number: int
    """From 1, in the conversation."""
    tokens: int
    """Its ids, that of its end included."""
    needed: int
    """Slots of the shortest row that holds it."""
