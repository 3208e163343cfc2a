"""The targets that a model must learn, one document at a time and without packing."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"


def text_targets(tokenizer: Tokenizer, text: str) -> list[int]:
    """A document's tokens, then its end."""
    return [*tokenizer.encode(text, add_special_tokens=False).ids, tokenizer.token_to_id(END_OF_TEXT)]


def answer_targets(tokenizer: Tokenizer, answer: str) -> list[int]:
    """An answer's tokens as they follow its header, then the end of the turn."""
    header = tokenizer.encode("assistant\n", add_special_tokens=False).ids
    ids = tokenizer.encode(f"assistant\n{answer}", add_special_tokens=False).ids
    assert ids[: len(header)] == header, f"the answer {answer!r} runs into its header"
    return [*ids[len(header) :], tokenizer.token_to_id(TURN_END)]


def rendered(turns: Sequence[dict[str, str]]) -> str:
    """ChatML as text."""
    return "".join(f"{TURN_START}{turn['role']}\n{turn['content']}{TURN_END}\n" for turn in turns)
