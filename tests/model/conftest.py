"""One thread, and a tokenizer that all tests of the package share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from model.exchange.export import export_folder
from model.network.transformer import Transformer
from model.tokens.tokenizer import load_tokenizer, train_tokenizer
from tests.model.tiny import TEXTS, tiny_config

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Trained on a few lines and loaded as the packages load it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS * 20, vocab_size=340).save(str(folder / "tokenizer.json"))
    return load_tokenizer(folder)


@pytest.fixture(scope="session")
def exported_model(tokenizer: Tokenizer) -> Transformer:
    return Transformer(tiny_config(vocab_size=tokenizer.get_vocab_size()), seed=3)


@pytest.fixture(scope="session")
def exported(exported_model: Transformer, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`exported_model` and `tokenizer` as a folder that transformers loads."""
    folder = tmp_path_factory.mktemp("exported")
    export_folder(exported_model, tokenizer, folder)
    return folder
