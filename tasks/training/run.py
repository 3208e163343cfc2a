"""A training stage in three parts: prepare it, drain its loop, finish it. Nothing here knows which stage it is."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import closing

import numpy as np

from data.lookup.exposure import TrainingInput, note_reading
from model.config.network import ModelConfig
from model.config.phases import Phase
from model.config.training import TrainConfig
from model.files import write_json
from model.parallel.ranks import Ranks
from model.tokens.order import Reading
from model.training.state import NonFiniteLoss
from model.training.trainer import train
from tasks.errors import Diverged, Interrupted
from tasks.home.contents.packed import open_packed
from tasks.home.digests import digest_of
from tasks.home.records import StageRecord
from tasks.pages.figures import expert_load, training_curves
from tasks.planning.compiling import should_compile
from tasks.planning.expert_path import choose_expert_path
from tasks.planning.machine import held_memory_bytes, keep_freed_memory, peak_memory_bytes
from tasks.planning.plan import StagePlan, plan_stage
from tasks.stage import Outcome, StageRun
from tasks.training.curve import CURVE, Curve, training_seconds
from tasks.training.meters import StageMeters
from tasks.training.processes import rank_processes
from tasks.training.progress import Progress, stop_requests
from tasks.training.start import TrainingStart
from tasks.training.trained import MODEL_CONFIG, final_weights
from tasks.training.training_run import TrainingRun, checkpoints_of
from tasks.training.validator import Validator
from tasks.training.watch import GO_ON, MOST_ROLLBACKS, Action, Watcher, after_non_finite, after_step, watchers_of

FIGURES_IN_RECORD = (
    "val/loss", "val/bpb", "train/loss", "train/loss_ema", "moe/balance_loss", "moe/max_load_ratio",
    "change/bpb_before", "change/bpb_after",
)  # fmt: skip
"""Metrics whose last values the stage's record keeps."""
log = logging.getLogger("nightschool")


def run_training(
    run: StageRun, stage: str, kind: str, ref: StageRecord, model_config: ModelConfig, config: TrainConfig,
    start_from: StageRecord | None = None,
) -> Outcome:  # fmt: skip
    """Train to the end of `config` from `start_from`'s weights, or from the newest checkpoint in the stage's folder.

    run: folder and tracker of the stage; stage: its name, for messages and figures.
    kind: which packed rows of `ref`, a record of tokens, it trains on.
    model_config: the model at the end of the stage.
    start_from: a training stage whose last weights this one begins with; None for weights from `config.seed`.

    Raises Interrupted after saving a checkpoint if a watcher stops the stage, Diverged if the loss is not finite or a
    watcher ends it, NightStopped if a rank process ends.
    """
    training = prepare(run, stage, kind, ref, model_config, config, start_from)
    with stop_requests() as stop_requested, rank_processes(training.start, run.logs) as ranks:
        drain(training, ranks, watchers_of(stop_requested))
    return finish(training)


def prepare(
    run: StageRun, stage: str, kind: str, ref: StageRecord, model_config: ModelConfig, config: TrainConfig,
    start_from: StageRecord | None = None,
) -> TrainingRun:  # fmt: skip
    """Open the data, plan, choose expert path and compilation, create or restore the state, and validate at step 0.

    The parameters are those of `run_training`.
    """
    keep_freed_memory()
    run.tracker.dataset(ref, kind, "training")
    tokens, validator = open_packed(ref, kind, "train"), Validator.open(ref, kind, config)
    row_length_tokens = tokens.sequence_length_tokens
    num_steps = config.num_steps(row_length_tokens)
    from_digest = start_from.digest if start_from else ""
    identity = digest_of(
        {"model": model_config, "train": config, "data": tokens.fingerprint, "from": from_digest}
    )  # of the recipe's model: the expert path chosen on this machine is noted in the logs
    model_config = choose_expert_path(run.logs, stage, model_config, config, row_length_tokens)
    saved = checkpoints_of(run.folder, identity)
    planned_seconds = 0.0
    if not saved:  # before there is a state: the probe has one of its own, and there may not be memory for two
        planned = plan_stage(model_config, config, row_length_tokens, held_memory_bytes())
        run.tracker.metrics(planned.as_metrics("plan"))
        planned_seconds = planned.seconds
    start = TrainingStart(
        stage=stage, kind=kind, tokens=ref, model=model_config, config=config, identity=identity,
        compile_blocks=should_compile(run.logs, stage, model_config, config, row_length_tokens, planned_seconds),
        resume_from=saved[-1] if saved else None,
        initial_weights=final_weights(start_from.path) if start_from else None,
    )  # fmt: skip
    state = start.create_state(tokens)
    if saved:
        log.info("%-11s goes on at step %d", stage, state.step)
    curve = Curve(run.logs / CURVE, until=state.step if saved else -1)
    meters = StageMeters(curve.points)
    if not curve.points:
        at_start = validator.metrics(state.model)
        curve.add(0, at_start)
        run.tracker.metrics(at_start, step=0)
    return TrainingRun(
        run=run, start=start, tokens=tokens, validator=validator, phases=start.phases(num_steps), num_steps=num_steps,
        state=state, curve=curve, meters=meters,
    )  # fmt: skip


