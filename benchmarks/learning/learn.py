"""What is learnt in equal time: this trainer beside MiniMind's own model, loader and recipe.

Same text, tokenizer, active parameters, threads and seconds, sides in turns seed by seed, each in a process of its own.
The clock runs during training only: preparing text, building models and scoring are outside it, the loaders' work is
inside. Both learning rates follow their own schedule over the elapsed share of the budget. Both sides are scored in
fp32 on the same validation documents, each chunk of a document alone. Every result goes to the file as it comes, and
what the file holds already is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.learning.report import MINIMIND_SIDES, OURS, SIXTH, Result, report
from benchmarks.learning.scoring import Job
from benchmarks.memory import measure

ROOT = Path(__file__).resolve().parent.parent.parent
SHAPE = {"hidden_size": 256, "num_hidden_layers": 4}
MODEL = SHAPE | {
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32, "num_experts": 8, "num_experts_per_tok": 2,
    "moe_intermediate_size": 416, "initializer_range": 0.05,
}  # fmt: skip
"""Eight experts of 416, two a token; MiniMind's defaults at this size are four of 832, one a token."""
RECIPE: dict[str, Any] = {"model": MODEL, "batch_rows": 4, "optim": {"peak_lr": 3e-3}}
MINIMIND_RECIPE: dict[str, Any] = {
    "model": SHAPE, "batch_rows": 32, "learning_rate": 5e-4, "accumulation_steps": 8, "grad_clip": 1.0,
}  # fmt: skip
"""The defaults of its train_pretrain.py; fp32, as it leaves autocast out on a CPU."""


@dataclass(frozen=True)
class Side:
    module: str
    options: dict[str, Any]
    budget_share: float = 1.0


SIDES = {
    OURS: Side("benchmarks.learning.ours", RECIPE),
    SIXTH: Side("benchmarks.learning.ours", RECIPE, 1 / 6),
    MINIMIND_SIDES[0]: Side("benchmarks.learning.minimind", MINIMIND_RECIPE),
    MINIMIND_SIDES[1]: Side("benchmarks.learning.minimind", MINIMIND_RECIPE | {"accumulation_steps": 1}),
    "MiniMind, our batch and rate": Side(
        "benchmarks.learning.minimind",
        MINIMIND_RECIPE
        | {"accumulation_steps": 1, "batch_rows": RECIPE["batch_rows"], "learning_rate": RECIPE["optim"]["peak_lr"]},
    ),
}
DEFAULT_SIDES = [OURS, SIXTH, *MINIMIND_SIDES]


def environment(threads: int, cache: Path) -> dict[str, str]:
    """Of a child: so many threads and no network."""
    count = str(threads)
    return dict(os.environ) | {
        "OMP_NUM_THREADS": count, "RAYON_NUM_THREADS": count, "POLARS_MAX_THREADS": count, "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(cache), "TOKENIZERS_PARALLELISM": "false", "NIGHTSCHOOL_HOME": str(cache),
    }  # fmt: skip


def run_job(job: Job, cache: Path) -> dict[str, Any]:
    """The job's answer, from a fresh process. Raises CalledProcessError if it does not end well."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answer.json"
        command = [sys.executable, "-m", SIDES[job.side].module, job.as_json(), str(path)]
        subprocess.run(command, cwd=ROOT, env=environment(job.threads, cache), stdout=sys.stderr, check=True)
        answer: dict[str, Any] = json.loads(path.read_text())
        return answer


def jobs(given: argparse.Namespace, text: Path, curve_tokens: int) -> Iterator[Job]:
    """Sides in turns, so that a change of the machine hits all of a seed alike."""
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        for name in given.sides:
            side = SIDES[name]
            tuned = given.recipe if side.options is RECIPE else {}
            yield Job(
                side=name, seed=seed, budget_seconds=given.minutes * 60 * side.budget_share, threads=given.threads,
                text=str(text), tokens_per_row=given.tokens, minimind=str(given.minimind.resolve()),
                options=side.options | tuned | {"curve_tokens": curve_tokens},
            )  # fmt: skip


def identity(job: Job, digest: str) -> dict[str, Any]:
    """What makes two runs the same, wherever text and checkout lie."""
    return {name: value for name, value in asdict(job).items() if name not in ("text", "minimind")} | {"digest": digest}


def finished(path: Path) -> list[Result]:
    """What a file of results holds; a line that was cut off by an interruption does not count."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(Result(**json.loads(line)))
        except json.JSONDecodeError:
            continue
    return found


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minimind", type=Path, required=True, help="a MiniMind checkout")
    parser.add_argument("--minutes", type=float, default=8.0, help="of training, for each side and seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=340, help="slots of a row; the default is MiniMind's")
    parser.add_argument("--sources", type=lambda t: t.split(","), default=[], help="built-in pretraining text by name")
    parser.add_argument("--sides", type=lambda t: t.split(";"), default=DEFAULT_SIDES, help="; ".join(SIDES))
    parser.add_argument("--recipe", type=json.loads, default={}, help="JSON over our recipe, to tune it")
    parser.add_argument("--work", type=Path, default=ROOT / "store" / "bench-learn", help="where prepared text lies")
    parser.add_argument("--out", type=Path, help="results as json lines; what is there already is not run again")
    given = parser.parse_args(argv)
    if not (given.minimind / "trainer" / "train_pretrain.py").is_file():
        parser.error(f"--minimind: no trainer/train_pretrain.py in {given.minimind}")
    if unknown := set(given.sides) - set(SIDES):
        parser.error(f"--sides: no {', '.join(sorted(unknown))}; there are {'; '.join(SIDES)}")
    return given


def prepared(given: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """Where the text lies, and what it holds."""
    print("Preparing the text with the data stages, once", file=sys.stderr, flush=True)
    wanted = str(given.tokens), str(given.work.resolve()), *given.sources
    found: dict[str, Any] = measure(
        "benchmarks.learning.text:prepare_named", *wanted, environment=environment(given.threads, cache)
    ).result
    return found


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments(argv)
    given.work.mkdir(parents=True, exist_ok=True)
    out = given.out or given.work / "results.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    cache = given.work / "cache"
    cache.mkdir(exist_ok=True)
    text = prepared(given, cache)
    known = finished(out)
    results = []
    for job in jobs(given, Path(text["folder"]), text["curve_tokens"]):
        wanted = identity(job, text["digest"])
        done = next((result for result in known if result.identity == wanted), None)
        if done is None:
            print(f"seed {job.seed}, {job.side}: {job.budget_seconds:.0f} s", file=sys.stderr, flush=True)
            done = Result(identity=wanted, **run_job(job, cache))
            with out.open("a") as stream:
                stream.write(json.dumps(asdict(done)) + "\n")
        results.append(done)
    lines, good = report(results, text)
    print("\n".join(lines))
    print(f"Every figure and all curves: {out}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
