"""What is learnt in equal time: this trainer beside MiniMind's and nanochat's own models, loaders and recipes.

Same text, tokenizer, active parameters, threads and seconds, sides in turns seed by seed, each in a process of its own.
The clock runs during training only: preparing text, building models and scoring are outside it, the loaders' work is
inside. Learning rates follow each side's own schedule over the elapsed share of the budget. All sides are scored in
fp32 on the same validation documents, each chunk of a document alone. nanochat's batch and rates, made for half a
million tokens a step, are searched for first, by the same validation documents. Every result is appended to the file at
once; a run whose result the file holds already is not repeated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.learning.report import DENSE, MINIMIND_SIDES, NANOCHAT, OURS, SIXTH, Result, report
from benchmarks.learning.scoring import Job
from benchmarks.memory import measure

ROOT = Path(__file__).resolve().parent.parent.parent
SHAPE = {"hidden_size": 256, "num_hidden_layers": 4}
MODEL = SHAPE | {
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32, "num_experts": 8, "num_experts_per_tok": 2,
    "moe_intermediate_size": 384, "initializer_range": 0.05, "tie_word_embeddings": False,
    "embedding_initializer_range": 0.8,
}  # fmt: skip
"""Eight experts of 384, two a token: as many active parameters as nanochat has at this size."""
OPTIM: dict[str, Any] = {
    "name": "muon", "muon_matrices": "attention", "peak_lr": 4.2e-3, "embedding_lr_factor": 40, "head_lr_factor": 1.5,
    "stable_share": 0.4, "beta1": 0.8,
}  # fmt: skip
RECIPE: dict[str, Any] = {"model": MODEL, "batch_rows": 8, "optim": OPTIM}
DENSE_RECIPE: dict[str, Any] = RECIPE | {
    "model": MODEL | {"dense": True}, "optim": OPTIM | {"muon_matrices": "all"},
}  # fmt: skip
"""One feed-forward block of the experts that a token uses; so few matrices can all be Muon's."""
MINIMIND_RECIPE: dict[str, Any] = {
    "model": SHAPE | {"moe_intermediate_size": 768}, "batch_rows": 32, "learning_rate": 5e-4, "accumulation_steps": 8,
    "grad_clip": 1.0,
}  # fmt: skip
"""The defaults of its train_pretrain.py, but for the width of its four experts, one a token, which would be 832: sides
have as many active parameters. fp32, as it leaves autocast out on a CPU."""
NANOCHAT_RECIPE: dict[str, Any] = {
    "model": {"n_layer": 4, "n_embd": 256, "n_head": 4, "n_kv_head": 4, "window_pattern": "L"},
    "rates": {"unembedding_lr": 0.008, "embedding_lr": 0.3, "matrix_lr": 0.02, "scalar_lr": 0.5},
    "weight_decay": 0.28, "schedule": {"warmup_steps": 40, "warmdown_ratio": 0.65, "final_lr_frac": 0.05},
}  # fmt: skip
"""The defaults of its base_train.py, with the heads and windows of its runcpu.sh."""
SEARCHED_ROWS, SEARCHED_MULTIPLIERS = (4, 8, 16), (4.0, 6.0, 9.0)
SEARCH_SECONDS, SEARCH_SEED = 60.0, 0


@dataclass(frozen=True)
class Side:
    module: str
    options: dict[str, Any]
    checkout: str = ""
    """The argument that names its folder."""
    budget_share: float = 1.0


