"""Corpora of any size to measure with: real text recombined, with a vocabulary that grows as that of real text does.

A row is a draw of sentences (lines, for code) from one section of the built-in corpus. Its length is log-normal
with a mean of about 1 kB. Sentences alone would give a closed vocabulary, and every cache of words would be full
after a few megabytes. So each sentence gets one made-up word at a word boundary, one word in fifteen or so, whose
rank follows the tail of a two-regime Zipf law, p(r) ~ r^-1.77 beyond the 7,873 commonest words (Gerlach and Altmann,
doi:10.1103/PhysRevX.3.021006; there one word in eight is of the tail, and the sentences bring rare words of their own).
The number of distinct words then grows with about the square root of the text (Heaps' law). One slot in seven holds
a number instead.

Some rows are exact copies of earlier ones, some are copies with a few words changed, some are broken. Everything is
a function of size and seed; memory does not grow with the size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.data.material import NUMBERS, SCRIPTS, SECTIONS, Material, Words, built_in_material
from benchmarks.data.row_rules import is_good

KINDS = ("pretrain", "chat")
SHARES = {"pretrain": 0.85, "chat": 0.15}
JOINTS = {"code": b"\\n", "docstrings": b" ", "chinese": b""}
OPENERS = {"pretrain": b'{"text": "', "chat": b'{"conversations": [{"role": "user", "content": "'}
SYSTEM = b'{"conversations": [{"role": "system", "content": "You are a helpful assistant."}, '
SYSTEM_OPENER = SYSTEM + b'{"role": "user", "content": "'
CHANGES = np.array([b'"}, {"role": "%b", "content": "' % role for role in (b"user", b"assistant")], dtype=object)
MEAN_TEXT_BYTES, SIGMA = 940, 0.8
FILE_BYTES = 256_000_000
BLOCK_ROWS = 1_000
EXACT_SHARE, NEAR_SHARE, BROKEN_SHARE = 0.02, 0.02, 0.01
REMEMBERED_ROWS, REMEMBERED_PER_BLOCK = 16_384, 128
MIN_WORDS_OF_NEAR_DUPLICATE = 60


@dataclass(frozen=True)
class Census:
    """What was written, by fate. `rows - broken - exact_duplicates` rows are good and distinct."""

    rows: int = 0
    bytes: int = 0
    exact_duplicates: int = 0
    near_duplicates: int = 0
    broken: int = 0

    @property
    def distinct(self) -> int:
        return self.rows - self.broken - self.exact_duplicates

    def __add__(self, other: Census) -> Census:
        return Census(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass
class Stream:
    """An endless stream of the lines of one kind."""

    kind: str
    material: Material
    rng: np.random.Generator
    remembered: list[bytes] = field(default_factory=list)
    """A uniform sample of the good lines so far, bounded; copies are taken from it."""
    offered: int = 0
    damaged: int = 0

    def __post_init__(self) -> None:
        sections = list(self.material[self.kind].values())
        self.weights = np.array([SECTIONS[self.kind][section.name] for section in sections])
        self.sizes = np.array([len(section.heads) for section in sections])
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.heads = np.concatenate([section.heads for section in sections])
        self.tails = np.concatenate([section.tails for section in sections])
        self.mean_bytes = np.array([section.mean_bytes for section in sections])
        self.joints = np.array([JOINTS.get(section.name, b" ") for section in sections], dtype=object)
        self.scripts = np.array([SCRIPTS.index("chinese" if s.name == "chinese" else "latin") for s in sections])
        closers = [self.closer(section.name) for section in sections]
        self.closers = np.array([[closer + OPENERS[self.kind], closer + SYSTEM_OPENER] for closer in closers], object)
        self.words = Words.of(self.tails[self.starts[-1] :] if "chinese" in self.material[self.kind] else [])

    def closer(self, section: str) -> bytes:
        return b'", "source": "' + section.encode() + b'"}\n' if self.kind == "pretrain" else b'"}]}\n'

    def plain(self, rows: int) -> list[bytes]:
        """Good and distinct lines, without line endings; one join and one split for all of them."""
        rng = self.rng
        section = rng.choice(len(self.weights), rows, p=self.weights / self.weights.sum())
        lengths = MEAN_TEXT_BYTES * np.exp(SIGMA * rng.standard_normal(rows) - SIGMA**2 / 2)
        fewest = 1 if self.kind == "pretrain" else 2
        counts = np.maximum(np.rint(lengths / self.mean_bytes[section]).astype(int), fewest)
        owner, lasts = np.repeat(section, counts), np.cumsum(counts) - 1
        pieces = self.starts[owner] + (rng.random(len(owner)) * self.sizes[owner]).astype(int)
        script = np.where(rng.random(len(owner)) < 1 / 7, NUMBERS, self.scripts[owner])
        parts = np.empty((len(owner), 5), dtype=object)
        parts[:, 0], parts[:, 3] = self.heads[pieces], self.tails[pieces]
        parts[:, 1], parts[:, 2] = self.words.draw(rng, script)
        parts[:, 4] = self.joints[owner]
        if self.kind == "chat":
            self.take_turns(parts[:, 4], lasts, counts)
        with_system = (rng.random(rows) < 0.1) & (self.kind == "chat")
        parts[lasts, 4] = self.closers[section, with_system.astype(int)]
        return (OPENERS[self.kind] + b"".join(parts.ravel().tolist())).split(b"\n")[:-1]

    def take_turns(self, joints: np.ndarray, lasts: np.ndarray, counts: np.ndarray) -> None:
        """Replace joints of sentences by changes of speaker, so that the assistant always has the last word."""
        firsts = lasts - counts + 1
        change = self.rng.random(len(joints)) < 0.5
        change[lasts] = False
        change[firsts] ^= np.add.reduceat(change, firsts) % 2 == 0
        total = np.cumsum(change)
        number = total - np.repeat(total[firsts] - change[firsts], counts)
        joints[change] = CHANGES[number[change] % 2]

    def remember(self, lines: list[bytes]) -> None:
        for line in lines:
            self.offered += 1
            if len(self.remembered) < REMEMBERED_ROWS:
                self.remembered.append(line)
            elif (place := int(self.rng.integers(self.offered))) < REMEMBERED_ROWS:
                self.remembered[place] = line

    def recalled(self) -> bytes:
        return self.remembered[int(self.rng.integers(len(self.remembered)))]

    def block(self, rows: int) -> tuple[list[bytes], Census]:
        """The next lines, and how many of them have which fate."""
        lines = self.plain(rows)
        luck = self.rng.random(rows)
        special = np.flatnonzero(luck < EXACT_SHARE + NEAR_SHARE + BROKEN_SHARE)
        self.remember([lines[i] for i in np.setdiff1d(np.arange(rows), special)[:REMEMBERED_PER_BLOCK]])
        fates: Counter[str] = Counter()
        for i in special if self.remembered else ():
            if luck[i] < EXACT_SHARE:
                fates["exact_duplicates"] += 1
                lines[i] = self.recalled()
            elif luck[i] < EXACT_SHARE + NEAR_SHARE:
                tries = (self.near_duplicate(self.recalled()) for _ in range(10))
                changed = next((line for line in tries if line), None)
                fates["near_duplicates"] += changed is not None
                lines[i] = changed or lines[i]
            else:
                fates["broken"] += 1
                self.damaged += 1
                lines[i] = broken(lines[i], self.kind, self.damaged)
        return lines, Census(rows, sum(map(len, lines)) + rows, **fates)

    def near_duplicate(self, line: bytes) -> bytes | None:
        """The line with a few words replaced (about one in a hundred), or None if it has too few words."""
        words = line.split(b" ")
        places = [i for i, word in enumerate(words) if word.isalpha()]  # inside the text; keys have quotes
        if len(places) < MIN_WORDS_OF_NEAR_DUPLICATE:
            return None
        chosen = self.rng.choice(places, 1 + len(places) // 100, replace=False)
        stems, ends = self.words.draw(self.rng, np.zeros(len(chosen), dtype=int))
        for place, stem, end in zip(chosen, stems, ends, strict=True):
            words[place] = (stem + end).rstrip()
        return b" ".join(words)


def broken(line: bytes, kind: str, number: int) -> bytes:
    """The line, damaged in one of several ways; `number` picks the way."""
    opener = OPENERS[kind]
    text_at = line.index(b'"', len(b'{"text": ')) + 1 if kind == "pretrain" else line.index(b'"content": "') + 12
    ways = [
        line[: len(line) // 2],
        line[:text_at] + b"\xff\xfe" + line[text_at:],
        b"[" + line + b"]",
        line + b" " + line,
        line[:text_at] + b"\\u0000" + line[text_at:],
    ]
    if kind == "pretrain":
        ways += [b'{"text": 17, "source": "web"}', line.replace(b'"text"', b'"txt"', 1), opener + b'  \\n"}']
    else:
        ways += [
            b'{"conversations": "hello"}',
            line.replace(b'"role": "user"', b'"role": "narrator"', 1),
            line.replace(b'"role": "assistant"', b'"role": "user"'),
            opener + b' "}]}',
        ]
    return ways[number % len(ways)]


def good_lines(path: Path, kind: str, rows: int = 1_000) -> list[bytes]:
    """Those of a file's first lines that validation keeps."""
    with path.open("rb") as stream:
        lines = (line.rstrip(b"\n") for line in islice(stream, rows))
        return [line for line in lines if is_good(line, kind)]


