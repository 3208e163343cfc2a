"""The whole chain on a slice of real text, in this process, and what it leaves behind."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun

from data.lookup.exposure import READ_ROWS
from flows.promote_model import promote_model
from flows.retrain_nightly import retrain_nightly
from tasks.errors import Diverged, NightBusy, NightStopped
from tasks.evaluation.twin import TwinComparison
from tasks.home.journal import Journal
from tasks.home.outcomes import outcomes
from tasks.home.records import StageRecord
from tasks.night.report import NightReport
from tasks.night.skipping import SkippedNight
from tasks.questions.answers import who_ate
from tasks.recipes.recipe import Recipe
from tests.tiny_recipe import tiny_recipe

STAGES = ["validate", "deduplicate", "split", "tokens", "inspect", "pretrain", "sft", "evaluate", "register"]
TWIN = ["twin-pretrain", "twin-sft", "twin-evaluate"]


@dataclasses.dataclass(frozen=True)
class Lived:
    """A home with two nights of different learning rates, the first one run three times, the second with a twin."""

    home: Path
    recipe: Recipe
    first: NightReport
    skipped: SkippedNight
    again: NightReport
    second: NightReport

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.home}/mlflow/mlflow.db")


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Iterator[Lived]:
    folder = tmp_path_factory.mktemp("lived")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIGHTSCHOOL_HOME", str(folder / "home"))
        recipe = tiny_recipe(folder / "raw")
        first = retrain_nightly(recipe=recipe)
        skipped = retrain_nightly(recipe=recipe)
        again = retrain_nightly(recipe=recipe, again=True)
        slower = {"pretrain.optim.peak_lr": 0.0001, "sft.optim.peak_lr": 0.0001, "twin": True}
        second = retrain_nightly(recipe=recipe, overrides=slower)
        yield Lived(folder / "home", recipe, first, skipped, again, second)


def runs(lived: Lived, wanted: str) -> list:
    experiment = lived.client.get_experiment_by_name("nightschool")
    return lived.client.search_runs([experiment.experiment_id], wanted, order_by=["attributes.start_time ASC"])


def test_every_stage_is_told_with_its_key_figure(lived: Lived) -> None:
    assert [record.stage for record in lived.first.records] == STAGES
    text, markdown = lived.first.as_text(), lived.first.as_markdown()
    for record in lived.first.records:
        assert record.headline in markdown and f"{record.name} {record.seconds:.1f} s" in text
    assert "PROMOTED  version 1" in text
    assert "first model" in text
    assert len(lived.first.chats) == 3


def test_a_night_that_would_repeat_one_is_skipped(lived: Lived) -> None:
    assert isinstance(lived.skipped, SkippedNight)
    assert "no row is new" in lived.skipped.reason and "which made version 1" in lived.skipped.reason
    endings = [outcome.ending for outcome in outcomes(Journal(lived.home).entries(), "tiny")]
    assert endings == ["skipped", "promoted", "kept"], "the night that was run again is told once, as it ended last"


def test_running_it_again_reuses_everything_and_adds_no_run(lived: Lived) -> None:
    assert all(record.reused for record in lived.again.records)
    assert lived.again.run_id == lived.first.run_id
    assert [r.digest for r in lived.again.records] == [r.digest for r in lived.first.records]


def test_another_learning_rate_reuses_the_data_and_is_a_night_of_its_own(lived: Lived) -> None:
    assert [record.reused for record in lived.second.records] == [True] * 5 + [False] * 7
    assert lived.second.run_id != lived.first.run_id
    assert not lived.second.decision["promoted"]
    assert str(lived.second.decision["reason"]).startswith("worse: ") and lived.second.decision["clearly_worse"]


def test_one_parent_run_a_night_and_a_child_a_stage(lived: Lived) -> None:
    nights = runs(lived, "tags.`nightschool.kind` = 'night'")[:2]
    assert [night.info.run_id for night in nights] == [lived.first.run_id, lived.second.run_id]
    for night, report in zip(nights, (lived.first, lived.second), strict=True):
        assert night.info.status == "FINISHED"
        assert {"val/bpb", "val/loss", "val/perplexity", "val/bpb.text", "val/bpb.chat"} <= night.data.metrics.keys()
        assert len(night.data.metrics) <= 40
        assert night.data.tags["nightschool.reason"] == report.decision["reason"]
        assert night.data.tags["prefect.flow_run_id"]
        assert f"version {night.data.tags['nightschool.validation']}: " in night.data.tags["mlflow.note.content"]
    assert [night.data.params["pretrain.optim.peak_lr"] for night in nights] == ["0.01", "0.0001"]
    children = runs(lived, f"tags.`mlflow.parentRunId` = '{lived.first.run_id}'")
    assert [child.data.tags["nightschool.stage"] for child in children] == STAGES
    assert {child.info.status for child in children} == {"FINISHED"}
    assert all(child.data.tags["prefect.task_run_id"] for child in children)


def test_nights_overlay_without_opening_their_stages(lived: Lived) -> None:
    for report in (lived.first, lived.second):
        for stage, record in (("pretrain", report.records[5]), ("sft", report.records[6])):
            [child] = runs(lived, f"attributes.run_id = '{record.run_id}'")
            of_stage = [(m.step, m.value) for m in lived.client.get_metric_history(child.info.run_id, "val/bpb")]
            of_night = [(m.step, m.value) for m in lived.client.get_metric_history(report.run_id, f"{stage}/bpb")]
            assert of_night == of_stage != []


def test_no_curve_goes_back_and_final_figures_stand_at_its_end(lived: Lived) -> None:
    """Of every run and metric, in the order in which the points were reported."""
    for run in runs(lived, ""):
        for key in run.data.metrics:
            points = lived.client.get_metric_history(run.info.run_id, key)
            steps = [point.step for point in sorted(points, key=lambda point: point.timestamp)]
            assert steps == sorted(set(steps)), f"{run.info.run_name} {key}: {steps}"
            if key.startswith("outcome/"):
                assert steps == [12 if "pretrain" in run.data.tags["nightschool.stage"] else 8]
    for report in (lived.first, lived.second):
        [point] = lived.client.get_metric_history(report.run_id, "val/bpb")
        assert point.step == 12, "of a night, the last step of its longest stage"


def artifacts(lived: Lived, stage: str) -> set[str]:
    [run] = runs(lived, f"tags.`mlflow.parentRunId` = '{lived.first.run_id}' and tags.`nightschool.stage` = '{stage}'")
    client = lived.client
    found: set[str] = set()
    folders = [""]
    while folders:
        for item in client.list_artifacts(run.info.run_id, folders.pop()):
            (folders.append if item.is_dir else found.add)(item.path)
    return found


def test_the_stages_leave_their_artifacts(lived: Lived) -> None:
    assert {"quarantine/report.json", "quarantine/quarantine.jsonl", "figures/row-lengths.png"} <= artifacts(
        lived, "validate"
    )
    assert {"duplicates/files.json"} <= artifacts(lived, "deduplicate")
    assert {"tokenizer/tokenizer.json", "figures/segment-tokens.png"} <= artifacts(lived, "tokens")
    assert {"data/data-report.html", "data/statistics.json"} <= artifacts(lived, "inspect")
    for stage in ("pretrain", "sft"):
        assert {"figures/loss.png", "figures/expert-load.png", "curves/curve.jsonl"} <= artifacts(lived, stage)
    assert {"evaluation/samples.json", "evaluation/scores.json"} <= artifacts(lived, "evaluate")
    assert {"model/model.safetensors", "model/config.json", "decision.json", "parity.json"} <= artifacts(
        lived, "register"
    )


def test_what_is_registered_computes_the_same_in_transformers(lived: Lived) -> None:
    [run] = runs(lived, f"attributes.run_id = '{lived.first.records[-1].run_id}'")
    assert run.data.metrics["export/logit_difference"] < 1e-3
    assert run.data.metrics["export/route_agreement"] >= 0.99


def test_curves_and_data_digests_are_on_the_training_runs(lived: Lived) -> None:
    for stage in ("pretrain", "sft"):
        [run] = runs(
            lived, f"tags.`mlflow.parentRunId` = '{lived.first.run_id}' and tags.`nightschool.stage` = '{stage}'"
        )
        history = [m.value for m in lived.client.get_metric_history(run.info.run_id, "val/bpb")]
        assert len(history) >= 3
        assert history[-1] < history[0]
        [dataset] = run.inputs.dataset_inputs
        assert dataset.dataset.digest == lived.first.records[3].digest[:32]
        assert len([key for key in run.data.metrics if not key.startswith("system/")]) <= 40


def test_both_systems_name_each_other(lived: Lived) -> None:
    night = lived.client.get_run(lived.second.run_id)
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(night.data.tags["prefect.flow_run_id"])
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["tiny-night"]))
        summaries = client.read_artifacts(artifact_filter=wanted)
    assert f"mlflow.run_id:{lived.second.run_id}" in flow_run.tags
    [summary] = [a for a in summaries if a.flow_run_id == flow_run.id]
    assert lived.second.run_id in summary.data
    assert str(lived.second.decision["reason"]) in summary.data


def test_the_first_model_is_champion_and_the_worse_one_challenger(lived: Lived) -> None:
    assert int(lived.client.get_model_version_by_alias("nightschool-tiny", "champion").version) == 1
    assert int(lived.client.get_model_version_by_alias("nightschool-tiny", "challenger").version) == 2


def test_the_export_loads_in_transformers_and_computes_the_same(lived: Lived) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tasks.training.trained import load_trained

    theirs = AutoModelForCausalLM.from_pretrained(lived.first.export, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(lived.first.export)
    assert type(theirs).__name__ == "Qwen3MoeForCausalLM"
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ours = load_trained(lived.first.records[6].path)
    with torch.no_grad():
        assert (theirs(**prompt).logits - ours(prompt["input_ids"])).abs().max() < 1e-3
    assert theirs.generate(**prompt, max_new_tokens=4).shape[1] > prompt["input_ids"].shape[1]
    config = json.loads((lived.first.export / "config.json").read_text())
    assert config["num_experts"] == config["num_local_experts"] == 4
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    assert config["eos_token_id"] == 2
    assert 2 in json.loads((lived.first.export / "generation_config.json").read_text())["eos_token_id"]


def test_records_tell_inputs_code_and_counts(lived: Lived) -> None:
    validated, distinct = lived.first.records[:2]
    assert distinct.inputs == {"rows": validated.digest, "base": ""}
    assert StageRecord.read(validated.path) == validated
    assert validated.counts["read"] == validated.counts["valid"] + validated.counts["quarantined"]
    fates = ("kept", "exact_duplicate", "near_duplicate", "quarantined")
    assert distinct.counts["read"] == sum(distinct.counts[fate] for fate in fates)
    events = {json.loads(line)["event"] for line in (lived.home / "journal.jsonl").open()}
    assert events >= {"published", "decided", "trunk", "night"}


def test_bad_data_stops_the_night_and_leaves_the_champion(lived: Lived, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "one good line"}\nnot json\n' * 40)
    content = dataclasses.replace(lived.recipe.sources[0], location=str(bad))
    recipe = dataclasses.replace(lived.recipe, sources=(content, lived.recipe.sources[1]))
    with pytest.raises(NightStopped, match=r"40 of \d+ lines are bad.*max_bad_share"):
        retrain_nightly(recipe=recipe)
    assert int(lived.client.get_model_version_by_alias("nightschool-tiny", "champion").version) == 1
    stopped = runs(lived, "attributes.status = 'FAILED'")
    assert {run.data.tags["nightschool.kind"] for run in stopped} == {"night", "stage"}
    [night] = [run for run in stopped if run.data.tags["nightschool.kind"] == "night"]
    for tag in ("nightschool.reason", "mlflow.note.content"):
        assert "max" in night.data.tags[tag] and "lines are bad" in night.data.tags[tag]
    flow_run, page = in_prefect(night)
    assert flow_run.state.type == "FAILED"
    assert "lines are bad" in flow_run.state.message
    assert "stopped" in page and night.info.run_id in page


def in_prefect(night: Run) -> tuple[FlowRun, str]:
    """The flow run that a night's run names, and the night's page there."""
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(night.data.tags["prefect.flow_run_id"])
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["tiny-night"]))
        [page] = [a for a in client.read_artifacts(artifact_filter=wanted) if a.flow_run_id == flow_run.id]
    return flow_run, page.data


def test_a_night_that_stops_before_its_data_is_known_says_why_in_prefect(lived: Lived) -> None:
    gone = dataclasses.replace(lived.recipe.sources[0], location="/no/such/file")
    with pytest.raises(NightStopped, match="nothing found"):
        retrain_nightly(recipe=dataclasses.replace(lived.recipe, sources=(gone, lived.recipe.sources[1])))
    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["tiny-night"]))
        pages = [a.data for a in client.read_artifacts(artifact_filter=wanted)]
    assert [page for page in pages if "source text: nothing found at /no/such/file" in page]


def test_the_verdict_is_the_message_of_the_last_state_and_heads_the_run(lived: Lived) -> None:
    for report in (lived.first, lived.second):
        [night] = runs(lived, f"attributes.run_id = '{report.run_id}'")
        assert report.verdict.lower() in night.data.tags["mlflow.note.content"].lower(), "it is told as of then later"
    flow_run, _ = in_prefect(night)
    assert flow_run.state.name == "Completed"
    assert flow_run.state.message == lived.second.sentence
    assert lived.second.sentence.startswith("Not promoted (version 2): ")


def test_names_say_recipe_day_and_what_differs_from_the_night_before(lived: Lived) -> None:
    first, second = (lived.client.get_run(report.run_id) for report in (lived.first, lived.second))
    day = lived.first.day
    assert first.info.run_name == f"tiny {day}"
    special = "pretrain.optim.peak_lr=0.0001 sft.optim.peak_lr=0.0001 twin=true"
    assert second.info.run_name == f"tiny {lived.second.day} {special}"
    assert in_prefect(second)[0].name == second.info.run_name
    [child] = runs(
        lived, f"tags.`mlflow.parentRunId` = '{lived.first.run_id}' and tags.`nightschool.stage` = 'pretrain'"
    )
    assert child.info.run_name == f"pretrain tiny {day}"
    assert child.data.params["pretrain.optim.peak_lr"] == "0.01"
    assert child.data.params["model.num_experts"] == "4"
    with get_client(sync_client=True) as client:
        task_run = client.read_task_run(child.data.tags["prefect.task_run_id"])
    assert task_run.name == child.info.run_name


def test_each_night_has_a_page_which_is_an_artifact_of_its_run(lived: Lived) -> None:
    for report in (lived.first, lived.second):
        assert report.page == lived.home / "pages" / f"tiny@{report.key}.html"
        names = [artifact.path for artifact in lived.client.list_artifacts(report.run_id)]
        assert report.page.name in names
        assert str(report.page) in report.as_text()
    assert lived.again.page == lived.first.page


def test_the_page_tells_what_the_night_did_beside_the_champion(lived: Lived) -> None:
    first, second = (report.page.read_text(encoding="utf-8") for report in (lived.first, lived.second) if report.page)
    assert "there was no champion to compare with" in first
    assert "nothing to lay beside this night" in first
    assert "bits per byte against version <bdi>1</bdi>" in second
    assert "pretrain.optim.peak_lr" in second.partition('id="changes"')[2].partition("</section>")[0]
    for page in (first, second):
        assert page.count('<svg class="chart"') == 4  # loss and learning rate of pretraining and SFT
        assert "kept no plan" not in page and "No load by layer" not in page
    replies = second.partition('id="replies"')[2].partition("</section>")[0]
    assert replies.count("<dl") == len(lived.second.chats) and "was not asked" not in replies


def test_replaced_settings_come_first_and_stand_in_the_summary(lived: Lived) -> None:
    params = lived.client.get_run(lived.second.run_id).data.params
    assert params["changed.twin"] == "true (recipe: false; night before: false)"
    replaced = ("pretrain.optim.peak_lr", "promote.mode", "sft.optim.peak_lr", "twin")
    assert sorted(params)[:4] == [f"changed.{setting}" for setting in replaced]
    for told, next_block in ((lived.second.as_text(), "NOT PROMOTED"), (lived.second.as_markdown(), "validate")):
        assert told.index("changed for this night") < told.index("0.0001") < told.index(next_block)
    assert "changed for this night" not in lived.first.as_text()


def test_a_night_has_its_data_source_and_model_where_mlflow_lists_them(lived: Lived) -> None:
    for version, report in enumerate((lived.first, lived.second), start=1):
        night = lived.client.get_run(report.run_id)
        [data] = night.inputs.dataset_inputs
        assert data.dataset.name == "tiny"
        assert night.data.tags["mlflow.source.name"] == "flows/retrain_nightly.py"
        [output] = night.outputs.model_outputs
        made = lived.client.get_logged_model(output.model_id)
        assert json.loads(made.tags["mlflow.modelVersions"]) == [{"name": "nightschool-tiny", "version": str(version)}]
    [stage] = runs(
        lived, f"tags.`mlflow.parentRunId` = '{lived.first.run_id}' and tags.`nightschool.stage` = 'pretrain'"
    )
    assert stage.data.tags["mlflow.source.name"] == "tasks/stages/pretrain.py"


def test_the_printed_link_opens_the_nights(lived: Lived) -> None:
    """MLflow reads the view from a tag of the experiment, of 5,000 characters at the most."""
    experiment = lived.client.get_experiment_by_name("nightschool")
    link = f"/#/experiments/{experiment.experiment_id}/runs?viewStateShareKey=nights&"
    assert link in lived.first.as_text()
    view = json.loads(experiment.tags["mlflow.sharedViewState.nights"])
    shown, nights = (
        [run.info.run_id for run in runs(lived, query)]
        for query in (view["searchFilter"], "tags.`nightschool.kind` = 'night'")
    )
    assert shown == nights != []
    first = runs(lived, f"attributes.run_id = '{lived.first.run_id}'")[0].data
    charted = {card["metricKey"] for card in view["compareRunCharts"]}
    assert charted - {"promote/difference_bpb"} <= first.metrics.keys(), "the first night had nobody to compare with"
    columns = [name.split("`")[1] for name in view["selectedColumns"] if not name.startswith("attributes")]
    assert set(columns) - {"promote/difference_bpb"} <= first.metrics.keys() | first.tags.keys()


def test_two_models_that_are_scored_in_one_night_have_names_of_their_own(lived: Lived) -> None:
    scored = f"tags.`mlflow.parentRunId` = '{lived.second.run_id}' and attributes.run_name LIKE '%evaluate%'"
    day = lived.second.day
    assert {run.info.run_name.replace(day, "DAY") for run in runs(lived, scored)} == {
        "evaluate challenger tiny DAY pretrain.optim.peak_lr=0.0001 sft.optim.peak_lr=0.0001 twin=true",
        "twin-evaluate tiny DAY dense=true",
    }


def test_a_twin_differs_by_its_experts_alone(lived: Lived) -> None:
    by_stage = {r.name: r for r in lived.second.records}
    assert list(by_stage) == STAGES + TWIN
    for stage in ("pretrain", "sft"):
        ours, twins = by_stage[stage], by_stage[f"twin-{stage}"]
        assert twins.config["train"] == ours.config["train"]
        assert twins.config["model"] == ours.config["model"] | {"dense": True}
        assert twins.inputs["tokens"] == ours.inputs["tokens"]
        assert twins.counts["steps"] == ours.counts["steps"]
        assert twins.counts["tokens_seen"] == ours.counts["tokens_seen"]
    assert by_stage["twin-sft"].inputs["pretrained"] == by_stage["twin-pretrain"].digest


def test_the_night_says_what_the_experts_are_worth(lived: Lived) -> None:
    report, twin = lived.second, lived.second.twin
    assert isinstance(twin, TwinComparison)
    assert twin.lower_bpb <= twin.difference_bpb <= twin.upper_bpb
    assert twin.mixture_bpb - twin.twin_bpb == pytest.approx(twin.difference_bpb, abs=1e-4), "but for long texts"
    [run] = runs(lived, f"attributes.run_id = '{report.run_id}'")
    metrics = run.data.metrics
    assert {key: metrics[key] for key in twin.as_metrics()} == pytest.approx(twin.as_metrics())
    assert metrics["val/bpb"] == twin.mixture_bpb == report.records[7].figures["val/bpb"]
    assert {"pretrain/bpb", "twin-pretrain/bpb", "sft/bpb", "twin-sft/bpb"} <= metrics.keys()
    assert len(metrics) <= 40
    for stage, total in (("", "twin/mixture_seconds"), ("twin-", "twin/seconds")):
        of_stages = [r.run_id for r in report.records if r.name in (f"{stage}pretrain", f"{stage}sft")]
        outcomes = [lived.client.get_run(run_id).data.metrics["outcome/seconds"] for run_id in of_stages]
        assert metrics[total] == pytest.approx(sum(outcomes))
    assert f"dense twin: {twin.verdict}" in report.as_text()
    assert all(said in report.as_markdown() for said in (twin.verdict, twin.price, twin.sizes))
    assert twin.verdict in run.data.tags["nightschool.twin"]


def test_a_twin_is_tracked_and_never_registered(lived: Lived) -> None:
    children = runs(lived, f"tags.`mlflow.parentRunId` = '{lived.second.run_id}'")
    assert [child.data.tags["nightschool.stage"] for child in children] == STAGES[5:] + TWIN
    dense = [child.data.params.get("model.dense") for child in children]
    assert dense == ["false", "false", None, None, "true", "true", "true"]
    assert children[-1].data.tags["nightschool.model"] == "twin"
    versions = lived.client.search_model_versions("name='nightschool-tiny'")
    assert {v.run_id for v in versions} == {lived.first.records[8].run_id, lived.second.records[8].run_id}


def test_what_a_twin_ate_can_be_asked(lived: Lived) -> None:
    twin_pretrain, twin_sft = lived.second.records[9:11]
    first = who_ate(lived.home, twin_sft.run_id)[0]
    assert twin_pretrain.path.name in first
    assert twin_sft.path.name in first
    trained = [record for record in lived.second.records if record.stage.endswith(("pretrain", "sft"))]
    assert len(trained) == 4 and all(READ_ROWS in record.files for record in trained), "a stage notes what it read"


def test_a_twin_that_diverges_is_an_answer(lived: Lived, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*_: object) -> None:
        raise Diverged("twin-pretrain: step 7: loss inf")

    monkeypatch.setattr("flows.train_twin.declared", lambda _: diverge)
    report = retrain_nightly(recipe=lived.recipe, overrides={"twin": True})
    assert report.records == lived.first.records
    assert "nothing to compare with: twin-pretrain: step 7: loss inf" in report.as_text()
    [run] = runs(lived, f"attributes.run_id = '{report.run_id}'")
    assert run.info.status == "FINISHED"
    assert "loss inf" in run.data.tags["nightschool.twin"]
    assert not [key for key in run.data.metrics if key.startswith("twin")]


def test_a_second_night_in_the_same_home_is_refused_at_once(lived: Lived) -> None:
    with Journal(lived.home).lease("somebody else"), pytest.raises(NightBusy, match="somebody else"):
        retrain_nightly(recipe=lived.recipe)


def test_a_version_is_promoted_and_rolled_back_by_hand(lived: Lived) -> None:
    """Last: it moves the aliases."""
    lived.client.set_registered_model_alias("nightschool-tiny", "champion", "2")
    assert "champion of tiny, version 2" in who_ate(lived.home, "champion")[0], "the alias was moved by other hands"
    lived.client.set_registered_model_alias("nightschool-tiny", "champion", "1")
    assert "champion is version 2, before it was 1" in promote_model("tiny", 2)
    assert "champion is version 1, before it was 2" in promote_model()
    with pytest.raises(NightStopped, match="no version 9"):
        promote_model("tiny", 9)
    with get_client(sync_client=True) as client:
        wanted = FlowFilter(name=FlowFilterName(any_=["promote-model"]))
        names = {run.name for run in client.read_flow_runs(flow_filter=wanted)}
    assert {" ".join(name.split()[:2] + name.split()[3:]) for name in names if "tiny" in name} == {
        "promote tiny version 2", "promote tiny version 9",
    }  # fmt: skip
