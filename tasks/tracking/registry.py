"""The model registry: a registered model for each recipe, its versions, and the aliases that say which is in use.

Whoever asks here decides by the answer, so a store that is away is an error here, after a few tries.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from mlflow import MlflowClient

from tasks.errors import Denied, NightStopped, Refused, StoreAway
from tasks.home.digests import digest_of
from tasks.recipes.data_identity import DataIdentity
from tasks.settings import who_acts
from tasks.tracking.adoption import Adopted, adopt_old_versions
from tasks.tracking.client import known, two_errors
from tasks.tracking.delivery import Outbox
from tasks.tracking.models.files import COPIES, copy_in, listed, local_path
from tasks.tracking.moves.ledger import Attempt, How, Ledger
from tasks.tracking.versions import (
    BY_HAND,
    CHAMPION,
    DATA,
    DECISION,
    DIGEST,
    MODEL_DESCRIPTION,
    MODEL_PREFIX,
    PREVIOUS,
    RECIPE,
    ROLLED_BACK,
    VERDICT,
    model_of,
)

PAUSES_SECONDS = (1.0, 4.0)
"""Between the tries of a question."""
REASON_CHARACTERS, VERDICT_CHARACTERS = 5_000, 2_000
log = logging.getLogger("nightschool")
T = TypeVar("T")


@dataclass(frozen=True)
class ModelVersion:
    """A registered model."""

    version: int
    path: Path
    """Its files on this machine."""
    digest: str
    data: DataIdentity | None = None
    """What it was trained on; None if nothing says so."""


@dataclass(frozen=True)
class Standing:
    """A version, and what is written on it."""

    version: int
    note: str
    """Why it was made the champion, or when and how it was rolled back."""


class ModelFilesGone(NightStopped):
    """A registered version is there and its files are not."""


class Registry:
    """The registered model of a recipe. Every method raises StoreAway if the store does not answer."""

    def __init__(self, outbox: Outbox, recipe: str) -> None:
        self._outbox = outbox
        self.recipe = recipe
        self.model = model_of(recipe)
        self.moves = Ledger(self._ask, recipe, self)

    def champion(self) -> ModelVersion | None:
        """The version in use."""
        return self.holder_of(CHAMPION)

    def version_of(self, alias: str) -> int | None:
        """Number of the version that holds an alias."""
        holder = self._holder(alias)
        return int(holder.version) if holder else None

    def standing(self) -> Standing | None:
        """The version in use and why it is."""
        holder = self._holder(CHAMPION)
        if holder is None:
            return None
        note = holder.tags.get(BY_HAND) or holder.tags.get(DECISION) or "made so in the registry itself"
        return Standing(int(holder.version), note)

    def holder_of(self, alias: str) -> ModelVersion | None:
        """The version that holds an alias, with its files on this machine. Raises ModelFilesGone."""
        holder = self._holder(alias)
        return self._with_files(holder, f", the {alias},") if holder else None

    def version_with_files(self, version: int) -> ModelVersion | None:
        """A version, with its files on this machine; None for an unknown one. Raises ModelFilesGone."""
        found = self._ask(lambda client: known(client.get_model_version, self.model, str(version)))
        return self._with_files(found) if found else None

    def _with_files(self, holder: Any, role: str = "") -> ModelVersion:
        try:
            place = local_path(holder.source)
            if place and not place.exists():
                raise Refused(f"there is no {place}")
            files = place or self._ask(lambda _: self._downloaded(holder))
        except Refused as refused:
            raise ModelFilesGone(
                f"the files of version {holder.version} of {self.model}{role} are gone ({refused}); put them "
                f"back, or make another version the champion: python -m flows promote {self.recipe} VERSION"
            ) from refused
        data = DataIdentity.from_json(holder.tags.get(DATA, ""))
        return ModelVersion(int(holder.version), files, holder.tags.get(DIGEST, ""), data)

    def _downloaded(self, holder: Any) -> Path:
        """The home's copy of a version's files, which lie elsewhere. Raises Refused if they do not."""
        source, uri = str(holder.source), self._outbox.tracking_uri
        if not listed(source, uri):
            raise Refused(f"there is nothing at {source}")
        place = f"{self.model}@{holder.version}-{digest_of([source, holder.tags.get(DIGEST, '')])[:12]}"
        return copy_in(self._outbox.home / COPIES, place, source, uri)

    def register(
        self, run_id: str, digest: str, description: str, data: DataIdentity, facts: Mapping[str, str] | None = None
    ) -> int:
        """Register the `model` folder of a run's artifacts; done again for the same run it gives the same version.

        digest: of the weights.
        description: shown in the UI.
        data: what the model was trained on.
        facts: more tags.
        Raises StoreAway as well if something that the run reported is not delivered.
        """
        mlflow_id = self._ask(lambda _: self._outbox.delivered_id(run_id))

        def registered(client: MlflowClient) -> int:
            with suppress(Refused), two_errors():
                client.create_registered_model(self.model, description=MODEL_DESCRIPTION)
            for version in client.search_model_versions(f"name='{self.model}'"):
                if version.tags.get(DIGEST) == digest and version.run_id == mlflow_id:
                    return int(version.version)
            source = f"{client.get_run(mlflow_id).info.artifact_uri}/model"
            tags = {RECIPE: data.recipe, **(facts or {}), DIGEST: digest, DATA: data.as_json()}
            created = client.create_model_version(self.model, source, mlflow_id, tags=tags, description=description)
            return int(created.version)

        return self._ask(registered)

    def adopt_old_versions(self) -> Adopted | None:
        """Take over what the recipe registered when all recipes shared one model; None if there is nothing to take."""
        return self._ask(lambda client: adopt_old_versions(client, self.recipe))

    def has_version(self, version: int) -> bool:
        return self._ask(lambda client: known(client.get_model_version, self.model, str(version))) is not None

    def set_alias(self, alias: str, version: int) -> None:
        """Raises Refused for an unknown version."""
        self._ask(lambda client: client.set_registered_model_alias(self.model, alias, str(version)))

    def make_champion(
        self,
        version: int,
        reason: str,
        how: How = "night",
        instead_of: int | Literal["whoever it is"] | None = "whoever it is",
        evidence: Mapping[str, float | bool] | None = None,
    ) -> None:
        """Move the champion alias; the one before becomes `previous`, if it has other weights.

        how: who does it; what a person says is noted beside the reason of the night, which stays.
        instead_of: the champion that this was decided on, None if there was none.
        evidence: the numbers it was decided by.
        Raises Refused for an unknown version, and Overtaken if the champion is another one than it was decided on, as
        another home, or a person in MLflow, was first.
        """
        found = self._version(version)
        attempt = Attempt(
            to=version, instead_of=self.champion_number() if instead_of == "whoever it is" else instead_of, how=how,
            who=who_acts(), home=str(self._outbox.home), why=reason, evidence=evidence or {},
        )  # fmt: skip
        if self.champion_number() == version:
            self._note_why(attempt)
        else:
            self.moves.move(attempt, found)

    def champion_number(self) -> int | None:
        return self.version_of(CHAMPION)

    def carry_out(self, attempt: Attempt) -> None:
        """Move the aliases as an attempt says; done twice it is the same. Raises Refused for an unknown version."""
        self._note_why(attempt)
        if attempt.instead_of and self.has_version(attempt.instead_of):
            before, new = (self._version(number) for number in (attempt.instead_of, attempt.to))
            if new.tags.get(DIGEST, "") != before.tags.get(DIGEST) or not new.tags.get(DIGEST):
                self.set_alias(PREVIOUS, attempt.instead_of)
        self.set_alias(CHAMPION, attempt.to)

    def _note_why(self, attempt: Attempt) -> None:
        self._set_tag(attempt.to, DECISION if attempt.how == "night" else BY_HAND, attempt.why)
        if attempt.how == "night":
            self._remove_tag(attempt.to, BY_HAND)

    def note_verdict(self, version: int, reason: str, evidence: Mapping[str, float | bool]) -> None:
        """Write down what a night decided of a version, promoted or not, and the numbers it was decided by."""
        self._set_tag(
            version,
            VERDICT,
            json.dumps({"why": reason[:VERDICT_CHARACTERS], "who": who_acts(), "evidence": dict(evidence)}),
        )

    def rolled_back(self, digest: str) -> Standing | None:
        """The newest version with these weights that a person took out of use."""
        marked = [v for v in self.all_versions() if v.tags.get(DIGEST) == digest and ROLLED_BACK in v.tags]
        newest = max(marked, key=lambda v: int(v.version), default=None)
        return Standing(int(newest.version), newest.tags[ROLLED_BACK]) if newest else None

    def rolled_back_version(self, version: int) -> Standing | None:
        """The version itself if a person took it out of use."""
        found = next((v for v in self.all_versions() if int(v.version) == version and ROLLED_BACK in v.tags), None)
        return Standing(version, found.tags[ROLLED_BACK]) if found else None

    def mark_rolled_back(self, version: int, note: str) -> None:
        """Nothing promotes these weights again until a person does."""
        self._set_tag(version, ROLLED_BACK, note)

    def clear_rolled_back(self, version: int) -> None:
        """Take the mark off a version and off all others with the same weights."""
        versions = self.all_versions()
        digests = {v.tags.get(DIGEST) for v in versions if int(v.version) == version}
        for marked in versions:
            if ROLLED_BACK in marked.tags and (int(marked.version) == version or marked.tags.get(DIGEST) in digests):
                self._remove_tag(int(marked.version), ROLLED_BACK)

    def recipes(self) -> list[str]:
        """Names of all recipes that have a registered model."""
        wanted = f"name LIKE '{MODEL_PREFIX}%'"
        models = self._ask(lambda client: list(client.search_registered_models(wanted)))
        return sorted(model.name.removeprefix(MODEL_PREFIX) for model in models)

    def versions(self) -> list[int]:
        """Numbers of all versions, the newest first."""
        return sorted((int(version.version) for version in self.all_versions()), reverse=True)

    def _version(self, number: int) -> Any:
        return self._ask(lambda client: client.get_model_version(self.model, str(number)))

    def _remove_tag(self, version: int, key: str) -> None:
        """One that is not there is removed already."""
        self._ask(lambda client: known(client.delete_model_version_tag, self.model, str(version), key))

    def _set_tag(self, version: int, key: str, value: str) -> None:
        said = value[:REASON_CHARACTERS]
        self._ask(lambda client: client.set_model_version_tag(self.model, str(version), key, said))

    def all_versions(self) -> list[Any]:
        """MLflow's entities, with their tags."""
        return self._ask(lambda client: list(client.search_model_versions(f"name='{self.model}'")))

    def _holder(self, alias: str) -> Any:
        return self._ask(lambda client: known(client.get_model_version_by_alias, self.model, alias))

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
