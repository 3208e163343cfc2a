"""What MLflow shows first: the nights, with the columns and charts by which they are compared.

MLflow keeps a view that people share in a tag of the experiment, and opens it by the key in a link. This one is written
at the start of each night, so it is what this version says whatever was there before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mlflow import MlflowClient

from tasks.services.addresses import NIGHTS_VIEW_TAG

KIND_TAG = "mlflow.experimentKind"
TRAINING = "custom_model_development"
"""The kind of experiment that MLflow opens on its runs; without it, it opens on traces, of which there are none."""
ONLY_NIGHTS = "tags.`nightschool.kind` = 'night'"
COLUMNS = (
    "metrics.`val/bpb`", "metrics.`val/perplexity`", "metrics.`promote/difference_bpb`",
    "attributes.`Models`", "attributes.`Dataset`", "attributes.`Source`", "tags.`nightschool.reason`",
)  # fmt: skip
CURVES = ("pretrain/bpb", "sft/bpb", "pretrain/loss_ema", "sft/loss_ema")
"""By step, one line a night."""
BARS = ("val/bpb", "promote/difference_bpb")
"""One number a night."""
SECTION = "Nights"
WIDTHS = {
    "attributes.`Run Name`": 330, "attributes.`Models`": 180, "attributes.`Dataset`": 150, "attributes.`Source`": 160,
    "metrics.`val/bpb`": 100, "metrics.`val/perplexity`": 100, "metrics.`promote/difference_bpb`": 170,
    "tags.`nightschool.reason`": 420,
}  # fmt: skip
"""In pixels, of columns that MLflow would cut, or make wider than they need."""


def chart(kind: str, metric: str) -> dict[str, Any]:
    """A card of the charts; what is left out are MLflow's own defaults."""
    card: dict[str, Any] = {
        "type": kind, "uuid": metric, "metricSectionId": SECTION, "deleted": False, "isGenerated": False,
        "metricKey": metric, "displayName": metric, "runsCountToCompare": 10,
    }  # fmt: skip
    if kind == "LINE":
        card |= {
            "selectedMetricKeys": [metric], "lineSmoothness": 0, "scaleType": "linear", "xAxisScaleType": "linear",
            "xAxisKey": "step", "selectedXAxisMetricKey": "", "range": {}, "yAxisKey": "metric",
            "yAxisExpressions": [], "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True,
        }  # fmt: skip
    return card


def view_state(columns: Sequence[str] = COLUMNS) -> dict[str, Any]:
    """The view as MLflow's pages read it."""
    charts = [*(chart("BAR", metric) for metric in BARS[:1]), *(chart("LINE", metric) for metric in CURVES)]
    charts += [chart("BAR", metric) for metric in BARS[1:]]
    return {
        "searchFilter": ONLY_NIGHTS,
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": list(columns),
        "columnOrder": ["attributes.`Run Name`", "attributes.`Created`", *columns],
        "columnWidths": WIDTHS,
        "compareRunSections": [{"uuid": SECTION, "name": SECTION, "display": True, "isReordered": True}],
        "compareRunCharts": charts,
        "isAccordionReordered": True,
    }


def show_nights(client: MlflowClient, experiment_id: str) -> None:
    """Have MLflow's pages of an experiment begin with the nights."""
    there = client.get_experiment(experiment_id).tags
    wanted = {KIND_TAG: TRAINING, NIGHTS_VIEW_TAG: json.dumps(view_state(), separators=(",", ":"))}
    for key, value in wanted.items():
        if there.get(key) != value:
            client.set_experiment_tag(experiment_id, key, value)
