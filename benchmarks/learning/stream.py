"""Nights over a stream of text in which domains arrive one after another: which way of starting a night wins?

    python -m benchmarks.learning.stream --home FOLDER [--seeds 1,2,3] [--ways trunk,champion,scratch] [--steps 90]
    python -m benchmarks.learning.stream --home FOLDER --report [--figure PATH]

Each night gets new text of one domain of the built-in corpus and as many optimizer steps as every other: equal work.
`scratch` trains a new model on all text so far; `champion` warms up again from the cooled model of the night before;
`trunk` goes on from the state before that model's decay. The last two mix new rows with replayed ones. After every
night the cooled model is scored on held-out text of every domain. Runs are kept in the folder, and one that is there
already is not done again; `--report` prints the table of what is there, `--figure` draws it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

from data.tokens.encode import Encoder
from data.tokens.tokenise import PackedRows, pack_table
from model.config.training import TrainConfig
from model.files import append_line
from model.optim.schedule import first_step_of_decay
from model.tokens.order import Reading, TrunkReplay, mixed
from model.tokens.packing import ShardedTokens
from model.tokens.tokenizer import load_tokenizer, token_byte_lengths, train_tokenizer
from model.training import checkpoint
from model.training.scoring import score
from model.training.state import TrainState
from model.training.trainer import train
from tasks.planning.machine import keep_freed_memory
from tasks.recipes.deployments import load_recipe
from tasks.recipes.pretrain_config import PretrainConfig
from tasks.sources.builtin import build_corpus

WAYS = ("trunk", "champion", "scratch")
ARRIVALS = (
    "conversations", "reference", "docstrings", "code", "chinese", "conversations", "docstrings", "code",
)  # fmt: skip
"""The domain of each night's new text."""
DOMAINS = tuple(dict.fromkeys(ARRIVALS))
NIGHT_BYTES, HELD_OUT_BYTES, HELD_OUT_SHARE = 600_000, 40_000, 0.25
"""Of new text a night at the most; of held-out text a domain at the most, and as a share of a small domain's text."""
ROW_TOKENS = 256
RUNS, TEXT = "runs.jsonl", "text"
LINES = ("o-", "s--", "^-.", "v:", "D-", "x--")
"""Of the figure, by way: told apart in grey, too."""


@dataclass(frozen=True)
class Stream:
    """The packed rows of each night, and the held-out text of each domain."""

    nights: list[PackedRows]
    held_out: dict[str, PackedRows]
    byte_lengths: np.ndarray

    def until(self, night: int) -> ShardedTokens:
        """All rows of the nights up to this one, from 1."""
        return ShardedTokens(tuple(packed.tokens for packed in self.nights[:night]), f"stream {night}")


def texts_of(corpus: Path, domain: str) -> Iterator[str]:
    """Texts of a domain, in the order of the built-in corpus."""
    name = "chat-chinese" if domain == "chinese" else f"pretrain-{domain}"
    for line in (corpus / f"{name}.jsonl").read_bytes().splitlines():
        row = orjson.loads(line)
        yield row["text"] if "text" in row else "\n".join(turn["content"] for turn in row["conversations"])


def up_to(texts: Iterator[str], num_bytes: int) -> list[str]:
    """The next texts, until they have as many bytes."""
    taken, size = list[str](), 0
    for text in texts:
        taken.append(text)
        if (size := size + len(text.encode())) >= num_bytes:
            break
    return taken


