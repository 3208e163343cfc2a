"""The table and the figure of made-up runs of the stream of nights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.image import imread

from benchmarks.learning.stream import ARRIVALS, DOMAINS, draw, table

NIGHTS = len(ARRIVALS)


def run(way: str, replay: float, seed: int, first: float) -> dict[str, Any]:
    """A run that forgets the oldest domain by 0.1 after its second night, and learns the others."""
    nights = [
        {
            "night": night, "arrived": ARRIVALS[night - 1], "cpu_seconds": 30.0 + night,
            "bpb": dict.fromkeys(DOMAINS, first - night / 10) | {DOMAINS[0]: first - 0.1 * (night == 2)},
        }
        for night in range(1, NIGHTS + 1)
    ]  # fmt: skip
    return {"way": way, "seed": seed, "replay": replay, "steps": 90, "nights": nights}


RUNS = [run("scratch", 0.0, 1, 3.5), run("trunk", 0.25, 2, 3.25), run("trunk", 0.25, 1, 3.0)]


def test_the_table_has_a_line_a_run_with_what_was_forgotten_of_the_oldest_domain() -> None:
    head, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in table(RUNS).splitlines())
    rows = [dict(zip(head, line, strict=True)) for line in lines]
    assert [(row["way"], row["seed"]) for row in rows] == [("trunk", "1"), ("trunk", "2"), ("scratch", "1")]
    assert (rows[0]["conversations"], rows[0]["code"], rows[0]["forgotten"]) == ("3.000", "2.200", "0.100")
    assert (rows[0]["mean"], rows[0]["CPU s a night"]) == ("2.360", "34")


def test_the_figure_names_domains_and_ways_and_is_the_same_bytes_again(tmp_path: Path) -> None:
    first, again = (draw(RUNS, tmp_path / f"{name}.svg").read_text(encoding="utf-8") for name in ("first", "again"))
    assert first == again
    for text in (*DOMAINS, "trunk, 0.25 replayed (2)", "scratch (1)", "bits per byte of held-out text"):
        assert f">{text}</text>" in first, text


def test_one_run_alone_is_drawn_as_a_picture_too(tmp_path: Path) -> None:
    assert imread(draw(RUNS[:1], tmp_path / "stream.png")).std() > 0.05
