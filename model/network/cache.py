"""Keys and values of the tokens already read, so that the next one costs a single step.

Shapes: B = rows, T = tokens read at once, S = slots of the cache filled so far, K = key/value heads, C = head dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.config.network import ModelConfig
from model.network.layers import LayerCache, rotary_tables, segment_positions


class KeyValueCache:
    """What a batch has read: each layer's keys and values, and which slots each row may attend to.

    Rows may have prompts of different lengths, padded on the left with another segment number. A row goes on with the
    segment its last token has; the slots of other segments are never attended to, and positions count from the start
    of that segment, so a row's result is the one it has alone.
    """

    def __init__(self, config: ModelConfig, capacity_tokens: int) -> None:
        self.config = config
        self.capacity_tokens = capacity_tokens
        self.layers = [LayerCache(capacity_tokens) for _ in range(config.num_hidden_layers)]
        self.bias_B11S = torch.empty(0, 1, 1, 0)
        self.cos_B1SC = self.sin_B1SC = torch.empty(0)

    @property
    def length(self) -> int:
        """Slots filled so far."""
        return self.layers[0].length

    def begin(self, segment_BT: Tensor) -> None:
        """Note the segments of the rows' first tokens; every later token belongs to its row's last segment.

        Raises ValueError when they do not fit, as `rotary_and_bias` does.
        """
        rows, tokens = segment_BT.shape
        self._require_room(tokens)
        # Made once as what is added to scores: from a mask of booleans attention makes it anew in each layer and step.
        self.bias_B11S = torch.zeros(rows, 1, 1, self.capacity_tokens, device=segment_BT.device)
        self.bias_B11S[:, 0, 0, :tokens].masked_fill_(segment_BT != segment_BT[:, -1:], float("-inf"))
        start_B1 = tokens - 1 - segment_positions(segment_BT)[:, -1:]
        position_BS = torch.arange(self.capacity_tokens, device=segment_BT.device) - start_B1
        self.cos_B1SC, self.sin_B1SC = rotary_tables(position_BS, self.config.head_dim, self.config.rope_theta)

    def rotary_and_bias(self, num_tokens: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """For the next tokens of each row: `rotary_tables`, and what is added to their scores, fp32, (B, 1, 1 or T, S).

        S counts the slots that are filled after them; -inf is added where a token may not attend. Raises ValueError
        when they do not fit.
        """
        self._require_room(num_tokens)
        end = self.length + num_tokens
        rotary = self.cos_B1SC[:, :, self.length : end], self.sin_B1SC[:, :, self.length : end]
        bias_B11S = self.bias_B11S[..., :end]
        if num_tokens == 1:
            return rotary, bias_B11S
        return rotary, bias_B11S + bias_B11S.new_full((num_tokens, end), float("-inf")).triu(self.length + 1)

    def _require_room(self, num_tokens: int) -> None:
        if self.length + num_tokens > self.capacity_tokens:
            raise ValueError(
                f"the cache has room for {self.capacity_tokens} tokens, not {self.length + num_tokens}; "
                "make it with a greater capacity"
            )

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these, by number; in the order of `rows`."""
        self.bias_B11S = self.bias_B11S[rows]
        self.cos_B1SC, self.sin_B1SC = self.cos_B1SC[rows], self.sin_B1SC[rows]
        for layer in self.layers:
            layer.keep(rows)