def drain(training: TrainingRun, ranks: Ranks, watchers: Sequence[Watcher]) -> None:
    """Train to the last step: after each one log, ask the watchers, and save what is due.

    training: its state, curve and meters are those of the last step afterwards.
    ranks: all that train together; a roll back needs that to be one, since the others do not ask the watchers.
    watchers: in order of precedence.

    Raises Interrupted, once a checkpoint is saved, and Diverged, as the watchers decide; Diverged too for a roll back
    with several ranks, or to one checkpoint more than MOST_ROLLBACKS times.
    """
    stage, num_steps, rollbacks = training.start.stage, training.num_steps, Counter[int]()
    with closing(Progress(stage, num_steps, training.state.step)) as progress:
        while training.state.step < num_steps:
            verdict = GO_ON
            try:
                for step in train(training.state, training.tokens, training.start.config, ranks):
                    number = step.number
                    metrics, validation = training.record_step(step)
                    progress.update(step, validation.get("val/bpb"))
                    verdict = after_step(watchers, step, metrics, validation)
                    if verdict.action in (Action.ROLL_BACK, Action.FAIL):
                        break
                    stopping = verdict.action is Action.STOP
                    training.save_if_due(number, stopping)
                    if stopping and number < num_steps:
                        raise Interrupted(
                            f"{stage}: {verdict.reason} at step {number} of {num_steps}; the checkpoint is saved"
                        )
            except NonFiniteLoss as error:
                number = training.state.step + 1
                verdict = after_non_finite(watchers, number, error)
            if verdict.action is Action.FAIL:
                raise Diverged(f"{stage}: {verdict.reason}")
            if verdict.action is Action.ROLL_BACK:
                roll_back(training, ranks, rollbacks, number, verdict.reason)


def roll_back(training: TrainingRun, ranks: Ranks, rollbacks: Counter[int], step: int, reason: str) -> None:
    """Restore the newest checkpoint before a step, or the stage's start if there is none.

    Metrics that went to the tracker stay there, followed by those of the steps that are made again.

    rollbacks: how often each step has been restored so far; this time is added.
    step: number of the step that must not stand; reason: of the watcher.

    Raises Diverged as `drain` does.
    """
    start, problem = training.start, f"{training.start.stage}: {reason} at step {step}"
    if ranks.count > 1:
        raise Diverged(f"{problem}; {ranks.count} ranks cannot roll back together: set num_ranks to 1 and run again")
    earlier = [saved for saved in checkpoints_of(training.run.folder, start.identity) if saved.step < step]
    target = earlier[-1] if earlier else None
    target_step = target.step if target else 0
    if rollbacks[target_step] == MOST_ROLLBACKS:
        raise Diverged(
            f"{problem}, again after {MOST_ROLLBACKS} roll backs to step {target_step}; lower optim.peak_lr "
            f"({start.config.optim.peak_lr}) and run again"
        )
    rollbacks[target_step] += 1
    log.warning("%-11s %s at step %d: rolled back to step %d", start.stage, reason, step, target_step)
    training.restore(target)


def finish(training: TrainingRun) -> Outcome:
    """Pictures, curve, what was read, and the headline of a training stage that made its last step."""
    run, start, curve, state = training.run, training.start, training.curve, training.state
    reading = Reading(training.tokens.num_rows, start.config.batch_rows, start.config.seed, state.step)
    note_reading(run.folder, TrainingInput(start.kind, start.tokens.path, reading))
    model_config = training.phases[-1].model
    write_json(run.folder / MODEL_CONFIG, model_config.__dict__)
    losses = training_curves(curve.points, f"{start.stage}: loss and learning rate", run.logs / "loss.png")
    run.tracker.artifact(losses, "figures")
    counts_LE = training.meters.load.counts_LE
    if counts_LE.size:  # no step was made where only the end of the stage had been interrupted
        title = f"{start.stage}: expert load over the last steps"
        run.tracker.artifact(expert_load(counts_LE, title, run.logs / "expert-load.png"), "figures")
    run.tracker.artifact(curve.path, "curves")
    actual = StagePlan(state.step, training_seconds(curve.points), peak_memory_bytes())
    run.tracker.metrics(actual.as_metrics("outcome"))
    bpb, rates = curve.values("val/bpb"), curve.values("train/tokens_per_s")
    headline = [
        f"validation {bpb[0]:.3f} → {bpb[-1]:.3f} bits per byte, {state.tokens_seen:,} tokens at "
        f"{np.median(rates):,.0f}/s",
        *change_summaries(curve, training.phases),
    ]
    return Outcome(
        counts={"steps": state.step, "tokens_seen": state.tokens_seen, "parameters": model_config.total_parameters},
        headline="; ".join(headline),
        figures={name: values[-1] for name in FIGURES_IN_RECORD if (values := curve.values(name))},
    )


def change_summaries(curve: Curve, phases: Sequence[Phase]) -> list[str]:
    """Each change of experts with bits per byte before and after it."""
    points = {point["step"]: point for point in curve.points}
    changes = [(phase, points[phase.first_step]) for phase in phases if phase.change]
    return [f"{phase}: {point['change/bpb_before']:.3f} → {point['change/bpb_after']:.3f}" for phase, point in changes]
