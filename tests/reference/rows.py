"""What a good row is, as plain predicates."""

from __future__ import annotations

from collections.abc import Mapping

ALLOWED_CONTROLS = "\t\n\x0c\r"


def is_good_text(text: object) -> bool:
    if not isinstance(text, str) or not text.strip():
        return False
    if text.count("\ufffd") * 20 > len(text):
        return False
    return all(character in ALLOWED_CONTROLS or (character >= " " and character != "\x7f") for character in text)


def is_good_turn(turn: object, role: str) -> bool:
    if not isinstance(turn, dict) or turn.get("role") != role or not is_good_text(turn.get("content")):
        return False
    known = {"role", "content"} | {key for key in ("weight", "train") if turn.get(key) in (1, True)}
    return all(value in (None, "", [], {}) for key, value in turn.items() if key not in known)


def is_good_chat(row: Mapping[str, object]) -> bool:
    """Perhaps a system turn, then user and assistant in turns, with at least one answer."""
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns:
        return False
    if isinstance(turns[0], dict) and turns[0].get("role") == "system":
        if not is_good_turn(turns[0], "system"):
            return False
        turns = turns[1:]
    expected = ("user", "assistant")
    return len(turns) >= 2 and all(is_good_turn(turn, expected[i % 2]) for i, turn in enumerate(turns))
