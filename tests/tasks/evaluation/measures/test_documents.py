"""One pass over rows: documents longer than a row, sureness of every target, routes of a sample."""

from __future__ import annotations

import pytest

from model.network.transformer import Transformer
from tasks.evaluation.measures.documents import score_rows
from tests.model.tiny import tiny_config
from tests.reference.targets import text_targets
from tests.tasks.rows import small_tokenizer, text_rows

TEXTS = ["hello", "hello world 漢字. " * 40, "a world", "world hello a " * 15]


@pytest.mark.parametrize("max_tokens", [32, 64, 1024])
def test_a_document_is_scored_whole_however_many_rows_it_takes(max_tokens: int) -> None:
    tokenizer = small_tokenizer()
    model = Transformer(tiny_config())
    scored = score_rows(model, tokenizer, text_rows(TEXTS), max_tokens, "fp32").documents.sort("row_id")
    assert scored["row_id"].to_list() == text_rows(TEXTS)["row_id"].to_list()
    assert scored["num_bytes"].to_list() == [len(text.encode()) for text in TEXTS]
    assert scored["tokens"].to_list() == [len(text_targets(tokenizer, text)) for text in TEXTS]
    assert (scored["nats"] > scored["tokens"]).all(), "an untrained model is surprised by each token"


@pytest.mark.parametrize("dense", [False, True])
def test_the_same_pass_tells_sureness_of_every_target_and_routes_of_every_token(dense: bool) -> None:
    model = Transformer(tiny_config(dense=dense))
    found = score_rows(model, small_tokenizer(), text_rows(TEXTS), 64, "fp32")
    targets = found.documents["tokens"].sum()
    assert found.confidence.shape == found.correct.shape == (targets,)
    assert (found.confidence > 0).all() and (found.confidence <= 1).all()
    if dense:
        assert found.counts_LE.size == 0 and found.routes is None
    else:
        assert (found.counts_LE.sum(axis=1) == found.read_tokens * 2).all(), "two experts a token"
        assert found.routes is not None and len(found.routes) == found.read_tokens, "few rows are all sampled"
