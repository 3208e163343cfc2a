"""A training stage in three parts, for its function to call in turn:

    training = prepare(run, "pretrain", tokens, run.recipe.model, run.recipe.pretrain)
    drain(training)
    return finish(training)

Nothing here knows which stage it is.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import closing

import numpy as np

from model.config.network import ModelConfig
from model.config.phases import Phase
from model.config.training import TrainConfig
from model.files import write_json
from model.optim.schedule import first_step_of_decay
from model.parallel.ranks import Ranks
from model.precision import product_dtype
from model.training.state import NonFiniteLoss
from model.training.trainer import train
from tasks.errors import Diverged, Interrupted
from tasks.home.contents.story import ROLL_BACK, tell_event, tell_outcome, tell_plan
from tasks.home.digests import digest_of
from tasks.home.records import StageRecord
from tasks.home.trunk import Start
from tasks.pages.figures import expert_load, training_curves
from tasks.planning.compiling import should_compile
from tasks.planning.cost import StagePlan, plan_stage
from tasks.planning.expert_path import choose_expert_path
from tasks.planning.machine import best_device, held_memory_bytes, keep_freed_memory, peak_memory_bytes
from tasks.recipes.pretrain_config import PretrainConfig
from tasks.stage import Outcome, StageRun
from tasks.training.curve import CURVE, Curve, training_seconds, waited_share
from tasks.training.going_on import GoingOn, fine_tuning, going_on
from tasks.training.meters import StageMeters
from tasks.training.processes import rank_processes
from tasks.training.progress import Progress, stop_requests
from tasks.training.reading import note_order, note_what_was_read
from tasks.training.start import TrainingStart, open_rows
from tasks.training.trained import MODEL_CONFIG
from tasks.training.training_run import TrainingRun, checkpoints_of
from tasks.training.validator import Validator
from tasks.training.watching.groups import RowGroups
from tasks.training.watching.spikes import INCIDENTS, SpikeWatcher
from tasks.training.watching.trend import trend_summary
from tasks.training.watching.waiting import waiting_summary
from tasks.training.watching.watcher import (
    GO_ON,
    MOST_ROLLBACKS,
    Action,
    Watcher,
    after_non_finite,
    after_step,
    watchers_of,
)

FIGURES_IN_RECORD = (
    "val/loss", "val/bpb", "train/loss", "train/loss_ema", "moe/balance_loss", "moe/max_load_ratio",
    "change/bpb_before", "change/bpb_after",
)  # fmt: skip
"""Metrics whose last values the stage's record keeps."""
log = logging.getLogger("nightschool")


def prepare(
    run: StageRun, kind: str, packed: StageRecord, model_config: ModelConfig, config: TrainConfig,
    start_from: StageRecord | None = None, trunk: Start | None = None,
) -> TrainingRun:  # fmt: skip
    """Open the data, plan, choose expert path and compilation, create or restore the state, and validate at step 0.

    run: the stage's name, folder and tracker.
    kind: which packed rows of `packed`, a record of the tokens stage, it trains on.
    model_config: the model at the end of the stage.
    config: how it trains; if the stage's folder has checkpoints of the same training, it goes on from the newest.
    start_from: a training stage whose last weights this one begins with; None for weights from `config.seed`.
    trunk: for a stage that grows from night to night, a PretrainConfig its `config`, what it begins with.
    """
    keep_freed_memory()
    run.tracker.dataset(packed, kind, "training")
    (tokens, text), validator = open_rows(packed, kind, config), Validator.open(packed, kind, config)
    row_length_tokens = tokens.sequence_length_tokens
    on = fine_tuning(run, start_from, config, text) if start_from else GoingOn(config)
    if trunk and isinstance(config, PretrainConfig):
        on = going_on(run, trunk, tokens, model_config, config)
    keeps_trunk, config = isinstance(config, PretrainConfig) and config.start == "trunk", on.config
    num_steps = config.num_steps(row_length_tokens)
    identity = digest_of(
        {"model": model_config, "train": config, "data": tokens.fingerprint, "from": on.digest}
    )  # of the recipe's model: the expert path chosen on this machine is noted in the logs
    model_config = choose_expert_path(run.logs, run.stage, model_config, config, row_length_tokens)
    saved = checkpoints_of(run.folder, identity)
    planned_seconds = 0.0
    if not saved:  # before there is a state: the probe has one of its own, and there may not be memory for two
        products = str(product_dtype(config.precision, best_device())).removeprefix("torch.")
        log.info("%-11s measuring a few steps in %s, for the plan of time and memory", run.stage, products)
        planned = plan_stage(model_config, config, row_length_tokens, held_memory_bytes())
        run.tracker.metrics(planned.as_metrics("plan"))
        tell_plan(run.logs, planned.as_metrics("plan"))
        planned_seconds = planned.seconds
    start = TrainingStart(
        stage=run.stage, kind=kind, tokens=packed, model=model_config, config=config, identity=identity,
        compile_blocks=should_compile(run.logs, run.stage, model_config, config, row_length_tokens, planned_seconds),
        resume_from=saved[-1] if saved else None,
        initial_weights=on.weights, with_moments=on.with_moments, replay=on.replay,
    )  # fmt: skip
    state = start.create_state(tokens)
    if saved:
        log.info("%-11s goes on at step %d", run.stage, state.step)
    curve = Curve(run.logs / CURVE, until=state.step if saved else -1)
    meters = StageMeters(curve.points)
    if state.step == 0 and not curve.points:
        at_start = validator.metrics(state.model)
        curve.add(0, at_start)
        run.tracker.metrics(at_start, step=0)
    training = TrainingRun(
        run=run, start=start, tokens=tokens, validator=validator, phases=start.phases(num_steps), num_steps=num_steps,
        state=state, curve=curve, meters=meters, earlier_positions=on.earlier_positions, nights=on.nights,
        pretrained=on.pretrained, groups=RowGroups.open(packed, kind, tokens, on.replay),
        branch_step=max(1, first_step_of_decay(config.optim, num_steps)) if keeps_trunk else None,
    )  # fmt: skip
    note_order(training)
    write_json(run.folder / MODEL_CONFIG, training.phases[-1].model.__dict__)
    return training


