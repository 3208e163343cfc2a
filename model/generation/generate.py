"""Sampling: batches of prompts, one token a step, with a cache of keys and values.

Shapes: B = unfinished rows, T = tokens of the longest prompt, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from tokenizers import Tokenizer

from model.config.sampling import Sampling
from model.generation.decoder import Decoder
from model.generation.sampling import Chooser
from model.network.transformer import Transformer
from model.tokens.chat import Turn, render_prompt
from model.tokens.tokenizer import END_OF_TEXT, TURN_END, special_id
from model.training.scoring import evaluating

UNFINISHED = "\ufffd"
"""What decoding makes of bytes that are no whole character, or not yet."""


def reply(model: Transformer, tokenizer: Tokenizer, turns: list[Turn], sampling: Sampling) -> str:
    """The assistant's next turn after `turns`, (role, content) each, without special tokens and outer white space.

    `sampling` is that of `generate`, but for its stop ids: a reply ends with the turn, with the text, or at
    `max_new_tokens`. The same seed gives the same reply. Raises ValueError as `generate` does.
    """
    stops = (special_id(tokenizer, TURN_END), special_id(tokenizer, END_OF_TEXT))
    (ids,) = generate(model, [render_prompt(tokenizer, turns)], replace(sampling, stop_ids=stops))
    return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()


def reply_pieces(model: Transformer, tokenizer: Tokenizer, turns: list[Turn], sampling: Sampling) -> Iterator[str]:
    """What `reply` returns as it comes: pieces that make the same text together. Raises ValueError as `generate` does.

    White space, and the beginning of a character of several bytes, wait for what follows them.
    """
    stops = (special_id(tokenizer, TURN_END), special_id(tokenizer, END_OF_TEXT))
    ids: list[int] = []
    told = 0

    def text() -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()

    with evaluating(model):
        for step in stream(model, [render_prompt(tokenizer, turns)], replace(sampling, stop_ids=stops)):
            ids += step.values()
            whole = text().rstrip(UNFINISHED).rstrip()
            if len(whole) > told:
                yield whole[told:]
                told = len(whole)
    if rest := text()[told:]:
        yield rest


def generate(
    model: Transformer, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int] | None = None
) -> list[list[int]]:
    """The new ids of each of `prompts`, which are ids, with the stop id that ended the row, if one did.

    A row's result depends on its prompt, on `sampling` and on its seed alone, not on the other rows. The seed is
    `sampling.seed`, or with `seeds`, one a prompt, its own. Leaves the model in the mode it was in. Prompts that are
    too long lose their oldest tokens, so that prompt and `max_new_tokens` fit in `max_position_embeddings`. Raises
    ValueError when no room is left for a prompt, a prompt is empty or has an id beyond the vocabulary, `seeds` are too
    few or too many, or a score is not finite.
    """
    new: list[list[int]] = [[] for _ in prompts]
    with evaluating(model):
        for step in stream(model, prompts, sampling, seeds):
            for row, token in step.items():
                new[row].append(token)
    return new


def stream(
    model: Transformer, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int] | None = None
) -> Iterator[dict[int, int]]:
    """What `generate` returns as it comes: each step's new id of every unfinished row, by the prompt's number.

    Arguments and errors are those of `generate`; wrong arguments raise at once. The model runs in the mode it is in,
    and its weights must stay as they are until the last step.
    """
    room = model.config.max_position_embeddings - sampling.max_new_tokens
    if room < 1:
        raise ValueError(
            f"max_new_tokens ({sampling.max_new_tokens}) must be below max_position_embeddings "
            f"({model.config.max_position_embeddings}) to leave room for a prompt; ask for fewer"
        )
    empty = [number for number, prompt in enumerate(prompts) if not len(prompt)]
    if empty:
        raise ValueError(f"prompt {empty[0]} of {len(prompts)} has no tokens; start it with at least one")
    size = model.config.vocab_size
    for number, prompt in enumerate(prompts):
        if unknown := [token for token in prompt if not 0 <= token < size]:
            raise ValueError(
                f"prompt {number} of {len(prompts)} has the id {unknown[0]}, and the vocabulary has {size}, from 0 on; "
                "encode it with the model's own tokenizer"
            )
    if seeds is None:
        seeds = [sampling.seed] * len(prompts)
    if len(seeds) != len(prompts):
        raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts; give one to each")
    return steps(model, [list(prompt[-room:]) for prompt in prompts], sampling, seeds)


@torch.inference_mode()
def steps(
    model: Transformer, prompts: list[list[int]], sampling: Sampling, seeds: Sequence[int]
) -> Iterator[dict[int, int]]:
    """The loop: choose a token for every row, drop the rows that are done, read the tokens of the others.

    Takes the arguments of `generate`, checked and cut to length, and a seed for every prompt.
    """
    if not prompts:
        return
    device = model.embed_tokens.weight.device
    longest = max(map(len, prompts))
    ids_BT = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    segment_BT = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    decoder = Decoder(model, longest + sampling.max_new_tokens - 1)  # the last token is not read
    chooser = Chooser(sampling, prompts, seeds, model.config.vocab_size, device)
    rows = list(range(len(prompts)))
    logits_BV = decoder.read(ids_BT, segment_BT)
    for step in range(sampling.max_new_tokens):
        token_B = chooser.choose(logits_BV, step)
        tokens = token_B.tolist()
        yield dict(zip(rows, tokens, strict=True))
        going = [index for index, token in enumerate(tokens) if token not in sampling.stop_ids]
        if step + 1 == sampling.max_new_tokens or not going:
            return
        if len(going) < len(rows):
            rows = [rows[index] for index in going]
            index_B = torch.tensor(going, device=device)
            token_B = token_B[index_B]
            decoder.keep(index_B)
            chooser.keep(index_B)
        logits_BV = decoder.step(token_B)
