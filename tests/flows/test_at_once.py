"""Ten nights begin at once in a new home, each in a process of its own: one trains, the others say who does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.errors import NightBusy
from tasks.home.journal import Journal
from tasks.home.outcomes import outcomes
from tests.flows.test_command_line import ROOT, environment, tiny_arguments

NIGHTS = 10


@pytest.mark.slow
def test_of_ten_nights_one_trains_and_the_others_say_who(tmp_path: Path) -> None:
    arguments, home = tiny_arguments(tmp_path / "raw"), tmp_path / "home"
    begun = [
        subprocess.Popen(
            [sys.executable, "-m", "flows", *arguments], cwd=ROOT, env=environment(home), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for _ in range(NIGHTS)
    ]  # fmt: skip
    said = {night.pid: night.communicate()[0] for night in begun}
    busy = [night.pid for night in begun if night.returncode == NightBusy.exit_code]
    ended = [night.pid for night in begun if night.returncode == 0]
    assert not [(night.returncode, said[night.pid][-1_000:]) for night in begun if night.pid not in busy + ended]
    assert busy, "all came one after the other"
    told = [re.search(r"another night is running .*process (\d+)", said[pid]) for pid in busy]
    assert {int(words[1]) if words else 0 for words in told} <= set(ended)
    assert len([outcome for outcome in outcomes(Journal(home).entries()) if outcome.version]) == 1, "one trained"
