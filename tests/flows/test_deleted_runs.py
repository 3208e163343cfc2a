"""What a person deletes in MLflow is as good as absent: the night goes on, and what it lost it tells anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.retrain_nightly import retrain_nightly
from tests.tiny_recipe import tiny_recipe


def test_a_night_whose_runs_were_deleted_gets_a_parent_run_that_is_whole(
    tmp_path: Path, home: Path, prefect_server: None, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = tiny_recipe(tmp_path / "raw")
    first = retrain_nightly(recipe=recipe)
    client = MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db")
    before = client.get_run(first.run_id).data
    files = {item.path for item in client.list_artifacts(first.run_id)}
    for run_id in (first.run_id, first.records[5].run_id):
        client.delete_run(run_id)
    again = retrain_nightly(recipe=recipe, again=True)
    assert all(record.reused for record in again.records), "a stage is done though its run was deleted"
    assert again.run_id != first.run_id
    run = client.get_run(again.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == before.metrics
    assert run.data.params == before.params
    assert {item.path for item in client.list_artifacts(again.run_id)} == files
    assert retrain_nightly(recipe=recipe, again=True).run_id == again.run_id

    [experiment] = [e for e in client.search_experiments() if e.name == "nightschool"]
    client.delete_experiment(experiment.experiment_id)
    last = retrain_nightly(recipe=recipe, overrides={"sft.optim.peak_lr": 0.001})
    assert last.registered
    assert "had been deleted in MLflow and is restored" in caplog.text
