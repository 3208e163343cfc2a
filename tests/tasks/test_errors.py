"""A message is bounded and survives being sent between processes; a traceback is taken from ours alone."""

from __future__ import annotations

import copy
import logging

import pytest

from tasks.errors import MESSAGE_LIMIT, Diverged, Interrupted, NightBusy, NightStopped, PlainMessages, did_you_mean

KINDS = [NightStopped, Diverged, NightBusy, Interrupted]


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_is_bounded(kind: type[NightStopped]) -> None:
    assert str(kind("short")) == "short"
    long = "x" * (MESSAGE_LIMIT - 1) + "yz"
    assert str(kind(long)) == long[:MESSAGE_LIMIT]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_passes_between_processes(kind: type[NightStopped]) -> None:
    again = copy.copy(kind("why"))
    assert (type(again), str(again), again.exit_code) == (kind, "why", kind.exit_code)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("swep", "; did you mean sweep?"),
        ("pretrain", "; did you mean pretrains or retrain?"),
        ("", ""),
        ("q" * 10_000, ""),
    ],
)
def test_an_unknown_name_brings_the_nearest_known_ones(word: str, expected: str) -> None:
    assert did_you_mean(word, ["sweep", "retrain", "pretrains", "why-row"]) == expected


def test_every_kind_has_an_exit_code_of_its_own() -> None:
    codes = [kind.exit_code for kind in KINDS]
    assert len(set(codes)) == len(codes)
    assert not {0, 1} & set(codes), "0 is success and 1 is Python's own for a traceback"


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def logger(lines: list[str]) -> logging.Logger:
    """A logger whose formatted output ends up in `lines`."""

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    own = logging.Logger("own")
    own.addHandler(Keep())
    own.addFilter(PlainMessages())
    return own


@pytest.mark.parametrize("kind", KINDS)
def test_our_errors_are_logged_without_a_traceback(logger: logging.Logger, lines: list[str], kind: type) -> None:
    try:
        raise kind("why")
    except NightStopped:
        logger.exception("the stage stopped")
    assert lines == ["the stage stopped"]


def test_other_errors_keep_their_traceback(logger: logging.Logger, lines: list[str]) -> None:
    try:
        raise ValueError("why")
    except ValueError:
        logger.exception("the stage crashed")
    [line] = lines
    assert line.startswith("the stage crashed\nTraceback")
    assert line.endswith("ValueError: why")


def test_a_traceback_formatted_before_is_taken_off_too(logger: logging.Logger, lines: list[str]) -> None:
    """Another handler may have written it into the record already."""
    try:
        raise NightStopped("why")
    except NightStopped as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("own", logging.ERROR, __file__, 1, "message", (), info)
    record.exc_text = "Traceback (most recent call last): …"
    logger.handle(record)
    assert lines == ["message"]


def test_lines_without_an_error_pass(logger: logging.Logger, lines: list[str]) -> None:
    logger.warning("plain")
    logger.warning("no error is being handled", exc_info=True)
    assert lines[0] == "plain"
    assert lines[1].startswith("no error is being handled")
