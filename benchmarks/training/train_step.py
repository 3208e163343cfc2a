"""One training step, side by side: this trainer, MiniMind's model as its trainer runs it, transformers' Qwen3-MoE.

Equal shape, rows, batch and optimizer, in turns, so that drift of the machine hits all alike; 20 GB of memory at the
small shape. Each round also times a large matrix product, the peak that a share of refers to. What bf16 costs in
accuracy is measured apart, if asked for. Quote the ratios, never the bare numbers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import machine_facts
from benchmarks.training import accuracy
from benchmarks.training.contestants import contestant
from benchmarks.training.shapes import SHAPES, Shape
from benchmarks.training.ways import WAYS
from tasks.planning.machine import keep_freed_memory

ROUNDS, WARMUP_ROUNDS = 8, 2
PEAK_SIDE = 4096
TOLD_FROM = 8.0
"""A first step that takes so many times the usual one is told apart: what compiling costs."""
ROOT = Path(__file__).resolve().parent.parent.parent


def peak_flops_per_s() -> float:
    """Of one large product in bf16."""
    a = torch.ones(PEAK_SIDE // 2, PEAK_SIDE, dtype=torch.bfloat16)
    started = time.perf_counter()
    a @ a.T
    return 2 * (PEAK_SIDE // 2) ** 2 * PEAK_SIDE / (time.perf_counter() - started)


def steps_of(way: str, shape: Shape, minimind: Path | None) -> Callable[[], None]:
    step = WAYS[way].build(shape.model, shape.ids(), minimind)

    def run() -> None:
        step()

    return run


def in_turns(
    shape: Shape, names: Sequence[str], minimind: Path | None, rounds: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Tokens/s of each way in each round, under "peak" the FLOP/s of the product; and the memory of each in MB.

    Memory is private pages, the most that was held after a step: what is freed is kept, so that is the peak.
    """
    rates: dict[str, list[float]] = {name: [] for name in [*names, "peak"]}
    memory, firsts = dict.fromkeys(names, 0.0), {}
    with ExitStack() as stack:
        steps = {name: stack.enter_context(contestant(name, steps_of, name, shape, minimind)) for name in names}
        for number in range(WARMUP_ROUNDS + rounds):
            found = {"peak": peak_flops_per_s()}
            for name, step in steps.items():
                work = step()
                firsts.setdefault(name, work.seconds)
                memory[name] = max(memory[name], work.held_bytes / 1e6)
                found[name] = shape.rows * shape.tokens / work.seconds
            if number >= WARMUP_ROUNDS:
                for name, rate in found.items():
                    rates[name].append(rate)
    for name in names:
        usual = shape.rows * shape.tokens / statistics.median(rates[name])
        if firsts[name] > TOLD_FROM * usual:
            print(f"{name}: its first step took {firsts[name]:.0f} s, {firsts[name] / usual:.0f} steps' time")
    return rates, memory


def table(shape: Shape, rates: dict[str, list[float]], memory: dict[str, float]) -> Iterator[str]:
    peak = statistics.median(rates["peak"])
    flops = shape.model.train_flops_per_token(shape.tokens)
    ours = statistics.median(rates["ours"])
    total, active = shape.model.total_parameters / 1e6, shape.model.active_parameters / 1e6
    yield (
        f"{shape.name}: {total:.1f} M parameters, {active:.1f} M active, {shape.rows} x {shape.tokens} tokens, "
        f"GEMM peak {peak / 1e9:,.0f} GFLOP/s in bf16"
    )
    yield f"{'':34} {'tokens/s':>9} {'least':>8} {'most':>8} {'ours over':>10} {'of peak':>8} {'memory MB':>10}"
    for name, found in rates.items():
        if name == "peak":
            continue
        middle = statistics.median(found)
        yield (
            f"{name:34} {middle:9,.0f} {min(found):8,.0f} {max(found):8,.0f} {ours / middle:10.2f} "
            f"{middle * flops / peak:8.0%} {memory[name]:10,.0f}"
        )


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shapes", type=lambda t: t.split(","), default=["small"], help=", ".join(SHAPES))
    parser.add_argument("--ways", type=lambda t: t.split(","), default=list(WAYS), help=", ".join(WAYS))
    parser.add_argument("--minimind", type=Path, help="a MiniMind checkout; without it, MiniMind is left out")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--accuracy", type=int, default=0, metavar="STEPS", help="also compare bf16 and fp32 after these"
    )
    parser.add_argument("--accuracy-seeds", type=int, default=2)
    parser.add_argument("--work", type=Path, default=ROOT / "store" / "bench-learn", help="where prepared text lies")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    given = parser.parse_args(argv)
    for name, known in (("shapes", SHAPES), ("ways", WAYS)):
        if unknown := set(getattr(given, name)) - set(known):
            parser.error(f"--{name}: no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if "ours" not in given.ways:
        parser.error(f"--ways: ours must be among {', '.join(given.ways)}, which are compared with it")
    if given.minimind and not (given.minimind / "model" / "model_minimind.py").is_file():
        parser.error(f"--minimind: no model/model_minimind.py in {given.minimind}")
    return given


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments(argv)
    keep_freed_memory()
    names = [name for name in given.ways if given.minimind or not WAYS[name].needs_minimind]
    content: list[dict[str, Any]] = []
    for shape in map(Shape.of, given.shapes):
        rates, memory = in_turns(shape, names, given.minimind, given.rounds)
        print("\n".join(table(shape, rates, memory)), flush=True)
        found = accuracy.pairs(shape, given.work, given.accuracy, given.accuracy_seeds) if given.accuracy else []
        if found:
            print(accuracy.verdict(found, given.accuracy, shape.tokens), flush=True)
        content.append({"shape": shape.name, "tokens_per_s": rates, "peak_memory_mb": memory, "accuracy": found})
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        machine = machine_facts(given.json.parent)
        given.json.write_text(json.dumps({"machine": machine, "runs": content}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
