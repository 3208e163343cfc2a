"""What a stage reports about itself: the protocol, and a double in memory for tests and notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tasks.home.records import Content

REASON, DESCRIPTION = "nightschool.reason", "mlflow.note.content"
"""Tags of a night's run: why it ended as it did, and the page that MLflow shows above its figures."""
VALIDATION = "nightschool.validation"
"""Tag of a run with scores: which version of the validation side they are on. Others are scores of other documents."""


class Tracker(Protocol):
    """What a stage reports about itself."""

    run_id: str

    def params(self, values: Mapping[str, str]) -> None: ...
    def metrics(self, values: Mapping[str, float], step: int = 0) -> None: ...
    def final(self, values: Mapping[str, float], step: int) -> None: ...
    def tags(self, values: Mapping[str, str]) -> None: ...
    def artifact(self, path: Path, folder: str = "") -> None: ...
    def dataset(self, content: Content, name: str, context: str) -> None: ...
    def model(self, name: str, version: int, step: int) -> None: ...
    def close(self, status: str) -> None: ...


@dataclass
class DictTracker:
    """Keeps everything in memory; for tests and notebooks."""

    run_id: str = "in-memory"
    logged_params: dict[str, str] = field(default_factory=dict)
    logged_metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    logged_tags: dict[str, str] = field(default_factory=dict)
    logged_artifacts: list[str] = field(default_factory=list)
    logged_datasets: dict[str, str] = field(default_factory=dict)
    logged_models: dict[str, int] = field(default_factory=dict)
    status: str = "RUNNING"

    def params(self, values: Mapping[str, str]) -> None:
        self.logged_params |= values

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        for key, value in values.items():
            self.logged_metrics.setdefault(key, []).append((step, value))

    def final(self, values: Mapping[str, float], step: int) -> None:
        self.metrics({key: value for key, value in values.items() if key not in self.logged_metrics}, step)

    def tags(self, values: Mapping[str, str]) -> None:
        self.logged_tags |= values

    def artifact(self, path: Path, folder: str = "") -> None:
        self.logged_artifacts.append(f"{folder}/{path.name}".lstrip("/"))

    def dataset(self, content: Content, name: str, context: str) -> None:
        self.logged_datasets[f"{context}:{name}"] = content.digest

    def model(self, name: str, version: int, step: int) -> None:
        self.logged_models[name] = version

    def close(self, status: str) -> None:
        self.status = status
