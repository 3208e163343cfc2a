"""A notice is told once, and one who is to be told and behaves badly costs a night no more than a bounded wait."""

from __future__ import annotations

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.services import notices
from tasks.services.notices import KINDS, Notice, automation_name, in_time, tell
from tests.listener import Behaviour, listening

NOTICE = Notice(kind="disk", recipe="tiny", title="Night tiny: the disk will not last", text="full in 2 days")


def test_it_is_sent_from_here_where_no_services_run(home: object, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as listener:
        monkeypatch.setenv("NIGHTSCHOOL_NOTIFY", listener.address)
        tell(NOTICE)
    assert [(told["title"], told["message"]) for told in listener.told] == [(NOTICE.title, NOTICE.text)]


def test_every_address_is_told(home: object, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as one, listening() as other:
        monkeypatch.setenv("NIGHTSCHOOL_NOTIFY", f"{one.address}, {other.address}")
        tell(NOTICE)
    assert (len(one.told), len(other.told)) == (1, 1)


@pytest.mark.parametrize("behaviour", ["fails", "hangs"])
def test_one_who_takes_no_notice_fails_nothing(
    home: object, behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if behaviour == "hangs":
        monkeypatch.setattr(notices, "TELL_SECONDS", 0.2)
    with listening(behaviour) as listener:
        monkeypatch.setenv("NIGHTSCHOOL_NOTIFY", f"{listener.address}/secret-token")
        tell(NOTICE)
        assert listener.arrived.wait(60)
    assert "could not be told to all of NIGHTSCHOOL_NOTIFY: full in 2 days" in caplog.text
    assert "secret-token" not in caplog.text


@pytest.mark.parametrize("address", ["json://127.0.0.1:9", "no address at all", "nonsense://"])
def test_one_who_is_not_there_fails_nothing(
    home: object, address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NIGHTSCHOOL_NOTIFY", address)
    tell(NOTICE)
    assert "could not be told to all of NIGHTSCHOOL_NOTIFY" in caplog.text


def test_a_server_that_is_away_fails_nothing(home: object, caplog: pytest.LogCaptureFixture) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        tell(NOTICE)
    assert "a notice was not passed on" in caplog.text


def test_what_is_done_in_time_knows_the_flow_run_and_the_settings_of_its_caller() -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert in_time(lambda: PREFECT_API_URL.value() == "http://127.0.0.1:9/api")


def test_what_a_client_raises_is_told_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    def work() -> bool:
        raise ValueError("https://user:password@host")

    assert not in_time(work)
    assert "password" not in caplog.text and "ValueError" in caplog.text


def test_kinds_are_known_and_have_an_automation_of_their_own() -> None:
    with pytest.raises(ValueError, match="no notice is of kind 'nope'"):
        Notice(kind="nope", recipe="", title="", text="")
    assert len({automation_name(kind) for kind in KINDS}) == len(KINDS)
