"""What pretraining and SFT share: drain the loop, log it, validate now and then, keep checkpoints, stop politely."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from uuid import UUID

import numpy as np
import polars as pl
import torch
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from tqdm import tqdm

from model import checkpoint
from model.batches import Batch, take
from model.config import ModelConfig, TrainConfig
from model.evaluate import score, totals
from model.files import write_json
from model.packing import PackedTokens
from model.phases import Phase, phase_after, phases
from model.surgery import begin_phase
from model.tokenizer import load_tokenizer, token_byte_lengths
from model.trainer import NonFiniteLoss, StepMetrics, TrainState, train
from model.transformer import Transformer
from tasks.artifacts import CheckpointRef, TokensRef, digest_of
from tasks.errors import Diverged, Interrupted
from tasks.expert_path import settled
from tasks.figures import expert_load, smoothed, training_curves
from tasks.machine import best_device, held_memory_bytes, keep_freed_memory, peak_memory_bytes
from tasks.plan import StagePlan, plan_stage
from tasks.stage import Outcome, StageRun
from tasks.tokens import open_packed, open_segments

MODEL_CONFIG = "model.json"
CHECKPOINTS = "checkpoints"
EMA_WEIGHT, EMA_STEPS = 0.95, 100
"""Weight of the past, and how many steps back it still counts: 0.95^100 is half a percent."""
log = logging.getLogger("nightschool")


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Turn Ctrl-C and SIGTERM into an event that is looked at between steps; a second Ctrl-C ends at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # signals belong to the main thread, which is not ours
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _frame: object) -> None:
        asked.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Curve:
    """Every step's metrics as a line of `curve.jsonl`; what lies beyond the resumed step is forgotten."""

    def __init__(self, path: Path, until: int) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.points: list[dict[str, float]] = [p for p in map(json.loads, lines) if p["step"] <= until]
        path.write_text("".join(json.dumps(point) + "\n" for point in self.points))

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        self.points.append({"step": step, **metrics})
        with self.path.open("a") as stream:
            stream.write(json.dumps(self.points[-1]) + "\n")

    def values(self, key: str, last: int = 0) -> list[float]:
        """A metric over all points, or over the `last` ones."""
        return [point[key] for point in self.points[-last:] if key in point]


@dataclass(frozen=True)
class Validator:
    """Scores the same fixed validation rows each time it is asked."""

    tokens: PackedTokens
    source_of: dict[str, np.ndarray]
    """For each source, which slots are its own."""
    byte_lengths: np.ndarray
    precision: str

    @classmethod
    def open(cls, ref: TokensRef, kind: str, config: TrainConfig) -> Validator:
        """A random but fixed choice of `config.eval_rows` packed rows of the validation side."""
        whole = open_packed(ref, kind, "val")
        rows = np.sort(np.random.default_rng(0).permutation(whole.num_rows)[: config.eval_rows])
        chosen = whole.rows(rows)
        segments = open_segments(ref, kind, "val").filter(pl.col("row").is_in(rows.tolist()))
        place = {int(row): index for index, row in enumerate(rows)}
        source_of = {s: np.zeros(chosen.labels.shape, dtype=bool) for s in segments["source"].unique().sort()}
        for row, start, length, source in segments.select("row", "start", "length", "source").iter_rows():
            source_of[source][place[row], start : start + length] = True
        byte_lengths = token_byte_lengths(load_tokenizer(ref.path))
        return cls(chosen, source_of, byte_lengths, config.precision)

    def metrics(self, model: Transformer) -> dict[str, float]:
        nats = score(model, self.tokens, precision=self.precision)
        overall = totals(nats, self.tokens.labels, self.byte_lengths)
        by_source = {
            f"val/bpb.{source}": totals(nats[own], self.tokens.labels[own], self.byte_lengths).bits_per_byte
            for source, own in self.source_of.items()
            if self.byte_lengths[np.maximum(self.tokens.labels[own], 0)].sum()
        }
        return {"val/loss": overall.loss, "val/bpb": overall.bits_per_byte, **by_source}

    def batches(self, rows: int, device: torch.device) -> list[Batch]:
        """The same rows, some at a time."""
        numbers = np.arange(self.tokens.num_rows)
        return [take(self.tokens, numbers[start : start + rows]).to(device) for start in numbers[::rows]]