SIDES = {
    OURS: Side("benchmarks.learning.ours", RECIPE),
    SIXTH: Side("benchmarks.learning.ours", RECIPE, budget_share=1 / 6),
    DENSE: Side("benchmarks.learning.ours", DENSE_RECIPE),
    MINIMIND_SIDES[0]: Side("benchmarks.learning.minimind", MINIMIND_RECIPE, "minimind"),
    MINIMIND_SIDES[1]: Side("benchmarks.learning.minimind", MINIMIND_RECIPE | {"accumulation_steps": 1}, "minimind"),
    "MiniMind, our batch and rate": Side(
        "benchmarks.learning.minimind",
        MINIMIND_RECIPE
        | {"accumulation_steps": 1, "batch_rows": RECIPE["batch_rows"], "learning_rate": RECIPE["optim"]["peak_lr"]},
        "minimind",
    ),
    NANOCHAT: Side("benchmarks.learning.nanochat", NANOCHAT_RECIPE, "nanochat"),
}
DEFAULT_SIDES = [OURS, SIXTH, DENSE, *MINIMIND_SIDES, NANOCHAT]


CHECKOUTS = {"minimind": "trainer/train_pretrain.py", "nanochat": "scripts/base_train.py"}
"""A file by which a checkout is known."""


def environment(threads: int, cache: Path) -> dict[str, str]:
    """Environment of a child process: its number of threads, its caches, and no network."""
    count = str(threads)
    return dict(os.environ) | {
        "OMP_NUM_THREADS": count, "RAYON_NUM_THREADS": count, "POLARS_MAX_THREADS": count, "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(cache), "TOKENIZERS_PARALLELISM": "false", "NIGHTSCHOOL_HOME": str(cache),
        "NANOCHAT_BASE_DIR": str(cache),
    }  # fmt: skip


def run_job(job: Job, cache: Path) -> dict[str, Any]:
    """The job's result, from a fresh process. Raises CalledProcessError if the process fails."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answer.json"
        command = [sys.executable, "-m", SIDES[job.side].module, job.as_json(), str(path)]
        subprocess.run(command, cwd=ROOT, env=environment(job.threads, cache), stdout=sys.stderr, check=True)
        answer: dict[str, Any] = json.loads(path.read_text())
        return answer


def job_of(args: argparse.Namespace, name: str, seed: int, seconds: float, text: Path, options: dict[str, Any]) -> Job:
    """A side's job, with more options than its own."""
    side = SIDES[name]
    folder = getattr(args, side.checkout) if side.checkout else None
    return Job(
        side=name, seed=seed, budget_seconds=seconds * side.budget_share, threads=args.threads, text=str(text),
        tokens_per_row=args.tokens, checkout=str(folder.resolve()) if folder else "", options=side.options | options,
    )  # fmt: skip


def jobs(args: argparse.Namespace, text: Path, curve_tokens: int, found: dict[str, Any]) -> Iterator[Job]:
    """Sides in turns, so that a change of the machine affects all sides of a seed alike.

    found: nanochat's batch and rates.
    """
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name in args.sides:
            tuned = args.recipe if SIDES[name].module.endswith("ours") else {}
            more = tuned | (found if name == NANOCHAT else {}) | {"curve_tokens": curve_tokens}
            yield job_of(args, name, seed, args.minutes * 60, text, more)


def searched(args: argparse.Namespace, text: Path, curve_tokens: int) -> Iterator[Job]:
    """Short runs of nanochat with each batch and rate, if it takes part."""
    if NANOCHAT in args.sides:
        for rows, multiplier in itertools.product(SEARCHED_ROWS, SEARCHED_MULTIPLIERS):
            tried = {"batch_rows": rows, "rate_multiplier": multiplier, "curve_tokens": curve_tokens}
            yield job_of(args, NANOCHAT, SEARCH_SEED, SEARCH_SECONDS, text, tried)


def identity(job: Job, digest: str) -> dict[str, Any]:
    """What makes two runs the same, wherever text and checkout are."""
    return {name: value for name, value in asdict(job).items() if name not in ("text", "checkout")} | {"digest": digest}


def finished(path: Path) -> list[Result]:
    """Results of a file; a line that an interruption cut off does not count."""
    results = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            results.append(Result(**json.loads(line)))
        except json.JSONDecodeError:
            continue
    return results


