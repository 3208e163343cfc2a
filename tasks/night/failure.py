"""A night that did not come to its end says why: in MLflow, and in Prefect beside the state's own message."""

from __future__ import annotations

import logging

from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal

from tasks.errors import MESSAGE_LIMIT, Diverged, Interrupted, NightBusy, NightStopped
from tasks.home.outcomes import Ending
from tasks.pages.tables import Link
from tasks.pages.text import artifact_key, markdown_line, one_line
from tasks.services.mlflow_pages import run_page, tracking_ui
from tasks.tracking.mlflow_store import Store
from tasks.tracking.tracker import DESCRIPTION, REASON

BY_A_PERSON = (Interrupted, KeyboardInterrupt, TerminationSignal)
"""What ends a night that someone asked to stop; Prefect raises the last of them where it cancels a run."""
log = logging.getLogger("nightschool")


def reason_of(error: BaseException) -> str:
    """Why a night ended, in one bounded line."""
    if isinstance(error, KeyboardInterrupt | TerminationSignal):
        return "interrupted"
    if isinstance(error, NightStopped):
        return one_line(error, MESSAGE_LIMIT)
    return one_line(f"{type(error).__name__}: {error}; the log of the run has the traceback", MESSAGE_LIMIT)


def how_it_ended(error: BaseException) -> Ending:
    """In a word."""
    if isinstance(error, BY_A_PERSON):
        return "interrupted"
    return "diverged" if isinstance(error, Diverged) else "stopped" if isinstance(error, NightStopped) else "failed"


def explanation(title: str, error: BaseException, facts: str = "") -> str:
    """The page of a night that ended early. `facts`: what else is known of it, as markdown."""
    lines = str(error).splitlines() if isinstance(error, NightStopped) else [reason_of(error)]
    first, *others = [markdown_line(line, MESSAGE_LIMIT) for line in lines if line.strip()] or [reason_of(error)]
    go_on = "Finished stages are kept: the same night goes on where it stopped once the cause is gone."
    heading = f"# {markdown_line(title, MESSAGE_LIMIT)}: {how_it_ended(error)}"
    return "\n\n".join(filter(None, [heading, f"**{first}**", *others, facts, go_on])) + "\n"


def explain_before_start(recipe: str, error: BaseException) -> None:
    """For a night that ended before it had a tracking run. One that was refused as another runs is left to that one."""
    if not isinstance(error, NightBusy):
        show_in_prefect(recipe, explanation(f"Night {recipe}", error))


def explain(store: Store, run_id: str, recipe: str, day: str, error: BaseException) -> None:
    """Put reason and page on the parent run of a recipe's night of this day, and the page into Prefect."""
    address = run_page(tracking_ui(store.tracking_uri), store.experiment_id(), run_id)
    page = explanation(f"Night {recipe} {day}", error, f"Night: {Link(run_id[:8], address).as_markdown()}")
    store.tracker(run_id).tags({REASON: reason_of(error), DESCRIPTION: page})
    show_in_prefect(recipe, page)


def show_in_prefect(recipe: str, page: str) -> None:
    """As the newest artifact of the recipe's nights. A Prefect that does not take it must not hide the reason."""
    if FlowRunContext.get() is None:
        return
    try:
        create_markdown_artifact(page, key=artifact_key(recipe, "night"), description="Why the night ended")
    except Exception as error:  # of its client, of any kind
        log.warning("Prefect did not take the page of the night's end: %s", one_line(error, MESSAGE_LIMIT))
