"""Tonight's data is counted whole and compared with the champion's: too far, and the night stops untrained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from benchmarks.data.ours import UntrackedNight
from data.rows.statistics import STATISTICS, NightStatistics
from data.sides.read import read_val
from data.tokens.contamination import CONTAMINATED_FROM
from tasks.errors import NightStopped
from tasks.home.contents.registered import TRAINING_DATA
from tasks.home.journal import Journal
from tasks.home.records import StageRecord
from tasks.sources.resolve import Resolved
from tasks.stages.inspect import PAGE, inspect
from tasks.tracking.registry import ModelVersion
from tests.lived_home import LivedHome

pytestmark = pytest.mark.usefixtures("without_prefect")
FIRST, SECOND = 0, 1


@pytest.fixture
def night(lived: LivedHome, tmp_path: Path) -> UntrackedNight:
    with Journal(tmp_path / "home").lease("test") as token:
        pass
    return UntrackedNight(lived.recipe, "key", tmp_path / "home", "", "night", token, Resolved(()))


def inspected(
    night: UntrackedNight,
    lived: LivedHome,
    number: int,
    champion: ModelVersion | None = None,
    limit: float | None = None,
    unknown: str = "",
) -> StageRecord:
    recipe = night.recipe.with_overrides({"inspect.max_drift_psi": limit})
    return inspect.fn(replace(night, recipe=recipe), *lived.nights[number], champion, unknown)


def champion_of(record: StageRecord, folder: Path) -> ModelVersion:
    """A model that was trained on the data of a report."""
    folder.mkdir()
    (folder / TRAINING_DATA).write_bytes((record.path / STATISTICS).read_bytes())
    return ModelVersion(1, folder, "champion")


def test_every_line_and_document_is_counted(night: UntrackedNight, lived: LivedHome) -> None:
    record = inspected(night, lived, SECOND)
    statistics = NightStatistics.from_dict(json.loads((record.path / STATISTICS).read_text()))
    validated, distinct, sides, packed = lived.nights[SECOND]
    assert sum(fates.read for fates in statistics.fates.values()) == validated.counts["read"]
    assert sum(fates.kept for fates in statistics.fates.values()) == distinct.counts["kept"]
    assert sum(fates.exact_duplicates for fates in statistics.fates.values()) == distinct.counts["exact_duplicate"]
    assert sum(fates.near_duplicates for fates in statistics.fates.values()) == distinct.counts["near_duplicate"] > 0
    assert sum(fates.quarantined for fates in statistics.fates.values()) == validated.counts["quarantined"]
    tokens = sum(count.tokens for by in statistics.tokens.values() for count in by.values())
    assert tokens == packed.counts["pretrain_train_tokens"] + packed.counts["chat_train_tokens"]
    documents = sum(overlap.documents for overlap in (statistics.contamination or {}).values())
    assert documents == sum(len(read_val(sides.path, kind)) for kind in ("pretrain", "chat"))
    share = sum(o.overlapping for o in (statistics.contamination or {}).values()) / documents
    assert record.figures["data/contaminated_share"] == share
    assert record.counts["sources"] == len(statistics.names) == 3
    page = (record.path / PAGE).read_text(encoding="utf-8")
    assert all(source.name in page for source in lived.recipe.sources)


def test_a_document_overlaps_from_the_share_on_that_the_limit_names(
    night: UntrackedNight, lived: LivedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = [0.0, CONTAMINATED_FROM - 0.01, CONTAMINATED_FROM, 1.0]
    names = [f"{number:032x}" for number in range(4)]
    named = {"row_id": names, "cluster": names, "kind": ["chat"] * 4, "domain": ["en"] * 4}
    overlaps = pl.DataFrame({**named, "share": shares})
    monkeypatch.setattr("tasks.stages.inspect.contamination", lambda *_: overlaps)
    record = inspected(night, lived, SECOND, unknown="so that no other test finds it done")
    assert record.figures["data/contaminated_share"] == 2 / 4


def test_without_a_champion_nothing_is_compared(night: UntrackedNight, lived: LivedHome) -> None:
    assert "data/drift_psi_max" not in inspected(night, lived, SECOND, limit=1e-9).figures


def test_the_same_data_has_not_drifted(night: UntrackedNight, lived: LivedHome, tmp_path: Path) -> None:
    champion = champion_of(inspected(night, lived, FIRST), tmp_path / "champion")
    assert inspected(night, lived, FIRST, champion, limit=1e-6).figures["data/drift_psi_max"] == pytest.approx(0.0)


def test_data_too_far_from_the_champions_stops_the_night(
    night: UntrackedNight, lived: LivedHome, tmp_path: Path
) -> None:
    champion = champion_of(inspected(night, lived, FIRST), tmp_path / "champion")
    drifted = inspected(night, lived, SECOND, champion).figures["data/drift_psi_max"]
    assert drifted > 0
    with pytest.raises(NightStopped, match=r"too far from the champion's \(inspect\.max_drift_psi\)") as stop:
        inspected(night, lived, SECOND, champion, limit=drifted * 0.99)
    assert f"population stability index {drifted:.3f}, the limit is {drifted * 0.99:g}" in str(stop.value)
    page = next(line for line in str(stop.value).splitlines() if line.startswith("Nothing was trained")).split()[-1]
    assert Path(page).exists(), "the page that the message names is there"
    assert inspected(night, lived, SECOND, champion, limit=drifted * 1.01).figures["data/drift_psi_max"] == drifted


def test_a_champion_without_statistics_is_not_compared(night: UntrackedNight, lived: LivedHome, tmp_path: Path) -> None:
    champion = ModelVersion(1, tmp_path / "nothing there", "champion")
    assert "data/drift_psi_max" not in inspected(night, lived, SECOND, champion, limit=1e-9).figures


def test_data_that_was_not_compared_is_looked_at_again(night: UntrackedNight, lived: LivedHome, tmp_path: Path) -> None:
    champion = champion_of(inspected(night, lived, FIRST), tmp_path / "champion")
    blind = inspected(night, lived, SECOND, unknown="no answer")
    assert "drift unknown: the champion's data could not be read" in blind.headline
    seen = inspected(night, lived, SECOND, champion)
    assert not seen.reused
    assert "data/drift_psi_max" in seen.figures
    assert inspected(night, lived, SECOND, None).path == seen.path, "whoever is champion then"
