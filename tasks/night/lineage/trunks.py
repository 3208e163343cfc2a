"""Where a recipe's trunk is put, and which trunk a registered version came from."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from tasks.home.contents.pretrained import TRUNK
from tasks.home.journal import Journal
from tasks.home.notes import note_of_version
from tasks.home.trunk import Trunk, read_trunk

PRETRAIN = "pretrain"
log = logging.getLogger("nightschool")


def pretrain_of_version(home: Path, recipe: str, version: int) -> str:
    """Folder of the pretrain stage that a registered version came from; empty if no night here made it."""
    note = note_of_version(home, recipe, version)
    return note.stages.get(PRETRAIN, "") if note else ""


def put_trunk(journal: Journal, recipe: str, trunk: Trunk) -> None:
    """Have the next night go on from there, with a line in the journal if that is news."""
    if trunk != read_trunk(journal.home, recipe):
        trunk.write(journal.home, recipe)
        journal.note(event="trunk", recipe=recipe, folder=trunk.folder, night=trunk.night, back=trunk.back)
        if trunk.back:
            log.warning("%s", trunk.back)


def trunk_of_version(home: Path, recipe: str, version: int) -> str:
    """Folder of the pretrain stage that a version came from, if it has its trunk; else empty."""
    folder = pretrain_of_version(home, recipe, version)
    return folder if folder and (home / "data" / folder / TRUNK).is_dir() else ""


def back_by_hand(journal: Journal, recipe: str, version: int) -> str:
    """A person made an older version the champion: the trunk goes back with it. Says so, or why it does not; nothing if
    the recipe has no trunk, or has it there."""
    trunk, folder = read_trunk(journal.home, recipe), trunk_of_version(journal.home, recipe, version)
    if trunk is None or trunk.folder == folder:
        return ""
    if not folder:
        return f"the trunk of version {version} is not in {journal.home}: nights go on from {trunk.folder}"
    back = f"the trunk goes back to that of version {version}, {folder}"
    put_trunk(journal, recipe, replace(trunk, folder=folder, back=f"a person went back to version {version}: {back}"))
    return back