def result_of(job: Job, digest: str, out: Path, cache: Path) -> Result:
    """Of the file of results, or of a run that is appended to it."""
    wanted = identity(job, digest)
    done = next((result for result in finished(out) if result.identity == wanted), None)
    if done is None:
        print(f"seed {job.seed}, {job.side}: {job.budget_seconds:.0f} s", file=sys.stderr, flush=True)
        done = Result(identity=wanted, **run_job(job, cache))
        with out.open("a") as stream:
            stream.write(json.dumps(asdict(done)) + "\n")
    return done


def best_of(tried: Sequence[Result]) -> dict[str, Any]:
    """Batch and rates of the search's lowest figure; nothing without a search."""
    if not tried:
        return {}
    options = min(tried, key=lambda result: result.bpb).identity["options"]
    return {name: options[name] for name in ("batch_rows", "rate_multiplier")}


def search_line(result: Result) -> str:
    options = result.identity["options"]
    return (
        f"{result.side}, {options['batch_rows']:2} rows, rates x {options['rate_multiplier']:g}: {result.bpb:.4f} bits "
        f"per byte after {result.trained_seconds:.0f} s, {result.tokens / result.trained_seconds:,.0f} tokens/s"
    )


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minimind", type=Path, help="a MiniMind checkout")
    parser.add_argument("--nanochat", type=Path, help="a nanochat checkout")
    parser.add_argument("--minutes", type=float, default=8.0, help="of training, for each side and seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=340, help="slots of a row; the default is MiniMind's")
    parser.add_argument("--sources", type=lambda t: t.split(","), default=[], help="built-in pretraining text by name")
    parser.add_argument("--sides", type=lambda t: t.split(";"), help="; ".join(SIDES))
    parser.add_argument("--recipe", type=json.loads, default={}, help="JSON over our recipe, to tune it")
    parser.add_argument("--work", type=Path, default=ROOT / "store" / "bench-learn", help="folder of prepared text")
    parser.add_argument("--out", type=Path, help="results as json lines; what is there already is not run again")
    args = parser.parse_args(argv)
    for name, needed in CHECKOUTS.items():
        folder = getattr(args, name)
        if folder and not (folder / needed).is_file():
            parser.error(f"--{name}: no {needed} in {folder}")
    if unknown := set(args.sides or ()) - set(SIDES):
        parser.error(f"--sides: no {', '.join(sorted(unknown))}; there are {'; '.join(SIDES)}")
    there = [name for name, side in SIDES.items() if not side.checkout or getattr(args, side.checkout)]
    if missing := sorted(set(args.sides or ()) - set(there)):
        parser.error(f"--sides: {', '.join(missing)} without a checkout; name it by --{' or --'.join(CHECKOUTS)}")
    args.sides = args.sides or [name for name in DEFAULT_SIDES if name in there]
    return args


def prepared(args: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """Prepare the text in a process of its own; returns its facts: folder, digest and counts."""
    print("Preparing the text with the data stages, once", file=sys.stderr, flush=True)
    wanted = str(args.tokens), str(args.work.resolve()), *args.sources
    facts: dict[str, Any] = measure(
        "benchmarks.learning.text:prepare_named", *wanted, environment=environment(args.threads, cache)
    ).result
    return facts


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    out = args.out or args.work / "results.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    cache = args.work / "cache"
    cache.mkdir(exist_ok=True)
    text = prepared(args, cache)
    where, curve_tokens = Path(text["folder"]), text["curve_tokens"]

    def results_of(some: Iterator[Job]) -> list[Result]:
        return [result_of(job, text["digest"], out, cache) for job in some]

    tried = results_of(searched(args, where, curve_tokens))
    results = results_of(jobs(args, where, curve_tokens, best_of(tried)))
    lines, good = report(results, text)
    print("\n".join([*(search_line(result) for result in tried), "", *lines]))
    print(f"Every figure and all curves: {out}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
