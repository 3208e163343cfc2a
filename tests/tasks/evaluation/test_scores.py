"""Scores of documents that are longer than a row."""

from __future__ import annotations

import pytest

from model.network.transformer import Transformer
from tasks.evaluation.scores import score_documents
from tests.model.tiny import tiny_config
from tests.reference.targets import text_targets
from tests.tasks.rows import small_tokenizer, text_rows

TEXTS = ["hello", "hello world 漢字. " * 40, "a world", "world hello a " * 15]


@pytest.mark.parametrize("max_tokens", [32, 64, 1024])
def test_a_document_is_scored_whole_however_many_rows_it_takes(max_tokens: int) -> None:
    tokenizer = small_tokenizer()
    model = Transformer(tiny_config())
    scored = score_documents(model, tokenizer, text_rows(TEXTS), max_tokens, "fp32").sort("row_id")
    assert scored["row_id"].to_list() == text_rows(TEXTS)["row_id"].to_list()
    assert scored["num_bytes"].to_list() == [len(text.encode()) for text in TEXTS]
    assert scored["tokens"].to_list() == [len(text_targets(tokenizer, text)) for text in TEXTS]
    assert (scored["nats"] > scored["tokens"]).all(), "an untrained model is surprised by each token"
