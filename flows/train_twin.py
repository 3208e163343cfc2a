"""The night's dense twin, for comparison alone."""

from __future__ import annotations

from prefect import flow

from flows.prepare_data import Prepared
from tasks.errors import Diverged
from tasks.evaluation.twin import TWIN, TrainedTwin, twin_of, twin_start
from tasks.home.records import StageRecord
from tasks.home.stage_table import TRAINING_STAGES
from tasks.services.endings import ON_FAILURE
from tasks.stage import Night, declared
from tasks.stages.evaluate import evaluate


@flow(
    name="train-twin", flow_run_name="train-twin {night.recipe.name} {night.day}", validate_parameters=False,
    on_failure=ON_FAILURE,
)  # fmt: skip
def train_twin(night: Night, prepared: Prepared) -> TrainedTwin:
    """The training stages and evaluate with one dense block in place of the experts. It is never registered.

    A twin that diverges is an answer, and the night goes on.
    """
    start = twin_start(night)
    if isinstance(start, str):
        return TrainedTwin([], diverged=start)
    branch = twin_of(night, start)
    trained: dict[str, StageRecord] = {}
    try:
        for entry in TRAINING_STAGES:
            weights = [trained[entry.starts_from]] if entry.starts_from else []
            trained[entry.name] = declared(entry)(branch, prepared.tokens, *weights)
    except Diverged as error:
        return TrainedTwin([], diverged=str(error))
    *_, model = trained.values()
    scored = evaluate(branch, model, prepared.rows, prepared.tokens, label=TWIN)
    return TrainedTwin([*trained.values(), scored])
