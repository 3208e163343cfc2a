"""What a duplicate is, and on which side a row goes: slow, in memory, one row at a time."""

from __future__ import annotations

import hashlib
import unicodedata
from bisect import insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

WHITE_SPACE = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\0"
MASK = (1 << 64) - 1


def name(text: str) -> str:
    """White space left out, then composed, then hashed."""
    bare = "".join(character for character in text if not character.isspace())
    return hashlib.blake2b(unicodedata.normalize("NFC", bare).encode(), digest_size=16).hexdigest()


def words(text: str) -> list[str]:
    """Between ASCII white space, in lower case as far as ASCII goes; every wide character by itself."""
    pieces = [""]
    for character in text:
        if character in WHITE_SPACE:
            pieces.append("")
        elif ord(character) > 0x7FF:
            pieces += [character, ""]
        else:
            pieces[-1] += character.lower() if character.isascii() else character
    return [word for word in pieces if word]


@cache
def shingles(text: str) -> frozenset[tuple[str, ...]]:
    parts = words(text)
    return frozenset(tuple(parts[start : start + 5]) for start in range(len(parts)))


def jaccard(one: str, other: str) -> float:
    a, b = shingles(one), shingles(other)
    common = len(a & b)
    return common / (len(a) + len(b) - common)


def finalised(x: int) -> int:
    """SplitMix64's."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def word_hash(word: str) -> int:
    polynomial = sum(byte * pow(0x9E3779B1, place, 1 << 32) for place, byte in enumerate(word.encode()))
    return finalised(polynomial % (1 << 32))


def keyed(value: int, seed: str) -> int:
    key = hashlib.blake2b(seed.encode(), digest_size=16).digest()
    return finalised(value ^ int.from_bytes(key[:8], "little")) ^ int.from_bytes(key[8:], "little")


def components(count: int, linked: Callable[[int, int], bool]) -> list[int]:
    """The least member of the component of each of `count` things, all pairs looked at."""
    labels = list(range(count))
    for one, other in combinations(range(count), 2):
        if linked(one, other):
            low, high = sorted((labels[one], labels[other]))
            labels = [low if label == high else label for label in labels]
    return labels


@dataclass(eq=False)
class Row:
    """A row, and what was decided of it."""

    kind: str
    text: str
    fate: str = ""
    cluster: str = ""
    kept: Row | None = None
    """The row that stays for it, perhaps itself."""

    @property
    def name(self) -> str:
        return name(self.text)


@dataclass(frozen=True)
class Sketched:
    """Relations of two rows by their sketches."""

    linked: Callable[[Row, Row], bool]
    estimate: Callable[[Row, Row], float]
    least: float
    """The estimate from which a text is read; at 1.0 it need not be."""

    def near(self, one: Row, other: Row) -> bool:
        return self.estimate(one, other) == 1.0 or jaccard(one.text, other.text) >= 0.8


def decide(nights: Sequence[Sequence[Row]], sketched: Sketched, drop: bool, is_val: Callable[[str], bool]) -> None:
    """Fates and clusters of the rows of several nights, night after night."""
    earlier: list[Row] = []
    for night in nights:
        borne = {(row.kind, row.name) for row in earlier}
        distinct = []
        for row in night:
            if (row.kind, row.name) in borne:
                row.fate = "exact"
            else:
                borne.add((row.kind, row.name))
                distinct.append(row)
        decide_near(distinct, earlier, sketched, drop, is_val)
        earlier += distinct


def decide_near(
    tonight: Sequence[Row], earlier: Sequence[Row], sketched: Sketched, drop: bool, is_val: Callable[[str], bool]
) -> None:
    near = {id(row): [old for old in earlier if sketched.linked(row, old)] for row in tonight}
    touched = sorted({old.cluster for rows in near.values() for old in rows})
    nodes: list[Row | str] = [*tonight, *touched]

    def related(one: int, other: int) -> bool:
        a, b = nodes[one], nodes[other]
        if isinstance(a, str):
            return False  # two old clusters stay two
        return b in [old.cluster for old in near[id(a)]] if isinstance(b, str) else sketched.linked(a, b)

    labels = components(len(nodes), related)
    for label in set(labels):
        inside = [node for node, its in zip(nodes, labels, strict=True) if its == label]
        rows = sorted((node for node in inside if isinstance(node, Row)), key=lambda row: row.name)
        old = sorted(node for node in inside if isinstance(node, str))
        leaders: list[Row] = []
        for row in rows:
            row.cluster = old[0] if old else rows[0].name
            before = [it for it in earlier if any(it is seen.kept for seen in near[id(row)])]
            before.sort(key=lambda it: it.name)
            rivals = [it for it in before if is_val(it.cluster) != is_val(row.cluster)]
            same_text = [it for it in rivals if it.name == row.name]
            others = [
                it for it in before + leaders if it.kind == row.kind and (it in before or sketched.linked(row, it))
            ]
            row.kept = duplicated(row, others, sketched) if drop and not same_text else row
            row.fate = "kept" if row.kept is row else "near"
            if row.kept is row and rivals:
                row.kept = same_text[-1] if same_text else duplicated(row, rivals, sketched)
                row.fate = "kept" if row.kept is row else "straddling"
            leaders += [row] if row.kept is row else []


def duplicated(row: Row, others: Sequence[Row], sketched: Sketched) -> Row:
    """Of kept rows the one that it looks most like and is a near duplicate of; itself if there is none."""
    likely = [it for it in others if sketched.estimate(row, it) >= sketched.least]
    likely.sort(key=lambda it: -sketched.estimate(row, it))
    return next((it for it in likely if sketched.near(row, it)), row)


@dataclass(frozen=True)
class KeptRow:
    """What sides are decided of."""

    number: int
    name: str
    cluster: str
    source: str
    domain: str
    num_bytes: int


@dataclass
class GrownSlice:
    """A validation slice: its rows in the order in which they came."""

    rows: list[KeptRow]
    full: bool

    @property
    def num_bytes(self) -> int:
        return sum(row.num_bytes for row in self.rows)


@dataclass(frozen=True)
class Splitter:
    """Sides of one kind in memory."""

    val_share: float
    salt: str
    seed: int
    budget: int
    weights: dict[str, float]

    def is_val(self, cluster: str) -> bool:
        return keyed(int(cluster[:16], 16), self.salt) < int(self.val_share * 2**64)

    def order(self, row: KeptRow, copy: int = 0) -> int:
        return keyed(int(row.name[16:], 16), f"shuffle-{self.seed}-{copy}")

    def copies(self, row: KeptRow) -> int:
        whole = int(self.weights[row.source])
        rest = self.weights[row.source] - whole
        return whole + (keyed(int(row.name[16:], 16), f"weight-{self.salt}") < int(rest * 2**64))

    def train(self, rows: Iterable[KeptRow]) -> list[int]:
        """Numbers of the train rows in the order in which they are seen."""
        order: list[tuple[int, int]] = []
        for row in rows:
            for copy in range(0 if self.is_val(row.cluster) else self.copies(row)):
                insort(order, (self.order(row, copy), row.number))
        return [number for _, number in order]

    def slices(self, rows: Iterable[KeptRow], before: Mapping[str, GrownSlice]) -> dict[str, GrownSlice]:
        """Each slice with the rows of one more generation, one row at a time.

        A slice is a domain; a source without a row there has a slice of its own, `domain/source`.
        """
        held = sorted((row for row in rows if self.is_val(row.cluster)), key=self.order)
        after = {name: GrownSlice(list(its.rows), its.full) for name, its in before.items()}
        for domain in {row.domain for row in held}:
            mine = [row for row in held if row.domain == domain]
            self.fill(after, domain, mine)
            inside = {row.source for row in after[domain].rows}
            for source in {row.source for row in mine} - inside:
                self.fill(after, f"{domain}/{source}", [row for row in mine if row.source == source])
        return after

    def fill(self, slices: dict[str, GrownSlice], name: str, rows: Sequence[KeptRow]) -> None:
        """Let a slice take rows in their order until one does not fit."""
        its = slices.setdefault(name, GrownSlice([], False))
        if its.full:
            return
        for row in (row for row in rows if row.num_bytes * 2 <= self.budget):
            if its.num_bytes + row.num_bytes > self.budget:
                its.full = True
                break
            its.rows.append(row)
        if not its.rows:
            its.rows.append(rows[0])
        its.full |= its.num_bytes >= self.budget
