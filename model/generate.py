"""Sampling a reply."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer

from model.chat import Turn, render_prompt
from model.evaluate import evaluating
from model.tokenizer import END_OF_TEXT, TURN_END, special_id
from model.transformer import Transformer


def reply(
    model: Transformer,
    tokenizer: Tokenizer,
    turns: list[Turn],
    *,
    max_new_tokens: int = 48,
    temperature: float = 0.6,
    top_p: float = 0.9,
    seed: int = 0,
) -> str:
    """The assistant's next turn, sampled with temperature and nucleus (arXiv 1904.09751); temperature 0 is greedy.

    Stops at the end of the turn, of the text, or at `max_new_tokens`. The same seed gives the same reply.
    """
    device = next(model.parameters()).device
    stops = {special_id(tokenizer, TURN_END), special_id(tokenizer, END_OF_TEXT)}
    generator = torch.Generator().manual_seed(seed)
    ids = render_prompt(tokenizer, turns)
    start = len(ids)
    with evaluating(model):
        for _ in range(max_new_tokens):
            context = torch.tensor([ids[-model.config.max_position_embeddings :]], device=device)
            hidden, _ = model.hidden(context)
            token = sample(model.logits(hidden[0, -1]).float().cpu(), temperature, top_p, generator)
            if token in stops:
                break
            ids.append(token)
    return str(tokenizer.decode(ids[start:], skip_special_tokens=True)).strip()


def sample(logits_V: torch.Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    """One id: the best one at temperature 0, else one drawn from the smallest set that holds `top_p`."""
    if temperature == 0:
        return int(logits_V.argmax())
    sorted_V, order_V = (logits_V / temperature).softmax(dim=-1).sort(descending=True)
    kept_V = sorted_V.cumsum(dim=-1) - sorted_V < top_p
    return int(order_V[torch.multinomial(sorted_V * kept_V, 1, generator=generator)])
