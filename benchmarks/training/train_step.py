"""One training step, side by side: this trainer, MiniMind's model as its trainer runs it, transformers' Qwen3-MoE.

Equal shape, rows, batch and optimizer, in turns, so that drift of the machine affects all alike; 20 GB of memory at the
small shape. Each round also times a large matrix product, the peak that shares refer to. With `--accuracy` the accuracy
that bf16 costs is measured as well. Quote the ratios, never the bare numbers.
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
SLOW_FIRST_STEP_FACTOR = 8.0
"""A first step that is slower than the median by this factor is reported by itself: it is the cost of compilation."""
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
    """Tokens per second of each way in each round, under "peak" the FLOP/s of the product; and the MB each holds.

    Memory is the most private pages held after a step: freed pages stay with the process, so that is the peak.
    """
    rates: dict[str, list[float]] = {name: [] for name in [*names, "peak"]}
    memory = dict.fromkeys(names, 0.0)
    firsts: dict[str, float] = {}
    with ExitStack() as stack:
        steps = {name: stack.enter_context(contestant(name, steps_of, name, shape, minimind)) for name in names}
        for number in range(WARMUP_ROUNDS + rounds):
            round_rates = {"peak": peak_flops_per_s()}
            for name, step in steps.items():
                work = step()
                firsts.setdefault(name, work.seconds)
                memory[name] = max(memory[name], work.held_bytes / 1e6)
                round_rates[name] = shape.rows * shape.tokens / work.seconds
            if number >= WARMUP_ROUNDS:
                for name, rate in round_rates.items():
                    rates[name].append(rate)
    for name in names:
        usual = shape.rows * shape.tokens / statistics.median(rates[name])
        if firsts[name] > SLOW_FIRST_STEP_FACTOR * usual:
            print(f"{name}: its first step took {firsts[name]:.0f} s, {firsts[name] / usual:.0f} times the median step")
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
    for name, values in rates.items():
        if name == "peak":
            continue
        middle = statistics.median(values)
        yield (
            f"{name:34} {middle:9,.0f} {min(values):8,.0f} {max(values):8,.0f} {ours / middle:10.2f} "
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
    parser.add_argument("--work", type=Path, default=ROOT / "store" / "bench-learn", help="folder of prepared text")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    args = parser.parse_args(argv)
    for name, known in (("shapes", SHAPES), ("ways", WAYS)):
        if unknown := set(getattr(args, name)) - set(known):
            parser.error(f"--{name}: no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if "ours" not in args.ways:
        parser.error(f"--ways: ours must be among {', '.join(args.ways)}, which are compared with it")
    if args.minimind and not (args.minimind / "model" / "model_minimind.py").is_file():
        parser.error(f"--minimind: no model/model_minimind.py in {args.minimind}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    keep_freed_memory()
    names = [name for name in args.ways if args.minimind or not WAYS[name].needs_minimind]
    content: list[dict[str, Any]] = []
    for shape in map(Shape.of, args.shapes):
        rates, memory = in_turns(shape, names, args.minimind, args.rounds)
        print("\n".join(table(shape, rates, memory)), flush=True)
        pairs = accuracy.pairs(shape, args.work, args.accuracy, args.accuracy_seeds) if args.accuracy else []
        if pairs:
            print(accuracy.verdict(pairs, args.accuracy, shape.tokens), flush=True)
        content.append({"shape": shape.name, "tokens_per_s": rates, "peak_memory_mb": memory, "accuracy": pairs})
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        machine = machine_facts(args.json.parent)
        args.json.write_text(json.dumps({"machine": machine, "runs": content}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