class Progress:
    """A bar on a terminal, now and then a log line elsewhere, and Prefect's progress artifact."""

    def __init__(self, stage: str, num_steps: int, done: int) -> None:
        self.stage, self.num_steps = stage, num_steps
        self.bar = tqdm(
            total=num_steps, initial=done, desc=stage, unit="step", dynamic_ncols=True, disable=not sys.stderr.isatty()
        )
        created = create_progress_artifact(100 * done / num_steps, key=f"{stage}-progress", description=stage)
        self.artifact = cast(UUID, created)
        self.every = max(1, num_steps // 20)

    def update(self, step: StepMetrics, val_bpb: float | None) -> None:
        self.bar.set_postfix_str(f"loss {step.loss:.3f} · {step.tokens / step.seconds:,.0f} tokens/s", refresh=False)
        self.bar.update()
        if step.number % self.every == 0 or step.number == self.num_steps:
            update_progress_artifact(self.artifact, progress=100 * step.number / self.num_steps)
            if self.bar.disable:
                left = (self.num_steps - step.number) * step.seconds
                rate = step.tokens / step.seconds
                log.info(
                    "%-11s step %d/%d  loss %.3f  %.0f tokens/s  %.0f s left",
                    self.stage, step.number, self.num_steps, step.loss, rate, left,
                )  # fmt: skip
        if val_bpb is not None and not self.bar.disable:
            self.bar.write(
                f"{self.stage:<11} step {step.number}: validation {val_bpb:.4f} bits per byte", file=sys.stderr
            )


def run_training(
    run: StageRun, stage: str, kind: str, ref: TokensRef, model_config: ModelConfig, config: TrainConfig,
    start_from: CheckpointRef | None = None,
) -> Outcome:  # fmt: skip
    """Train to the end of `config` from `start_from`'s weights, or from the newest checkpoint in the folder.

    Raises Interrupted after saving a checkpoint if asked to stop, Diverged if the loss is no number any more.
    """
    keep_freed_memory()
    tokens, validator = open_packed(ref, kind, "train"), Validator.open(ref, kind, config)
    identity = digest_of(
        {
            "model": model_config,
            "train": config,
            "data": tokens.fingerprint,
            "from": start_from.digest if start_from else "",
        }
    )
    model_config = settled(run.logs, stage, model_config, config, tokens.sequence_length_tokens)
    folder = run.folder / CHECKPOINTS
    saved = [c for c in checkpoint.discover(folder) if c.identity == identity] if folder.exists() else []
    if not saved:  # before there is a state: the probe has one of its own, and there may not be room for two
        planned = plan_stage(model_config, config, tokens.sequence_length_tokens, held_memory_bytes())
        run.tracker.metrics(planned.as_metrics("plan"))
    slots = config.batch_rows * tokens.sequence_length_tokens
    num_steps = config.num_steps(tokens.sequence_length_tokens)
    found = phases(model_config, config.expert_changes, num_steps)
    begins_as = phase_after(found, saved[-1].step if saved else 0).model
    state = TrainState.create(begins_as, config, best_device(), slots)
    if saved:
        checkpoint.load_into(state, saved[-1], identity)
        log.info("%-11s goes on at step %d", stage, state.step)
    elif start_from:
        checkpoint.load_weights(state.model, final_weights(start_from.path))
    curve = Curve(run.logs / "curve.jsonl", until=state.step if saved else -1)
    if not curve.points:
        at_start = validator.metrics(state.model)
        curve.add(0, at_start)
        run.tracker.metrics(at_start, step=0)
    recent_LE = np.zeros((0, 0))
    progress = Progress(stage, num_steps, state.step)
    with stop_requests() as asked:
        try:
            for step in train(state, tokens, config):
                last = step.number == num_steps
                metrics = step.as_metrics()
                recent_losses = [*curve.values("train/loss", last=EMA_STEPS), step.loss]
                metrics["train/loss_ema"] = float(smoothed(recent_losses, EMA_WEIGHT)[-1])
                recently = [*curve.values("train/clipped", last=EMA_STEPS - 1), float(step.clipped)]
                metrics["train/clipped_share"] = float(np.mean(recently))
                changed = (phase := phase_after(found, step.number)).first_step == step.number
                if changed:
                    metrics |= change_experts(state, phase, validator, config, stage, slots)
                elif step.number % config.eval_every_steps == 0 or last:
                    metrics |= validator.metrics(state.model)
                same_experts = recent_LE.shape == step.counts_LE.shape
                recent_LE = 0.98 * recent_LE + step.counts_LE if same_experts else step.counts_LE
                curve.add(step.number, metrics)
                run.tracker.metrics(metrics, step=step.number)
                progress.update(step, metrics.get("val/bpb"))
                if step.number % config.checkpoint_every_steps == 0 or changed or last or asked.is_set():
                    checkpoint.save(state, folder, identity, keep=1 if last else config.keep_checkpoints)
                if asked.is_set() and not last:
                    raise Interrupted(
                        f"{stage} was stopped at step {step.number} of {num_steps}; the checkpoint is saved"
                    )
        except NonFiniteLoss as error:
            raise Diverged(f"{stage}: {error}") from error
        finally:
            progress.bar.close()
    return finish(run, stage, curve, recent_LE, state, found)


def change_experts(
    state: TrainState, phase: Phase, validator: Validator, config: TrainConfig, stage: str, slots: int
) -> dict[str, float]:
    """Begin a phase between two steps; returns the validation scores after it, with bits per byte before and after.

    The loop goes on with the new model and optimizer, because it takes them from `state` at each step.
    """
    before = validator.metrics(state.model)
    batches = validator.batches(config.micro_batch_rows, best_device())
    begun = begin_phase(state, phase, batches, config, slots)
    state.model, state.optimizer = begun.model, begun.optimizer
    after = validator.metrics(state.model)
    log.info("%-11s %s: validation %.4f → %.4f bits per byte", stage, phase, before["val/bpb"], after["val/bpb"])
    return after | {"change/bpb_before": before["val/bpb"], "change/bpb_after": after["val/bpb"]}


def finish(
    run: StageRun, stage: str, curve: Curve, recent_LE: np.ndarray, state: TrainState, found: Sequence[Phase]
) -> Outcome:
    """Figures, curve and headline of a finished training stage; the last phase's model is handed out."""
    model_config = found[-1].model
    write_json(run.folder / MODEL_CONFIG, model_config.__dict__)
    run.tracker.artifact(
        training_curves(curve.points, f"{stage}: loss and learning rate", run.logs / "loss.png"), "figures"
    )
    if recent_LE.size:  # no step was done where only the end of the stage had been interrupted
        heat = expert_load(recent_LE, f"{stage}: expert load over the last steps", run.logs / "expert-load.png")
        run.tracker.artifact(heat, "figures")
    run.tracker.artifact(curve.path, "curves")
    bpb = curve.values("val/bpb")
    wanted = (
        "val/loss", "val/bpb", "train/loss", "train/loss_ema", "moe/balance_loss", "moe/max_load_ratio",
        "change/bpb_before", "change/bpb_after",
    )  # fmt: skip
    figures = {key: values[-1] for key in wanted if (values := curve.values(key))}
    rates, seen = curve.values("train/tokens_per_s"), state.tokens_seen
    seconds = float((np.diff(curve.values("train/tokens_seen"), prepend=0.0) / rates).sum())
    run.tracker.metrics(StagePlan(state.step, seconds, peak_memory_bytes()).as_metrics("outcome"))
    return Outcome(
        counts={"steps": state.step, "tokens_seen": state.tokens_seen, "parameters": model_config.total_parameters},
        headline=f"validation {bpb[0]:.3f} → {bpb[-1]:.3f} bits per byte, {seen:,} tokens at {np.median(rates):,.0f}/s"
        + "".join(f"; {told}" for told in told_changes(curve, found)),
        figures=figures,
    )


def told_changes(curve: Curve, found: Sequence[Phase]) -> list[str]:
    """Each change of experts with bits per byte before and after."""
    points = {point["step"]: point for point in curve.points}
    changes = [(phase, points[phase.first_step]) for phase in found if phase.change]
    return [f"{phase}: {at['change/bpb_before']:.3f} → {at['change/bpb_after']:.3f}" for phase, at in changes]


def final_weights(folder: Path) -> Path:
    """The checkpoint folder of a finished training stage."""
    return checkpoint.discover(folder / CHECKPOINTS)[-1].path


def load_trained(folder: Path) -> Transformer:
    """The model of a finished training stage."""
    model = Transformer(ModelConfig(**json.loads((folder / MODEL_CONFIG).read_text())))
    checkpoint.load_weights(model, final_weights(folder))
    return model
