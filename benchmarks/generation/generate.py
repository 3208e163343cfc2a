"""Tokens a second of generation, side by side: this project's, transformers' of the exported folder, MiniMind's own.

The same weights, prompts and number of new tokens, greedy, no stop ids, every way with its cache of keys and values. In
turns, so that drift of the machine hits all alike. Reading the prompt counts. Quote the ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch

from benchmarks.generation.ways import WAYS, Generate, Prompts
from benchmarks.machine import machine_facts
from benchmarks.training.contestants import Contestant, contestant
from benchmarks.training.shapes import MODELS
from model.exchange.export import export_folder
from model.network.transformer import Transformer
from model.tokens.tokenizer import train_tokenizer

BATCHES, PROMPT_TOKENS, NEW_TOKENS, ROUNDS = (1, 16), 64, 128, 5
WANTED_RATIO = 2.0
Rates = dict[str, list[float]]


def export_random(name: str, folder: Path) -> list[int]:
    """A folder with a model of random weights, wide enough apart that greedy choices are clear; ids for prompts."""
    config = replace(MODELS[name], initializer_range=0.1)
    tokenizer = train_tokenizer(topics.values(), config.vocab_size)
    export_folder(Transformer(config), tokenizer, folder)
    return list(tokenizer.encode("\n".join(topics.values())).ids)


def prompts_of(ids: list[int], batch: int, tokens: int) -> Prompts:
    """Stretches of text, all of one length."""
    return [ids[number * tokens : (number + 1) * tokens] for number in range(batch)]


def generator_of(way: str, folder: Path, minimind: Path | None) -> Generate:
    """By name, as functions of a way cannot be sent to its process."""
    return WAYS[way].build(folder, minimind)


def in_turns(
    ways: Mapping[str, Contestant], prompts: Prompts, count: int, rounds: int
) -> tuple[Rates, dict[str, float]]:
    """New tokens/s of each way in each round, after one that does not count; and the share of ids that are as ours."""
    rates: Rates = {name: [] for name in ways}
    answers: dict[str, list[list[int]]] = {}
    for number in range(rounds + 1):
        for name, run in ways.items():
            work = run(prompts, count)
            answers[name] = work.result
            if any(len(row) != count for row in answers[name]):
                raise ValueError(f"{name} added {[len(row) for row in answers[name]]} tokens, asked for {count} a row")
            if number:
                rates[name].append(len(prompts) * count / work.seconds)
    return rates, {name: alike(answers["ours"], found) for name, found in answers.items()}


def alike(first: list[list[int]], second: list[list[int]]) -> float:
    """Share of ids before the first that differs in each row: after it, two greedy rows are different texts."""
    same = 0
    for one, other in zip(first, second, strict=True):
        same += next((n for n, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))
    return same / sum(map(len, first))


def table(batch: int, rates: Rates, same: Mapping[str, float]) -> Iterator[str]:
    yield f"batch {batch}"
    yield f"{'':34} {'tokens/s':>9} {'least':>8} {'most':>8} {'ours over':>10} {'ids alike':>10}"
    ours = statistics.median(rates["ours"])
    for name, found in rates.items():
        middle = statistics.median(found)
        yield (
            f"{name:34} {middle:9,.0f} {min(found):8,.0f} {max(found):8,.0f} {ours / middle:10.2f} {same[name]:10.0%}"
        )


def verdicts(batch: int, rates: Rates) -> Iterator[tuple[str, bool]]:
    """The best way of ours against the best of each of the others: either may be the one in bf16."""
    ours, ours_rate = best_of("ours", rates)
    for family in ("transformers", "MiniMind"):
        if any(name.startswith(family) for name in rates):
            other, other_rate = best_of(family, rates)
            ratio = ours_rate / other_rate
            met = ratio >= WANTED_RATIO
            yield (
                f"{'met   ' if met else 'missed'} batch {batch}: {ours} has {ratio:.2f} times the best of {family} "
                f"({other}); {WANTED_RATIO:.0f} is wanted",
                met,
            )


def best_of(family: str, rates: Rates) -> tuple[str, float]:
    """The fastest way of a family by its median, and that."""
    found = {name: statistics.median(values) for name, values in rates.items() if name.startswith(family)}
    best = max(found, key=lambda name: found[name])
    return best, found[best]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minimind", type=Path, help="a MiniMind checkout; without it, MiniMind is left out")
    parser.add_argument("--model", choices=list(MODELS), default="small")
    parser.add_argument("--ways", type=lambda t: t.split(";"), default=list(WAYS), help="; ".join(WAYS))
    parser.add_argument("--batches", type=lambda t: [int(n) for n in t.split(",")], default=list(BATCHES))
    parser.add_argument("--prompt-tokens", type=int, default=PROMPT_TOKENS)
    parser.add_argument("--new-tokens", type=int, default=NEW_TOKENS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    given = parser.parse_args(argv)
    if unknown := set(given.ways) - set(WAYS):
        parser.error(f"--ways: no {', '.join(sorted(unknown))}; there are {'; '.join(WAYS)}")
    if "ours" not in given.ways:
        parser.error("--ways: the others are compared with ours; name it, too")
    if given.minimind and not (given.minimind / "model" / "model_minimind.py").is_file():
        parser.error(f"--minimind: no model/model_minimind.py in {given.minimind}")
    return given


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments(argv)
    torch.set_num_threads(given.threads)
    names = [name for name in given.ways if given.minimind or not WAYS[name].needs_minimind]
    content: list[dict[str, Any]] = []
    judged: list[tuple[str, bool]] = []
    print(
        f"{given.model}: {given.prompt_tokens} tokens of prompt, {given.new_tokens} new, {given.threads} threads, "
        f"{given.rounds} rounds"
    )
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        ids = export_random(given.model, Path(temporary))
        ways = {
            name: stack.enter_context(contestant(name, generator_of, name, Path(temporary), given.minimind))
            for name in names
        }
        for batch in given.batches:
            prompts = prompts_of(ids, batch, given.prompt_tokens)
            rates, same = in_turns(ways, prompts, given.new_tokens, given.rounds)
            print("\n".join(table(batch, rates, same)), flush=True)
            judged += verdicts(batch, rates)
            content.append({"batch": batch, "tokens_per_s": rates, "ids_alike": same})
    print("\n".join(line for line, _ in judged))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        machine = machine_facts(given.json.parent)
        given.json.write_text(json.dumps({"machine": machine, "runs": content}, indent=1) + "\n")
    return 0 if all(met for _, met in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
