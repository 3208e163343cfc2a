"""The summary of a night, for the terminal and as markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import indent

from tasks.errors import MESSAGE_LIMIT
from tasks.evaluation.twin import TwinComparison
from tasks.home.records import StageRecord
from tasks.pages.tables import PATH_CHARACTERS, SENTENCE_CHARACTERS, Cell, Column, Link, Table
from tasks.pages.text import markdown_line, one_line, plural
from tasks.services.mlflow_pages import artifact_page, nights_page, run_page


@dataclass(frozen=True, kw_only=True)
class NightReport:
    """What a person wants to know in the morning."""

    recipe: str
    key: str
    day: str = ""
    """On which the night was opened first, as 2026-11-28."""
    replaced: Sequence[tuple[str, str, str]] = ()
    """Settings that were replaced for this night: name, value, and the value of the recipe."""
    records: Sequence[StageRecord]
    decision: Mapping[str, object]
    chats: Sequence[Mapping[str, str]]
    export: Path
    tracking_uri: str
    tracking_ui: str
    """Address of the tracking server's pages."""
    run_id: str
    experiment_id: str
    reports_waiting: int = 0
    """Reports that the tracking store has not taken yet."""
    now: str = ""
    """What the registry says now, if the night was found done: the decision is one of then."""
    began: str = ""
    """What pretraining began with."""
    losses: Sequence[str] = ()
    """A sentence for each file that was left out, and for each source of which a stage lost more than the recipe's
    share."""
    validation: Sequence[str] = ()
    """Sentences on the validation side: which version the figures are on, what it gained, whether it is enough."""
    page: Path | None = None
    """The night's own page, which has all that the summary leaves out; None if it could not be made."""
    twin: TwinComparison | str | None = None
    """The comparison with the model's dense twin, why there is none, or None where the recipe trains no twin."""

    @property
    def stage_table(self) -> Table:
        """A stage a row: its time, its key figure and its tracking run."""
        columns = [
            Column("stage"),
            Column("time", "number"),
            Column("key figure", max_characters=SENTENCE_CHARACTERS),
            Column("tracking run"),
        ]
        rows: list[list[Cell]] = [
            [r.name, "reused" if r.reused else f"{r.seconds:.1f} s", r.headline, self.link(r.run_id)]
            for r in self.records
        ]
        return Table(columns, rows)

    @property
    def twin_sentences(self) -> list[str]:
        """Quality after equal tokens, training time, and how closely the sizes match."""
        if isinstance(self.twin, TwinComparison):
            return [self.twin.verdict, self.twin.price, self.twin.sizes]
        return [f"there is nothing to compare with: {self.twin}"]

    @property
    def registered(self) -> bool:
        return self.decision["version"] is not None

    @property
    def verdict(self) -> str:
        if not self.registered:
            return "Not registered yet"
        promoted = "promoted" if self.decision["promoted"] else "not promoted"
        return f"Was {promoted}" if self.now else promoted.capitalize()

    @property
    def version(self) -> str:
        """The version that was decided on, and when if it was not tonight."""
        at = f", decided {self.decision['at']}" if self.now else ""
        return f"version {self.decision['version'] or '–'}{at}"

    @property
    def afterwards(self) -> list[str]:
        """What holds now instead of then, and what a person can do."""
        told = [self.now] if self.now else []
        if self.decision.get("waits"):
            told.append(f"to make it the champion: python -m flows promote {self.recipe} {self.decision['version']}")
        return told

    @property
    def sentence(self) -> str:
        """The verdict on one line."""
        version = f" (version {self.decision['version']})" if self.registered else ""
        return one_line(f"{self.verdict}{version}: {self.decision['reason']}", MESSAGE_LIMIT)

    @property
    def title(self) -> str:
        return " ".join(filter(None, ["Night", self.recipe, self.day, self.key]))

    @property
    def replaced_table(self) -> Table:
        """A replaced setting a row."""
        value = Column("value", max_characters=SENTENCE_CHARACTERS)
        return Table([Column("changed for this night"), value, replace(value, heading="recipe")], self.replaced)

    def link(self, run_id: str) -> Link:
        """The page of a tracking run."""
        return Link(run_id[:8], run_page(self.tracking_ui, self.experiment_id, run_id))

    @property
    def time_told(self) -> str:
        """What took how long, on one line; what was found done is counted."""
        made = [f"{record.name} {record.seconds:.1f} s" for record in self.records if not record.reused]
        reused = len(self.records) - len(made)
        return ", ".join([*made, *([f"{plural(reused, 'stage')} reused"] if reused else [])])

    def as_text(self) -> str:
        """For a terminal, on one screen: the verdict, what a person must know, a chat, and where all else lies."""
        told = [
            self.decision["reason"], *self.afterwards, *(f"lost on the way: {sentence}" for sentence in self.losses),
            *(f"validation: {sentence}" for sentence in self.validation),
            *([f"dense twin: {self.twin_sentences[0]}"] if self.twin else []),
        ]  # fmt: skip
        verdict = [f"{self.verdict.upper()}  {self.version}", *(one_line(line, MESSAGE_LIMIT) for line in told)]
        began = [("pretraining", self.began)] if self.began else []
        more = Table.of_pairs([*self.first_chat, *began, ("took", self.time_told)], SENTENCE_CHARACTERS)
        blocks = [
            self.title,
            self.replaced_table.as_text(),
            "\n  ".join(verdict),
            indent(more.as_text(), "  "),
            "Where to look\n" + indent(Table.of_pairs(self.places, PATH_CHARACTERS).as_text(), "  "),
        ]
        return "\n\n".join(filter(None, blocks))

    @property
    def first_chat(self) -> list[tuple[str, str]]:
        """The first of the chats; the page has all, with the champion's replies beside."""
        return [
            pair
            for chat in self.chats[:1]
            for pair in (("user", chat["prompt"]), ("assistant", chat["reply"].strip() or "(silence)"))
        ]

    @property
    def places(self) -> list[tuple[str, str]]:
        """Where what is."""
        loads = " (loads with transformers' AutoModelForCausalLM)" if self.registered else ""
        chosen = "" if self.decision["promoted"] and not self.now else f" --version {self.decision['version']}"
        talk = [("talk with it", f"python -m flows chat {self.recipe}{chosen}")] if self.registered else []
        waiting = f"{plural(self.reports_waiting, 'report')} in spool/ for it; the next run delivers what waits"
        return [
            *([("page", str(self.page))] if self.page else []),
            ("model", f"{self.export}{loads}"),
            *talk,
            ("tracking", f"{self.tracking_uri} (run {self.run_id})"),
            *([("", waiting)] if self.reports_waiting else []),
            ("nights", nights_page(self.tracking_ui, self.experiment_id)),
            ("both UIs", "make up" if self.tracking_uri.startswith("http") else "make up, which serves the page above"),
        ]

    def as_markdown(self) -> str:
        """For Prefect and MLflow, with links to the tracking runs."""
        reason = markdown_line(self.decision["reason"], MESSAGE_LIMIT)
        chats = Table(
            [
                Column("user", max_characters=SENTENCE_CHARACTERS),
                Column("assistant", max_characters=SENTENCE_CHARACTERS),
            ],
            [[chat["prompt"], chat["reply"]] for chat in self.chats],
        )
        blocks = [
            f"# {markdown_line(self.title, SENTENCE_CHARACTERS)}",
            f"**{self.verdict}**, {self.version}: {reason}",
            *(markdown_line(sentence, MESSAGE_LIMIT) for sentence in self.afterwards),
            self.replaced_table.as_markdown(),
            f"Pretraining {markdown_line(self.began, MESSAGE_LIMIT)}" if self.began else "",
            self.stage_table.as_markdown(),
        ]
        if self.losses:
            sentences = (markdown_line(sentence, MESSAGE_LIMIT) for sentence in self.losses)
            blocks += ["**Lost on the way**", "\n".join(f"- {sentence}" for sentence in sentences)]
        if self.validation:
            sentences = (markdown_line(sentence, MESSAGE_LIMIT) for sentence in self.validation)
            blocks += ["**Validation**", "\n".join(f"- {sentence}" for sentence in sentences)]
        if self.twin:
            sentences = (markdown_line(sentence, MESSAGE_LIMIT) for sentence in self.twin_sentences)
            blocks += ["**Beside the dense twin**", "\n".join(f"- {sentence}" for sentence in sentences)]
        page = ""
        if self.page:
            address = artifact_page(self.tracking_ui, self.experiment_id, self.run_id, self.page.name)
            page = f"Page: {Link(self.page.name, address).as_markdown()}"
        blocks += [f"Night: {self.link(self.run_id).as_markdown()}", page, chats.as_markdown()]
        return "\n\n".join(block for block in blocks if block) + "\n"
