"""Files of a finished stage in the folder of a later one, without copying them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tasks.home.records import StageRecord


def link_files(
    base: StageRecord | None, folder: Path, renamed: Callable[[str], str | None] = lambda name: name
) -> dict[str, str]:
    """Link files of a finished stage into another's folder, and return their digests by path there.

    `renamed` maps a path in the old folder to one in the new, or to None to leave the file out.

    A link costs nothing, and either folder can be deleted afterwards. Where the file system has no hard links, files
    are copied.
    """
    linked: dict[str, str] = {}
    if base is None:
        return linked
    for name, digest in base.files.items():
        if (wanted := renamed(name)) is None:
            continue
        source, target = base.path / name, folder / wanted
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)
        linked[wanted] = digest
    return linked
