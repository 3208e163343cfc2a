"""One token at a time for a batch of rows, with keys and values kept.

Shapes: B = rows, T = tokens of the longest prompt, D = hidden size, V = vocabulary.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from model.experts.mixture import RoutedExperts
from model.generation.few_rows import FewRowsAttention, FewRowsLinear, FewRowsNorm, FewRowsProduct, FewTokensExperts
from model.network.cache import KeyValueCache
from model.network.layers import Attention, RMSNorm
from model.network.transformer import Transformer


def few_rows_twin(model: Transformer) -> Transformer:
    """The same model, parameters and all, with the modules of `few_rows` in place of those for many rows.

    On an accelerator the experts stay as they are: their sorted, grouped product waits for nothing from the CPU.
    """
    shared = [*model.parameters(), *model.buffers()]
    twin = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    on_cpu = model.embed_tokens.weight.device.type == "cpu"
    for name, module in list(twin.named_modules()):
        if isinstance(module, Attention):
            twin.set_submodule(name, FewRowsAttention(module))
    for name, module in list(twin.named_modules()):
        if isinstance(module, nn.Linear):
            twin.set_submodule(name, FewRowsLinear(module))
        elif isinstance(module, RMSNorm):
            twin.set_submodule(name, FewRowsNorm(module.weight, module.eps))
        elif isinstance(module, RoutedExperts) and on_cpu:
            twin.set_submodule(name, FewTokensExperts(module))
    return twin


class Decoder:
    """A batch that is continued: the scores of every row's next token, after the prompts and then after each token.

    Prompts go through the model itself, the tokens after them through its twin for few rows.
    """

    def __init__(self, model: Transformer, capacity_tokens: int) -> None:
        self.model = model
        self.twin = few_rows_twin(model)
        self.head = FewRowsProduct(model.head)
        self.cache = KeyValueCache(model.config, capacity_tokens)

    def read(self, ids_BT: Tensor, segment_BT: Tensor) -> Tensor:
        """Scores (B, V) after the prompts, once and first; segments as in `Transformer.hidden`."""
        hidden_BTD, _ = self.model.hidden(ids_BT, segment_BT, self.cache)
        return self.logits(hidden_BTD)

    def step(self, token_B: Tensor) -> Tensor:
        """Scores (B, V) after one more token of each row."""
        hidden_BTD, _ = self.twin.hidden(token_B[:, None], cache=self.cache)
        return self.logits(hidden_BTD)

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Scores (B, V) in fp32 after the last of the tokens."""
        return self.head(hidden_BTD[:, -1]).float()

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these, by number."""
        self.cache.keep(rows)
