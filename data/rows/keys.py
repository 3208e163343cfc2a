"""What a row is called: a hash of its text that no spacing, line ending or way of composing characters changes."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable

import numpy as np

WHITE_SPACE = b" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"
"""The ASCII characters that `str.isspace` accepts."""
ID_BYTES = 16
ID_DTYPE = np.dtype([("hi", "<u8"), ("lo", "<u8")])
"""Sorts like the hexadecimal name."""


def normalised(text: str) -> bytes:
    """Text as duplicates are compared: composed characters (NFC), white space left out."""
    if text.isascii():
        return text.encode().translate(None, WHITE_SPACE)
    # White space goes first: it keeps a mark from composing with the letter before it.
    return unicodedata.normalize("NFC", "".join(text.split())).encode()


def row_ids(texts: Iterable[str]) -> np.ndarray:
    """Names of rows, (N,) of ID_DTYPE: BLAKE2b-128 of the normalised text."""
    blake2b = hashlib.blake2b
    digests = b"".join([blake2b(normalised(text), digest_size=ID_BYTES).digest() for text in texts])
    return np.frombuffer(digests, dtype=[("hi", ">u8"), ("lo", ">u8")]).astype(ID_DTYPE)


def name_of(identity: np.void) -> str:
    """32 hexadecimal digits."""
    return f"{int(identity['hi']):016x}{int(identity['lo']):016x}"


def names_of(ids: np.ndarray) -> list[str]:
    swapped = ids.astype([("hi", ">u8"), ("lo", ">u8")]).tobytes().hex()
    return [swapped[start : start + 2 * ID_BYTES] for start in range(0, len(swapped), 2 * ID_BYTES)]


def parse_name(name: str) -> np.ndarray:
    """The name as (1,) of ID_DTYPE. Raises ValueError if it is none."""
    raw = bytes.fromhex(name)
    if len(raw) != ID_BYTES:
        raise ValueError(f"a row's name has {2 * ID_BYTES} hexadecimal digits, {name!r} has {len(name)}")
    return np.frombuffer(raw, dtype=[("hi", ">u8"), ("lo", ">u8")]).astype(ID_DTYPE)
