"""Byte-level BPE with MiniMind's special tokens, and how many bytes each token stands for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)
"""Ids 0, 1 and 2, as in MiniMind's tokenizer."""

SPLITTER = "\ufdd0"
"""A noncharacter, which no text should hold. The exported chat template puts it into markers that someone typed, so
that no reader of the rendered text takes them for special tokens; the exported tokenizer drops it then."""
DROPS_SPLITTER = {"type": "Replace", "pattern": {"String": SPLITTER}, "content": ""}


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE; any byte sequence can be encoded and decoded without loss."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load `tokenizer.json` of a folder. Raises ValueError if a special token is missing.

    Text that spells a special token is encoded as plain text: only the packer and the chat template may write
    special ids, so no user can end a turn by typing its marker.
    """
    content = (folder / "tokenizer.json").read_text(encoding="utf-8")
    tokenizer = Tokenizer.from_str(without_splitter(content) if SPLITTER in content else content)
    missing = [token for token in SPECIAL_TOKENS if tokenizer.token_to_id(token) is None]
    if missing:
        raise ValueError(f"{folder / 'tokenizer.json'} lacks {', '.join(missing)}; add them as special tokens")
    tokenizer.encode_special_tokens = True
    return tokenizer


def save_for_readers(tokenizer: Tokenizer, path: Path) -> None:
    """Write `tokenizer.json` for readers of the rendered chat template: SPLITTER is dropped, after special tokens."""
    content = json.loads(tokenizer.to_str())
    others = [content["normalizer"]] if content["normalizer"] else []
    content["normalizer"] = {"type": "Sequence", "normalizers": [DROPS_SPLITTER, *others]} if others else DROPS_SPLITTER
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")


def without_splitter(content: str) -> str:
    """A `tokenizer.json` as it was before `save_for_readers`."""
    tokenizer = json.loads(content)
    tokenizer["normalizer"] = own_normalizer(tokenizer["normalizer"])
    return json.dumps(tokenizer, ensure_ascii=False)


def own_normalizer(normalizer: dict[str, Any] | None) -> dict[str, Any] | None:
    """The normalizer of a `tokenizer.json` but for what drops SPLITTER."""
    if normalizer == DROPS_SPLITTER:
        return None
    if normalizer and normalizer["type"] == "Sequence" and normalizer["normalizers"][:1] == [DROPS_SPLITTER]:
        return dict(normalizer["normalizers"][1])
    return normalizer


def special_id(tokenizer: Tokenizer, token: str) -> int:
    """Id of a special token; `load_tokenizer` made sure that it has one."""
    index = tokenizer.token_to_id(token)
    if index is None:
        raise ValueError(f"the tokenizer has no {token}")
    return int(index)


def token_byte_lengths(tokenizer: Tokenizer) -> np.ndarray:
    """UTF-8 bytes behind each id, (V,) int32; special tokens stand for none.

    In a byte-level vocabulary every character of a token is one byte, so lengths of tokens add up to the length
    of the text, and bits per byte compare across tokenizers.
    """
    lengths = np.zeros(tokenizer.get_vocab_size(), dtype=np.int32)
    for token, index in tokenizer.get_vocab().items():
        lengths[index] = 0 if token in SPECIAL_TOKENS else len(token)
    return lengths
