"""A year of nights in under an hour on two cores: `make simulate NIGHTS=365`, or

    python -m benchmarks.year.simulate --nights 365 [--folder FOLDER] [--seed 1] [--figure PATH]

The real flow with its real stages retrains a tiny model every night, by a clock that goes a day at a time. Its data
grow and drift, and at nights that a seed picks one of the fifteen faults of `benchmarks/year/faults.py` is brought
about. Afterwards it is told which faults were found and by which sentence, whether any model was promoted that is worse
by the truth (`benchmarks/year/truth.py`), whether any night or row went without a word, and how the home grew.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tasks.services.embedded import reaching_prefect

LEAST_NIGHTS = 20
"""For every fault once, and some nights between them."""
MEMORY, NEEDED_BYTES = Path("/dev/shm"), 2 << 30


def in_memory() -> Path | None:
    """A file system in memory with room for a year, where no night waits for a disk; None if there is none."""
    room = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > NEEDED_BYTES
    return MEMORY if room else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=365)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="to be kept; else a temporary one, in memory if there is room")
    parser.add_argument("--figure", type=Path, help="where the figure of the year is drawn, as SVG or PNG")
    given = parser.parse_args()
    if given.nights < LEAST_NIGHTS:
        parser.error(f"--nights {given.nights} is below {LEAST_NIGHTS}, which it takes for every fault once")
    if given.folder and given.folder.exists():
        parser.error(f"--folder {given.folder} is there already: a year begins in a new one")
    with tempfile.TemporaryDirectory(prefix="year-", dir=in_memory()) as temporary:
        folder = (given.folder or Path(temporary) / "year").resolve()
        folder.mkdir(parents=True)
        os.environ |= {"NIGHTSCHOOL_HOME": str(folder / "home"), "PREFECT_HOME": str(folder / "home" / "prefect")}
        os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"
        (folder / "home").mkdir()
        with reaching_prefect():
            from benchmarks.year.nights import simulate  # Prefect reads its settings when it is imported
        logging.getLogger("nightschool").propagate = False
        chronicle = simulate(folder, given.nights, given.seed)
        if given.figure:
            chronicle.draw(given.figure)
        print(chronicle.as_text())
    return 0 if chronicle.as_it_should_be else 1


if __name__ == "__main__":
    sys.exit(main())
