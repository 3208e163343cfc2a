"""The night's dense twin, for comparison alone."""

from __future__ import annotations

from prefect import flow

from flows.prepare_data import Prepared
from flows.train_model import train_model
from tasks.errors import Diverged
from tasks.evaluation.twin import TWIN, TrainedTwin, twin_of
from tasks.stage import Night
from tasks.stages.evaluate import evaluate


@flow(name="train-twin", validate_parameters=False)
def train_twin(night: Night, prepared: Prepared) -> TrainedTwin:
    """The training stages and evaluate with one dense block in place of the experts. It is never registered.

    A twin that diverges is an answer, and the night goes on.
    """
    branch = twin_of(night)
    try:
        trained = train_model(branch, prepared.tokens)
    except Diverged as error:
        return TrainedTwin([], diverged=str(error))
    return TrainedTwin([*trained, evaluate(branch, trained[-1], prepared.rows, prepared.tokens, label=TWIN)])
