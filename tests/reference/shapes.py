"""Conversations of plain turns in the shapes that `schemas.adapters` reads."""

from __future__ import annotations

from typing import Any

Turns = list[dict[str, str]]
SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt"}


def minimind_row(turns: Turns) -> dict[str, Any]:
    return {"conversations": [dict(turn) for turn in turns]}


def openai_row(turns: Turns) -> dict[str, Any]:
    """Every other content as parts."""
    return {
        "messages": [
            {**turn, "content": [{"type": "text", "text": turn["content"]}]} if place % 2 else dict(turn)
            for place, turn in enumerate(turns)
        ]
    }


def sharegpt_row(turns: Turns) -> dict[str, Any]:
    """The system prompt beside the turns."""
    system = {"system": turns[0]["content"]} if turns[0]["role"] == "system" else {}
    spoken = turns[1:] if system else turns
    return system | {
        "conversations": [{"from": SHAREGPT_ROLES[turn["role"]], "value": turn["content"]} for turn in spoken]
    }


def alpaca_row(turns: Turns) -> dict[str, Any]:
    """The last exchange as instruction and output, those before as history; needs an answer to each question."""
    system = {"system": turns[0]["content"]} if turns[0]["role"] == "system" else {}
    contents = [turn["content"] for turn in (turns[1:] if system else turns)]
    pairs = [contents[place : place + 2] for place in range(0, len(contents), 2)]
    return {"instruction": pairs[-1][0], "input": "", "output": pairs[-1][1], "history": pairs[:-1]} | system


ROWS = {"minimind": minimind_row, "sharegpt": sharegpt_row, "openai": openai_row, "alpaca": alpaca_row}
