"""The report of a run, from measurements made up here; and one small run through the front door."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.data import stages
from benchmarks.data.corpora import Census
from benchmarks.data.measurement import Measurement
from benchmarks.data.report import cells_of, report, targets
from benchmarks.data.stages import arguments, main, size_of
from benchmarks.memory import Usage

MB = 1_000_000
FACTS = {
    "processor": "a processor", "cores": 2, "memory_bytes": 8 * 10**9, "disk_write_mb_per_s": 500.0,
    "load_average_at_start": 0.1, "versions": {"datatrove": "not installed"},
}  # fmt: skip
CENSUS = Census(rows=100, bytes=100 * MB, exact_duplicates=2, near_duplicates=2, broken=1)


def taken(
    side: str, step: str, size_mb: int, seconds: float, peak_mb: int = 300, repeat: int = 0, kept: int | None = None
) -> Measurement:
    usage = Usage(
        seconds, seconds + 1, seconds, peak_mb * MB, peak_mb * MB, 0, 0, 0, None if kept is None else {"kept": kept}
    )
    return Measurement(side, step, size_mb * MB, size_mb * MB, repeat, usage)


def failed(side: str, step: str, error: str) -> Measurement:
    return Measurement(side, step, 100 * MB, 100 * MB, 0, error=error)


def verdicts(*found: Measurement) -> dict[str, bool]:
    return {target.name: target.met for target in targets(cells_of(found))}


def test_repeats_become_a_median_and_the_highest_peak() -> None:
    found = [taken("ours", "validate", 10, s, p, r) for r, (s, p) in enumerate([(1.0, 100), (2.0, 400), (9.0, 200)])]
    (cell,) = cells_of(found).values()
    assert (cell.mb_per_s, cell.seconds, cell.peak_mb) == (5.0, 2.0, 400.0)


def test_a_step_that_failed_once_has_no_figure() -> None:
    assert not cells_of([taken("ours", "chain", 100, 1.0), failed("ours", "chain", "it broke")])


@pytest.mark.parametrize(("seconds", "met"), [(0.5, True), (1.0, False)])
def test_speed_is_judged_at_the_largest_size(seconds: float, met: bool) -> None:
    found = verdicts(taken("ours", "validate", 10, 10.0), taken("ours", "validate", 100, seconds))
    assert found["validate at 100 MB: at least 150 MB/s"] is met


@pytest.mark.parametrize(("theirs", "met"), [(3.1, True), (2.9, False)])
def test_the_ratio_is_to_datasets_at_the_same_size(theirs: float, met: bool) -> None:
    found = verdicts(taken("ours", "tokens", 100, 1.0), taken("datasets", "tokens", 100, theirs))
    assert found["tokens at 100 MB: at least 3 x datasets"] is met


@pytest.mark.parametrize(("peak", "met"), [(1_000, True), (1_001, False)])
def test_the_peak_is_judged_over_all_steps_of_ours(peak: int, met: bool) -> None:
    found = verdicts(taken("ours", "shuffle", 10, 1, peak), taken("datasets", "shuffle", 10, 1, 9_000))
    assert found["peak: at most 1,000 MB"] is met


@pytest.mark.parametrize(("peak", "met"), [(390, True), (391, False)])
def test_flat_means_within_a_bound_over_the_large_sizes(peak: int, met: bool) -> None:
    found = verdicts(*(taken("ours", "chain", size, 1, p) for size, p in ((10, 10), (100, 300), (1_000, peak))))
    assert found["chain: peak within 1.3 x from 100 MB"] is met


def test_the_report_names_rows_that_differ_and_steps_that_failed() -> None:
    good = [taken("ours", "validate", 100, 1, kept=97), taken("datasets", "validate", 100, 4, kept=97)]
    text, fine = report(good, {100 * MB: CENSUS}, FACTS)
    assert fine
    assert "datatrove is not installed" in text
    text, fine = report([*good, taken("datasets", "validate", 100, 4, kept=96)], {100 * MB: CENSUS}, FACTS)
    assert not fine
    assert "datasets kept 96 rows at 100 MB, 97 are good and distinct" in text
    text, fine = report([*good, failed("ours", "chain", "it broke")], {100 * MB: CENSUS}, FACTS)
    assert not fine
    assert "ours chain failed: it broke" in text


def test_a_step_that_only_one_side_has_is_a_dash_for_the_other() -> None:
    text, fine = report([taken("ours", "deduplicate", 100, 10.0)], {100 * MB: CENSUS}, FACTS)
    assert fine
    row = next(line for line in text.splitlines() if line.startswith("deduplicate"))
    assert row.split() == ["deduplicate", "100", "MB", "10.0", "-", "-", "300", "-"]


def test_the_second_night_is_a_share_of_the_first() -> None:
    found = [taken("ours", "chain", 100, 10.0), taken("ours", "second night", 101, 0.5)]
    night = Measurement(**found[1].__dict__ | {"size_bytes": 100 * MB})
    text, _ = report([found[0], night], {100 * MB: CENSUS}, FACTS)
    assert "second night over first, ours, 100 MB: 0.05 of 10.0 s" in text


@pytest.mark.parametrize(("text", "size"), [("10MB", 10**7), ("1.5GB", 15 * 10**8), ("200kB", 200_000)])
def test_sizes_are_decimal(text: str, size: int) -> None:
    assert size_of(text) == size


@pytest.mark.parametrize("argv", [["--sizes", "10"], ["--steps", "validate,cook"], ["--sides", "theirs"]])
def test_what_cannot_be_asked_for_is_refused(argv: list[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(argv)


def test_a_disk_without_room_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--sizes", "1000000GB", "--folder", str(tmp_path)]) == 2
    assert "GB are needed" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("side", "exact"), [("ours", ["validate"]), ("datasets", ["validate", "shuffle"])])
def test_a_small_run(tmp_path: Path, side: str, exact: list[str]) -> None:
    """`exact` steps keep all rows that are good and distinct, and no others."""
    out = tmp_path / "out.json"
    argv = ["--sizes", "300kB", "--sides", side, "--repeats", "1", "--folder", str(tmp_path), "--json", str(out)]
    assert main(argv) == 0
    content = json.loads(out.read_text())
    assert [row["step"] for row in content["measurements"]] == list(stages.STEPS_OF[side])
    counts = {row["step"]: row["usage"]["result"] for row in content["measurements"] if row["usage"]}
    census = Census(**content["corpora"]["300000"])
    assert [counts[step]["kept"] for step in exact] == [census.distinct] * len(exact)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json"]
