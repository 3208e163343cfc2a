"""Where a bar shows how far a stage is, the log says it too, for Prefect, and the terminal does not say it twice."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace

import pytest

from flows.__main__ import show_log_lines
from tasks.training import progress


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_in_the_log_and_once_on_a_terminal(
    terminal: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(progress, "create_progress_artifact", lambda *_, **__: "id")
    monkeypatch.setattr(progress, "update_progress_artifact", lambda *_, **__: None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    log = logging.getLogger("nightschool")
    before, propagate = list(log.handlers), log.propagate
    try:
        show_log_lines()
        log.addHandler(caplog.handler)
        shown = progress.Progress("pretrain", num_steps=2, steps_done=0, recipe="demo")
        shown.update(SimpleNamespace(number=2, loss=3.0, tokens=64, seconds=1.0), None)
        shown.close()
    finally:
        log.handlers, log.propagate = before, propagate
    assert [record.getMessage() for record in caplog.records] == [
        "pretrain    step 2/2  loss 3.000  64 tokens/s  0 s left"
    ]
    assert ("step 2/2" in capsys.readouterr().err) is not terminal
