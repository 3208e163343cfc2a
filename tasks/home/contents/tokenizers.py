"""Which trained tokenizer stays in use where a recipe's data is made anew: weights can only go on with theirs."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.home.contents.pretrained import read_noted
from tasks.home.journal import Journal
from tasks.home.records import StageRecord
from tasks.home.trunk import read_trunk

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER = "tokenizer"
"""Name of the input of the tokens stage that is the digest of a tokenizer taken over."""


def whose_tokenizer_stays(
    journal: Journal, recipe: str, rows: StageRecord, config: Mapping[str, object]
) -> StageRecord | None:
    """The tokens stage whose trained tokenizer is taken over for rows that do not grow from earlier ones; None if one
    is to be trained, or is given by the recipe.

    It is the trunk's, else that of the newest data, if the vocabulary is as large. The same rows again keep what they
    had.

    config: the settings of the tokens stage as plain values.
    """
    newest = journal.newest("tokens", recipe)
    if newest and newest.inputs["rows"] == rows.digest and newest.config == config:
        return newest if TOKENIZER in newest.inputs else None
    for record in (tokens_with(journal, tokenizer_of_trunk(journal, recipe)), newest):
        if record and (record.config["vocab_size"], record.config["tokenizer"]) == (config["vocab_size"], ""):
            return record if not config["tokenizer"] else None
    return None


def tokenizer_of_trunk(journal: Journal, recipe: str) -> str:
    """Digest of the tokenizer that a recipe's trunk was trained with; empty without a trunk."""
    trunk = read_trunk(journal.home, recipe)
    return str(read_noted(journal.home / "data" / trunk.folder).get("tokenizer", "")) if trunk else ""


def tokens_with(journal: Journal, tokenizer: str) -> StageRecord | None:
    """A finished tokens stage whose tokenizer has this digest; None if none is there."""
    if not tokenizer:
        return None
    records = (StageRecord.read(path) for path in sorted((journal.home / "data").glob("tokens@*")))
    return next((record for record in records if record and record.files[TOKENIZER_FILE] == tokenizer), None)
