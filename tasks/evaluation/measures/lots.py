"""Drawing lots by name: an order of held-out rows that depends on nothing but their names and a seed."""

from __future__ import annotations

import hashlib


def lot(seed: int, *names: str) -> bytes:
    """Where these names stand among others; rows that come later change no other row's place."""
    return hashlib.blake2b("\0".join([str(seed), *names]).encode(), digest_size=16).digest()


def first_turns(turns: list[dict[str, object]]) -> list[tuple[str, str]]:
    """(role, content) of a conversation's turns before the assistant first speaks."""
    told: list[tuple[str, str]] = []
    for turn in turns:
        if turn["role"] == "assistant":
            break
        told.append((str(turn["role"]), str(turn["content"])))
    return told