def drain(training: TrainingRun, watchers: Sequence[Watcher] = ()) -> None:
    """Train to the last step: after each one log, ask the watchers, and save what is due.

    training: its state, curve and meters are those of the last step afterwards.
    watchers: asked before those of every training stage, in order of precedence.

    Raises Interrupted, once a checkpoint is saved, and Diverged, as the watchers decide; Diverged too for a loss that
    is not finite, for a roll back with several ranks, or to one checkpoint more than MOST_ROLLBACKS times. Raises
    NightStopped if a rank process ends.
    """
    stage, num_steps, rollbacks = training.start.stage, training.num_steps, Counter[int]()
    with (
        stop_requests() as stop_requested,
        rank_processes(training.start, training.run.logs) as ranks,
        closing(Progress(stage, num_steps, training.state.step, training.run.recipe.name)) as progress,
    ):
        watchers = [*watchers, spike_watcher(training), *watchers_of(stop_requested)]
        while training.state.step < num_steps:
            verdict = GO_ON
            try:
                for step in train(training.state, training.tokens, training.start.config, ranks, training.start.replay):
                    number = step.number
                    measured, validation = training.record_step(step)
                    progress.update(step, validation.get("val/bpb"))
                    verdict = after_step(watchers, step, measured, validation)
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


def spike_watcher(training: TrainingRun) -> SpikeWatcher:
    return SpikeWatcher(
        training.start.stage, training.run.logs, training.tokens, training.groups, lambda: training.curve.points
    )


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
    tell_event(training.run.logs, step, ROLL_BACK, f"{reason}; back to step {target_step}")
    log.warning("%-11s %s at step %d: rolled back to step %d", start.stage, reason, step, target_step)
    training.restore(target)


def finish(training: TrainingRun) -> Outcome:
    """Pictures, curve, what was read, and the headline of a training stage that made its last step."""
    run, start, curve, state = training.run, training.start, training.curve, training.state
    note_what_was_read(training)
    losses = training_curves(curve.points, f"{start.stage}: loss and learning rate", run.logs / "loss.png")
    run.tracker.artifact(losses, "figures")
    counts_LE = training.meters.load.counts_LE
    if counts_LE.size:  # no step was made where only the end of the stage had been interrupted
        title = f"{start.stage}: expert load over the last steps"
        run.tracker.artifact(expert_load(counts_LE, title, run.logs / "expert-load.png"), "figures")
    run.tracker.artifact(curve.path, "curves")
    if (incidents := run.logs / INCIDENTS).exists():
        run.tracker.artifact(incidents, "curves")
    actual = StagePlan(state.step, training_seconds(curve.points), peak_memory_bytes())
    run.tracker.final(actual.as_metrics("outcome"), state.step)
    tell_outcome(run.logs, actual.as_metrics("outcome"), counts_LE.tolist())
    bpb, rates = curve.values("val/bpb"), curve.values("train/tokens_per_s")
    headline = [
        f"validation {bpb[0]:.3f} → {bpb[-1]:.3f} bits per byte, {state.tokens_seen:,} tokens at "
        f"{np.median(rates):,.0f}/s",
        *trend_summary(curve.points),
        *waiting(training),
        *change_summaries(curve, training.phases),
    ]
    return Outcome(
        counts={
            "steps": state.step, "tokens_seen": state.tokens_seen,
            "parameters": training.phases[-1].model.total_parameters,
        },
        headline="; ".join(headline),
        figures={name: values[-1] for name in FIGURES_IN_RECORD if (values := curve.values(name))},
    )  # fmt: skip


def waiting(training: TrainingRun) -> list[str]:
    """What is worth saying about the time that the stage waited for rows."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shards = training.tokens.shards
    rows_bytes = sum(its.input_ids.nbytes + its.labels.nbytes + its.segment_ids.nbytes for its in shards)
    told = waiting_summary(
        waited_share(training.curve.points), rows_bytes, memory_bytes, os.getloadavg()[2], os.cpu_count() or 1
    )
    for sentence in told:
        log.warning("%-11s %s", training.start.stage, sentence)
    return told


def change_summaries(curve: Curve, phases: Sequence[Phase]) -> list[str]:
    """Each change of experts with bits per byte before and after it."""
    points = {point["step"]: point for point in curve.points}
    changes = [(phase, points[phase.first_step]) for phase in phases if phase.change and phase.first_step in points]
    return [f"{phase}: {point['change/bpb_before']:.3f} → {point['change/bpb_after']:.3f}" for phase, point in changes]