def write_kind(folder: Path, stream: Stream, size_bytes: int, first_file: int) -> Census:
    """Write one kind's lines to files of at most `FILE_BYTES`; the last line passes the size."""
    census, number, room = Census(), first_file, 0
    sink = None
    try:
        while census.bytes < size_bytes:
            rows = int(np.clip((size_bytes - census.bytes) // 1_200, 1, BLOCK_ROWS))
            lines, part = stream.block(rows)
            if sink is None or part.bytes > room:
                if sink:
                    sink.close()
                sink = (folder / f"{stream.kind}-{number:03d}.jsonl").open("wb", buffering=1 << 20)
                number, room = number + 1, FILE_BYTES
            sink.write(b"\n".join(lines) + b"\n")
            census, room = census + part, room - part.bytes
    finally:
        if sink:
            sink.close()
    return census


def generate(folder: Path, size_bytes: int, seed: int = 0, material: Material | None = None) -> Census:
    """Write `pretrain-NNN.jsonl` and `chat-NNN.jsonl` of together `size_bytes` bytes, a row more or less."""
    folder.mkdir(parents=True, exist_ok=True)
    return extend(folder, {kind: int(SHARES[kind] * size_bytes) for kind in KINDS}, seed, material)


def append(folder: Path, share: float = 0.01, seed: int = 0, material: Material | None = None) -> Census:
    """Add files with `share` of new bytes; some of their copies are of rows that were there."""
    sizes = {kind: sum(p.stat().st_size for p in folder.glob(f"{kind}-*.jsonl")) for kind in KINDS}
    return extend(folder, {kind: int(share * size) for kind, size in sizes.items()}, seed, material)


def extend(folder: Path, sizes: Mapping[str, int], seed: int, material: Material | None) -> Census:
    census = Census()
    for index, kind in enumerate(KINDS):
        files = sorted(folder.glob(f"{kind}-*.jsonl"))
        rng = np.random.default_rng([seed, index, len(files)])
        stream = Stream(kind, material or built_in_material(), rng)
        if files:
            stream.remember(good_lines(files[0], kind))
        census += write_kind(folder, stream, sizes[kind], len(files))
    return census
