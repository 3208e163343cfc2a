"""A process whose output nobody reads any more goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
NIGHT = """
import logging, sys
from tasks.services.output import outlive_reader
thread = outlive_reader()
assert thread is outlive_reader()
print("started", flush=True)
sys.stdin.readline()
thread.join(60)
logging.getLogger("nightschool").warning("a line")
for number in range(10_000):
    print(number, flush=True)
    print(number, file=sys.stderr, flush=True)
open(sys.argv[1], "w").write("finished")
"""


def test_a_run_outlives_what_reads_its_output(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", NIGHT, str(tmp_path / "done")], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "started\n"
    process.stdout.close()
    process.stderr.close()
    process.stdin.write("\n")
    process.stdin.close()
    assert process.wait(timeout=300) == 0
    assert (tmp_path / "done").read_text() == "finished"


def test_output_to_a_file_needs_no_watch(tmp_path: Path) -> None:
    check = "from tasks.services.output import outlive_reader; assert outlive_reader() is None"
    with (tmp_path / "log").open("w") as log:
        done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, stdout=log, stderr=log, check=False)
    assert done.returncode == 0, (tmp_path / "log").read_text()
