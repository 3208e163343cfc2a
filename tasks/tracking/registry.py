"""The model registry: versions of the model, and the aliases that say which is in use.

Whoever asks here decides by the answer, so a store that is away is an error here, after a few tries.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import mlflow
from mlflow import MlflowClient

from tasks.errors import StoreAway
from tasks.tracking.client import Denied, Refused, known, two_errors
from tasks.tracking.delivery import Outbox

MODEL = "nightschool"
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
PAUSES_SECONDS = (1.0, 4.0)
"""Between the tries of a question."""
REASON_CHARACTERS = 5_000
log = logging.getLogger("nightschool")
T = TypeVar("T")


@dataclass(frozen=True)
class ModelVersion:
    """A registered model."""

    version: int
    path: Path
    """Its files on this machine."""
    digest: str


class Registry:
    """The registry of one tracking address. Every method raises StoreAway if the store does not answer."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def champion(self) -> ModelVersion | None:
        """The version in use."""
        return self.holder_of(CHAMPION)

    def version_of(self, alias: str) -> int | None:
        """Number of the version that holds an alias."""
        holder = self._holder(alias)
        return int(holder.version) if holder else None

    def holder_of(self, alias: str) -> ModelVersion | None:
        """The version that holds an alias, with its files on this machine."""
        holder = self._holder(alias)
        if holder is None:
            return None
        uri = self._outbox.tracking_uri
        files = self._ask(lambda _: mlflow.artifacts.download_artifacts(holder.source, tracking_uri=uri))
        return ModelVersion(int(holder.version), Path(files), holder.tags.get("nightschool.digest", ""))

    def register(self, run_id: str, digest: str, description: str) -> int:
        """Register the `model` folder of a run's artifacts; done again for the same run it gives the same version.

        Raises StoreAway as well if something that the run reported is not delivered.
        """
        mlflow_id = self._ask(lambda _: self._outbox.delivered_id(run_id))

        def registered(client: MlflowClient) -> int:
            with suppress(Refused), two_errors():
                client.create_registered_model(MODEL, description="MoE chat models of the nightly retraining")
            for version in client.search_model_versions(f"name='{MODEL}'"):
                if version.tags.get("nightschool.digest") == digest and version.run_id == mlflow_id:
                    return int(version.version)
            source = f"{client.get_run(mlflow_id).info.artifact_uri}/model"
            tags = {"nightschool.digest": digest}
            created = client.create_model_version(MODEL, source, mlflow_id, tags=tags, description=description)
            return int(created.version)

        return self._ask(registered)

    def has_version(self, version: int) -> bool:
        return self._ask(lambda client: known(client.get_model_version, MODEL, str(version))) is not None

    def set_alias(self, alias: str, version: int) -> None:
        """Raises Refused for an unknown version."""
        self._ask(lambda client: client.set_registered_model_alias(MODEL, alias, str(version)))

    def make_champion(self, version: int, reason: str) -> None:
        """Move the champion alias; the one before becomes `previous`. Raises Refused for an unknown version."""
        before = self.version_of(CHAMPION)
        decision = ("nightschool.decision", reason[:REASON_CHARACTERS])
        self._ask(lambda client: client.set_model_version_tag(MODEL, str(version), *decision))
        if before and before != version:
            self.set_alias(PREVIOUS, before)
        self.set_alias(CHAMPION, version)

    def _holder(self, alias: str) -> Any:
        return self._ask(lambda client: known(client.get_model_version_by_alias, MODEL, alias))

    def _ask(self, question: Callable[[MlflowClient], T]) -> T:
        """The store's answer. It is asked again, so a question must do no harm when it is answered twice."""
        for pause in PAUSES_SECONDS:
            try:
                return self._outbox.call(question)
            except Denied:
                raise
            except StoreAway as away:
                log.info("the model registry is asked again in %g s: %s", pause, away)
            time.sleep(pause)
        return self._outbox.call(question)