def make_stream(home: Path) -> Stream:
    """Held-out text comes first in each domain's shuffled texts, then that of its nights."""
    corpus = build_corpus(home)
    remaining, held_out = {}, {}
    for domain in DOMAINS:
        texts = list(dict.fromkeys(texts_of(corpus, domain)))
        share = int(HELD_OUT_SHARE * sum(len(text.encode()) for text in texts))
        remaining[domain] = iter([texts[n] for n in np.random.default_rng(0).permutation(len(texts))])
        held_out[domain] = up_to(remaining[domain], min(HELD_OUT_BYTES, share))
    nights = [up_to(remaining[domain], NIGHT_BYTES) for domain in ARRIVALS]
    folder = home / TEXT
    if not (folder / "tokenizer.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        train_tokenizer((text for texts in nights for text in texts), 6_400).save(str(folder / "tokenizer.json"))
    encoder = Encoder.open(folder)

    def packed(texts: list[str], name: str) -> PackedRows:
        rows = pl.DataFrame(
            {"row_id": [f"{name} {n}" for n in range(len(texts))], "source": name, "domain": name, "text": texts}
        )
        return pack_table(rows, encoder, ROW_TOKENS)

    return Stream(
        [packed(texts, f"night {n}") for n, texts in enumerate(nights, start=1)],
        {domain: packed(texts, domain) for domain, texts in held_out.items()},
        token_byte_lengths(load_tokenizer(folder)),
    )


def bits_per_byte(state: TrainState, packed: PackedRows, byte_lengths: np.ndarray) -> float:
    nats = packed.sums(score(state.model, packed.tokens, precision="bf16")).sum()
    return float(nats / np.log(2) / packed.sums(packed.target_bytes(byte_lengths)).sum())


def run(stream: Stream, way: str, config: PretrainConfig, home: Path) -> Iterator[dict[str, Any]]:
    """All nights of one way and seed; yields each night's scores."""
    model, saved = load_recipe("demo").model, home / f"state-{way}-{config.seed}-{config.replay_share}"
    before, positions = np.zeros(0, dtype=np.uint32), 0
    for night in range(1, len(stream.nights) + 1):
        tokens = stream.until(night)
        tonight: TrainConfig = config
        replay = None
        state = TrainState.create(model, config, tokens_per_step=config.batch_rows * ROW_TOKENS)
        if night > 1 and way != "scratch":
            tonight = config.going_on(config.num_tokens, warm=way == "trunk")
            before = np.pad(before, (0, tokens.num_rows - len(before)))
            num_positions = tonight.num_steps(ROW_TOKENS) * tonight.batch_rows
            share = mixed(config.replay_share, config.new_rows_epochs, before, num_positions)
            replay = TrunkReplay(before, share, positions)
            folder = checkpoint.discover(saved)[-1].path
            if way == "trunk":
                checkpoint.load_model_and_optimizer(state, folder)
            else:
                checkpoint.load_weights(state.model, folder)
        num_steps = tonight.num_steps(ROW_TOKENS)
        kept_at = first_step_of_decay(tonight.optim, num_steps) if way == "trunk" else num_steps
        started = time.process_time()
        for step in train(state, tokens, tonight, replay=replay):
            if step.number == kept_at:
                keep(state, saved)
        seconds = time.process_time() - started
        reading = Reading(tokens.num_rows, tonight.batch_rows, tonight.seed, kept_at, replay)
        before, positions = reading.times_read(), positions + reading.num_positions
        scores = {name: bits_per_byte(state, packed, stream.byte_lengths) for name, packed in stream.held_out.items()}
        yield {"night": night, "arrived": ARRIVALS[night - 1], "cpu_seconds": round(seconds, 2), "bpb": scores}


def keep(state: TrainState, folder: Path) -> None:
    """The state that the next night goes on from, in place of the last one."""
    for old in checkpoint.discover(folder):
        for path in (*old.path.iterdir(), old.path):
            path.rmdir() if path.is_dir() else path.unlink()
    checkpoint.save(state, folder, "stream", keep=1)


def config_of(steps: int, seed: int, replay_share: float) -> PretrainConfig:
    """The demo's pretraining with `steps` steps a night."""
    of_demo = load_recipe("demo").pretrain
    tokens = steps * of_demo.batch_rows * ROW_TOKENS
    return replace(of_demo, num_tokens=tokens, seed=seed, replay_share=replay_share, checkpoint_every_steps=10**9)


def table(runs: list[dict[str, Any]]) -> str:
    """After the last night: bits per byte of each domain, their mean, what was forgotten of the oldest, and seconds.

    Forgotten is the oldest domain's score after the last night less its best after any.
    """
    head = ["way", "replay", "seed", *DOMAINS, "mean", "forgotten", "CPU s a night"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for run in sorted(runs, key=lambda run: (WAYS.index(run["way"]), run["replay"], run["seed"])):
        nights = run["nights"]
        last, oldest = nights[-1]["bpb"], [night["bpb"][DOMAINS[0]] for night in nights]
        figures = [*(last[domain] for domain in DOMAINS), np.mean(list(last.values())), oldest[-1] - min(oldest)]
        seconds = np.mean([night["cpu_seconds"] for night in nights])
        cells = [
            run["way"],
            f"{run['replay']:g}",
            run["seed"],
            *(f"{value:.3f}" for value in figures),
            f"{seconds:.0f}",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def draw(runs: list[dict[str, Any]], path: Path) -> Path:
    """Bits per byte after every night: a panel for each domain, a line for each way of starting and share of replay.

    A line is the mean over its seeds, its band reaches from the lowest to the highest; nights on which text of the
    domain arrived are marked. An SVG is the same bytes for the same runs.
    """
    ways = sorted({(run["way"], run["replay"]) for run in runs}, key=lambda way: (WAYS.index(way[0]), -way[1]))
    figure = Figure(figsize=(9.6, 5.4), layout="constrained")
    *panels, legend = figure.subplots(2, 3, sharex=True).flat
    nights = range(1, len(ARRIVALS) + 1)
    for domain, axes in zip(DOMAINS, panels, strict=True):
        for night in (night for night in nights if ARRIVALS[night - 1] == domain):
            axes.axvline(night, color="0.6", linestyle=":", linewidth=1.2)
        for number, (way, replay) in enumerate(ways):
            mine = [run["nights"] for run in runs if (run["way"], run["replay"]) == (way, replay)]
            scores = np.array([[night["bpb"][domain] for night in of_seed] for of_seed in mine])
            label = f"{way}, {replay:g} replayed ({len(mine)})" if way != "scratch" else f"{way} ({len(mine)})"
            style = LINES[number % len(LINES)]
            axes.plot(nights, scores.mean(axis=0), style, color=f"C{number}", ms=4, linewidth=1.4, label=label)
            axes.fill_between(nights, scores.min(axis=0), scores.max(axis=0), color=f"C{number}", alpha=0.15, lw=0)
        lowest, highest = axes.get_ylim()
        axes.set(title=domain, xticks=nights, yscale="log" if highest > 4 * lowest else "linear")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=8, which="both")
    legend.axis("off")
    legend.legend(*panels[0].get_legend_handles_labels(), loc="center", fontsize=9, title="way (seeds)")
    figure.supxlabel("night; dotted: text of the domain arrives", fontsize=9)
    figure.supylabel("bits per byte of held-out text", fontsize=9)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "stream"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--home", type=Path, required=True, help="folder for text, states and runs")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--replay", default="0.25", help="shares of replayed rows")
    parser.add_argument("--steps", type=int, default=90, help="optimizer steps a night")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="print the table of what is there, and stop")
    parser.add_argument("--figure", type=Path, help="with --report: also draw it there, as .svg or .png")
    arguments = parser.parse_args()
    path = arguments.home / RUNS
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if arguments.report:
        print(table(done))
        if arguments.figure:
            print(draw(done, arguments.figure))
        return
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    stream = make_stream(arguments.home)
    for seed in map(int, arguments.seeds.split(",")):
        for way in arguments.ways.split(","):
            for share in map(float, arguments.replay.split(",") if way != "scratch" else ["0"]):
                of = {"way": way, "seed": seed, "replay": share, "steps": arguments.steps}
                if any(all(entry[name] == value for name, value in of.items()) for entry in done):
                    continue
                nights = list(run(stream, way, config_of(arguments.steps, seed, share), arguments.home))
                append_line(path, {**of, "nights": nights})
                print(of, [round(float(np.mean(list(n["bpb"].values()))), 4) for n in nights], flush=True)


if __name__ == "__main__":
    main()
