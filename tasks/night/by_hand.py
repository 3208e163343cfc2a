"""Promotion and rollback by a person."""

from __future__ import annotations

from tasks.errors import NightStopped, StoreAway, without_password
from tasks.home.journal import Journal
from tasks.night.opening import log
from tasks.relocation import relocate
from tasks.settings import Settings
from tasks.tracking.mlflow_store import Store
from tasks.tracking.registry import CHAMPION, PREVIOUS


def promote_version(version: int | None) -> str:
    """Move the champion alias by hand, to `version` or back to the previous champion; says what was done."""
    settings = Settings.load()
    relocate(settings)
    journal, store = Journal(settings.home), Store(settings.tracking_uri, settings.home)
    if not store.check():
        raise StoreAway(
            f"the model registry at {without_password(settings.tracking_uri)} did not answer; try again later"
        )
    with journal.lease("by hand"):
        before = store.registry.version_of(CHAMPION)
        if version is None:
            version = store.registry.version_of(PREVIOUS)
            if version is None:
                raise NightStopped("there is no previous champion to go back to; name a version")
        if not store.registry.has_version(version):
            raise NightStopped(f"there is no version {version} of the model; the tracking UI lists the versions")
        store.registry.make_champion(version, "by hand")
        said = f"champion is version {version}, before it was {before or 'none'}"
        journal.note(event="promoted by hand", version=version, before=before)
        log.info(said)
        return said
