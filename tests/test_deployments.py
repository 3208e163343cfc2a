"""Every deployment of prefect.yaml can be run: its entrypoint exists, its parameters fit, its schedule fires."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.callables import parameter_schema

from tasks.night.duty import schedule
from tasks.night.duty.schedule import why_stale
from tasks.recipes.deployments import DEPLOYMENTS, ENTRYPOINT, load_recipe, read_deployments, recipe_names
from tasks.services.databases import PREFECT
from tasks.services.processes import answers_at, free_port
from tests.shortcuts import made_once
from tests.waiting import ask, wait_until

ALL = read_deployments(DEPLOYMENTS)
ROOT = DEPLOYMENTS.parent


def test_the_promised_recipes_are_there() -> None:
    assert recipe_names() == ["demo", "small", "nightly", "minimind-moe"]


@pytest.mark.parametrize("deployment", ALL, ids=lambda d: d["name"])
def test_the_entrypoint_takes_the_parameters(deployment: dict[str, Any]) -> None:
    module, _, name = deployment["entrypoint"].partition(":")
    function = getattr(importlib.import_module(module), name)
    function.validate_parameters(deployment["parameters"])
    assert set(deployment["parameters"]) <= parameter_schema(function).properties.keys()


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_carries_its_own_name_and_a_sane_size(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.model.active_parameters < recipe.model.total_parameters
    for config in (recipe.pretrain, recipe.sft):
        assert config.num_steps(recipe.data.sequence_length_tokens) >= 100


def test_minimind_moe_has_minimind_s_size() -> None:
    model = load_recipe("minimind-moe").model
    assert model.total_parameters == pytest.approx(198.4e6, rel=0.002)
    assert 0.97 * 64e6 < model.active_parameters < 64e6


def test_the_form_begins_with_overrides_and_describes_every_field() -> None:
    from flows.retrain_nightly import retrain_nightly

    schema = parameter_schema(retrain_nightly)
    places = {name: field["position"] for name, field in schema.properties.items()}
    assert places == {"overrides": 0, "again": 1, "recipe": 2}
    assert all(field["description"] for field in schema.properties.values())
    owners = schema.definitions.items()
    fields = {f"{owner}.{name}": field for owner, d in owners for name, field in d["properties"].items()}
    assert len(fields) > 100
    classes = {f"#/definitions/{owner}": definition["description"] for owner, definition in owners}
    told = {name: field.get("description") or classes.get(field.get("$ref")) for name, field in fields.items()}
    assert [name for name, description in told.items() if not description] == []


def test_a_misspelt_setting_is_refused_before_anything_starts() -> None:
    from flows.retrain_nightly import retrain_nightly

    parameters = {"recipe": ALL[0]["parameters"]["recipe"] | {"pretrian": {}}}
    with pytest.raises(Exception, match="pretrian"):
        retrain_nightly.validate_parameters(parameters)


def test_no_slot_can_be_kept_by_a_dead_run_and_the_nightly_one_has_a_schedule_in_utc() -> None:
    nights = [d for d in ALL if d["entrypoint"] == ENTRYPOINT]
    assert [d["name"] for d in ALL if "concurrency_limit" in d] == [], "the lease of the home excludes nights"
    scheduled = {d["name"]: d["schedules"] for d in nights if d["schedules"]}
    assert list(scheduled) == ["nightly"]
    assert scheduled["nightly"][0]["timezone"] == "UTC"
    assert scheduled["nightly"][0]["active"] is False, "a person arms it"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, shared_folder: Path) -> Iterator[str]:
    """A real Prefect server with its scheduler, on loopback, with a database of its own."""
    home, port = tmp_path_factory.mktemp("server"), free_port()
    shutil.copy(made_once(PREFECT, shared_folder), home / "prefect.db")
    environment = os.environ | {
        "PREFECT_HOME": str(home),
        "NIGHTSCHOOL_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    prefect = str(Path(sys.executable).with_name("prefect"))
    command = [prefect, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    api = f"http://127.0.0.1:{port}/api"
    try:
        wait_until(answers_at(f"{api}/health"))
        client = environment | {"PREFECT_API_URL": api, "NIGHTSCHOOL_ROOT": str(ROOT)}
        ask("POST", f"{api}/work_pools/", json={"name": "nightschool", "type": "process"}).raise_for_status()
        deploy = [prefect, "--no-prompt", "deploy", "--all"]
        done = subprocess.run(deploy, cwd=ROOT, env=client, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        yield api
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def scheduled(server: str) -> list[dict[str, Any]]:
    """Runs that the scheduler made once the nightly deployment was armed."""
    deployment = ask("GET", f"{server}/deployments/name/retrain-nightly/nightly").json()
    [schedule] = deployment["schedules"]
    armed = ask("PATCH", f"{server}/deployments/{deployment['id']}/schedules/{schedule['id']}", json={"active": True})
    assert armed.status_code == 204
    wanted = {
        "deployments": {"id": {"any_": [deployment["id"]]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }

    def runs() -> list[dict[str, Any]]:
        return ask("POST", f"{server}/flow_runs/filter", json=wanted).json()

    wait_until(lambda: len(runs()) >= 3)
    return runs()


def test_the_scheduler_really_creates_the_nightly_runs(scheduled: list[dict[str, Any]]) -> None:
    """With some versions of its database library, Prefect's scheduler fails silently and no run is ever created."""
    times = sorted(run["expected_start_time"] for run in scheduled)
    assert all("T01:30:00" in at for at in times)
    assert scheduled[0]["parameters"]["recipe"]["name"] == "nightly"


@pytest.mark.usefixtures("scheduled")
def test_of_scheduled_runs_that_are_all_due_the_last_one_is_done(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked in each of the runs that the scheduler made, on the day after the last: the machine was off until then."""
    deployment = ask("GET", f"{server}/deployments/name/retrain-nightly/nightly").json()
    with temporary_settings({PREFECT_API_URL: server}), get_client(sync_client=True) as client:
        of_it = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[UUID(deployment["id"])]))
        runs = client.read_flow_runs(flow_run_filter=of_it, sort=FlowRunSort.EXPECTED_START_TIME_ASC)
        assert len(runs) >= 3
        day_after = runs[-1].expected_start_time + timedelta(days=1)
        by_a_person = runs[0].model_copy(update={"auto_scheduled": False})

        def asked_in(run: Any, at: datetime) -> str:
            context = SimpleNamespace(get=lambda: SimpleNamespace(flow_run=run))
            monkeypatch.setattr(schedule, "FlowRunContext", context)
            return why_stale(at)

        assert asked_in(runs[0], runs[0].expected_start_time) == "", "the others are not due yet"
        reasons = [asked_in(run, day_after) for run in [*runs, by_a_person]]
    assert [bool(reason) for reason in reasons] == [True] * (len(runs) - 1) + [False, False]
    assert runs[-1].name in reasons[0]


def test_every_deployment_arrives_on_the_server(server: str) -> None:
    names = {d["name"] for d in ask("POST", f"{server}/deployments/filter", json={}).json()}
    assert names == {d["name"] for d in ALL}
