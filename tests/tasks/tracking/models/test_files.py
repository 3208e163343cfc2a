"""Copies of models whose files lie elsewhere: whole, the first one of several processes, few, nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path

import mlflow
import pytest

from tasks.tracking.models.files import KEPT, copy_in, local_path

NOBODY = 2**22 + 1
"""No process has this number: Linux gives none above 2**22."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Downloads are a folder with a file that says what was asked for; `s3://late` another process copies, too."""

    def download(source: str, dst_path: str, tracking_uri: str) -> str:
        made = Path(dst_path, "model")
        made.mkdir()
        (made / "weights").write_text(source)
        if source == "s3://gone":
            raise OSError("cut off")
        if source == "s3://late":
            (tmp_path / "models" / "m@1-a").mkdir()
            (tmp_path / "models" / "m@1-a" / "weights").write_text("of the other process")
        return str(made)

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", download)
    return tmp_path / "models"


def copied(folder: Path, name: str, source: str = "s3://x") -> str:
    return (copy_in(folder, name, source, "") / "weights").read_text()


def test_a_copy_is_made_once_and_the_oldest_make_room(folder: Path) -> None:
    assert copied(folder, "m@1-a") == copied(folder, "m@1-a", "s3://other") == "s3://x"
    os.utime(folder / "m@1-a", (0, 0))
    copied(folder, "other@1-a")
    for number in range(2, KEPT + 2):
        copied(folder, f"m@{number}-a")
    assert {path.name for path in folder.iterdir()} == {"other@1-a", *(f"m@{n}-a" for n in range(2, KEPT + 2))}


def test_the_copy_of_a_process_that_was_first_stays(folder: Path) -> None:
    """Somebody may read it."""
    assert copied(folder, "m@1-a", "s3://late") == "of the other process"
    assert [path.name for path in folder.iterdir()] == ["m@1-a"]


def test_what_was_cut_off_is_no_copy_and_leaves_nothing(folder: Path) -> None:
    of_the_dead, of_the_living = (folder / f".m@1-a.{pid}.partial" for pid in (NOBODY, os.getppid()))
    of_the_dead.mkdir(parents=True)
    of_the_living.mkdir()
    with pytest.raises(OSError, match="cut off"):
        copied(folder, "m@1-a", "s3://gone")
    assert list(folder.iterdir()) == [of_the_living]


def test_an_address_on_this_machine_is_a_path() -> None:
    assert local_path("file:///a%20b") == local_path("/a b") == Path("/a b") and local_path("s3://a/b") is None
