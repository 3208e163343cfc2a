"""The bytes of a raw file, plain or compressed, block by block."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zstandard

BLOCK_BYTES = 256 << 10  # split at once: few enough to stay in a core's cache between reading and splitting
ZSTD_INPUT_BYTES = 512  # what comes out of one input has no other bound: four bytes can stand for 128 KiB
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)
"""What reading a broken file can raise."""


def blocks_of(path: Path, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The decompressed bytes of a file whose name says that it is compressed, from `start` on, in blocks; those of a
    plain file from `start` to `end`.

    What could be read before a break is yielded; then the break is raised, as one of UNREADABLE.
    """
    if path.suffix in COMPRESSED:
        for block in zstd_blocks(path) if path.suffix == ".zst" else stream_blocks(path):
            if start < len(block):
                yield block[start:]
            start = max(0, start - len(block))
    else:
        yield from plain_blocks(path, start, math.inf if end is None else end)


def stream_blocks(path: Path) -> Iterator[bytes]:
    opened: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    with opened[path.suffix](path) as stream:
        while block := stream.read1(BLOCK_BYTES):  # read() would throw away what precedes a break
            yield block


def plain_blocks(path: Path, start: int, end: float) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as stream:
        at = stream.seek(start)
        while at < end and (block := stream.read(int(min(BLOCK_BYTES, end - at)))):
            at += len(block)
            yield block
    if at < end < math.inf:
        raise EOFError(f"the file ends at byte {at}, {end} were there before")


def zstd_blocks(path: Path) -> Iterator[bytes]:
    """Frames one after another. The library's stream reader takes a truncated file for a whole one."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    with path.open("rb") as stream:
        while data := stream.read(ZSTD_INPUT_BYTES):
            while data:
                if frame.eof:
                    frame = zstandard.ZstdDecompressor().decompressobj()
                block = frame.decompress(data)
                yield from (block[at : at + BLOCK_BYTES] for at in range(0, len(block), BLOCK_BYTES))
                data = frame.unused_data
    if not frame.eof:
        raise EOFError("the last compressed frame is not complete")
