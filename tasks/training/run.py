"""What pretraining and SFT share: drain the loop, log it, validate now and then, keep checkpoints, stop politely."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from data.lookup.exposure import TrainingInput, note_reading
from model.config.network import ModelConfig
from model.config.phases import Phase, phase_after
from model.config.training import TrainConfig
from model.dynamics.smoothing import EMA_WEIGHT, smoothed
from model.files import write_json
from model.tokens.order import Reading
from model.training import checkpoint
from model.training.state import NonFiniteLoss, TrainState
from model.training.trainer import train
from tasks.errors import Diverged, Interrupted
from tasks.home.contents.packed import open_packed
from tasks.home.digests import digest_of
from tasks.home.records import StageRecord
from tasks.pages.figures import expert_load, training_curves
from tasks.planning.compiling import compiles
from tasks.planning.expert_path import settled
from tasks.planning.machine import held_memory_bytes, keep_freed_memory, peak_memory_bytes
from tasks.planning.plan import StagePlan, plan_stage
from tasks.stage import Outcome, StageRun
from tasks.training.curve import CURVE, Curve, training_seconds
from tasks.training.processes import company
from tasks.training.progress import Progress, stop_requests
from tasks.training.start import Start
from tasks.training.trained import CHECKPOINTS, MODEL_CONFIG, final_weights
from tasks.training.validator import Validator

EMA_STEPS = 100
"""How many steps back an average still counts: EMA_WEIGHT ** 100 is half a percent."""
log = logging.getLogger("nightschool")


def run_training(
    run: StageRun, stage: str, kind: str, ref: StageRecord, model_config: ModelConfig, config: TrainConfig,
    start_from: StageRecord | None = None,
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
    foretold_seconds = 0.0
    if not saved:  # before there is a state: the probe has one of its own, and there may not be room for two
        planned = plan_stage(model_config, config, tokens.sequence_length_tokens, held_memory_bytes())
        run.tracker.metrics(planned.as_metrics("plan"))
        foretold_seconds = planned.seconds
    compiled = compiles(run.logs, stage, model_config, config, tokens.sequence_length_tokens, foretold_seconds)
    num_steps = config.num_steps(tokens.sequence_length_tokens)
    start = Start(
        stage=stage, kind=kind, tokens=ref, model=model_config, config=config, compiled=compiled, identity=identity,
        saved=saved[-1] if saved else None, weights=final_weights(start_from.path) if start_from else None,
    )  # fmt: skip
    found, state = start.phases(num_steps), start.state(tokens)
    if saved:
        log.info("%-11s goes on at step %d", stage, state.step)
    curve = Curve(run.logs / CURVE, until=state.step if saved else -1)
    if not curve.points:
        at_start = validator.metrics(state.model)
        curve.add(0, at_start)
        run.tracker.metrics(at_start, step=0)
    recent_LE = np.zeros((0, 0))
    with stop_requests() as asked, company(start, run.logs) as ranks:
        progress = Progress(stage, num_steps, state.step)
        try:
            for step in train(state, tokens, config, ranks):
                last = step.number == num_steps
                metrics = step.as_metrics()
                recent_losses = [*curve.values("train/loss", last=EMA_STEPS), step.loss]
                metrics["train/loss_ema"] = float(smoothed(recent_losses, EMA_WEIGHT)[-1])
                recently = [*curve.values("train/clipped", last=EMA_STEPS - 1), float(step.clipped)]
                metrics["train/clipped_share"] = float(np.mean(recently))
                changed = (phase := phase_after(found, step.number)).first_step == step.number
                if changed:
                    metrics |= change_experts(state, phase, validator, start)
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
    reading = Reading(tokens.num_rows, config.batch_rows, config.seed, state.step)
    note_reading(run.folder, TrainingInput(kind, ref.path, reading))
    return finish(run, stage, curve, recent_LE, state, found)


def change_experts(state: TrainState, phase: Phase, validator: Validator, start: Start) -> dict[str, float]:
    """Begin a phase between two steps; returns the validation scores after it, with bits per byte before and after."""
    before = validator.metrics(state.model)
    start.change(state, phase, validator)
    after = validator.metrics(state.model)
    log.info("%-11s %s: validation %.4f → %.4f bits per byte", start.stage, phase, before["val/bpb"], after["val/bpb"])
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
    took = StagePlan(state.step, training_seconds(curve.points), peak_memory_bytes())
    run.tracker.metrics(took.as_metrics("outcome"))
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
