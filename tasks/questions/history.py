"""What this home has done, read back from its own files: what a model was trained on, and which stages read a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from data.duplicates.ledger import Ledger
from data.lookup.exposure import TrainingInput
from data.lookup.fates import Corpus
from data.rows.parts import KINDS
from data.sides.rules import SideRules
from tasks.errors import NightStopped
from tasks.home.contents.packed import REPLAYED_KIND, digest_of_kind
from tasks.home.contents.pretrained import REPLAYED, read_noted, reading_of, replayed_of
from tasks.home.contents.validated import PARTS, ScannedPiece, read_pieces
from tasks.home.journal import Journal
from tasks.home.records import BegunStage, StageRecord, stage_name
from tasks.home.stage_table import TRAINING_STAGES, entry_of

NAMES_SHOWN = 8


def listed(names: list[str]) -> str:
    """The first NAMES_SHOWN names, and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


@dataclass(frozen=True)
class PreparedData:
    """The records of one finished preparation of data, each made from the one before."""

    validated: StageRecord
    distinct: StageRecord
    sides: StageRecord
    packed: StageRecord

    @cached_property
    def pieces(self) -> list[ScannedPiece]:
        return read_pieces(self.validated.path)

    @cached_property
    def labels(self) -> dict[int, str]:
        """The label of each part's file, by the part's number."""
        return {piece.number: piece.label for piece in self.pieces}

    @cached_property
    def corpus(self) -> Corpus:
        distinct: Any = self.distinct.config
        rules: Any = self.sides.config
        return Corpus(
            ledger=Ledger.read(self.distinct.path, self.distinct.path / PARTS),
            near_threshold=distinct["deduplicate"]["near_threshold"],
            rules=SideRules(**rules),
            sides=self.sides.path,
            shards=self.packed.path,
            packed_rows={kind: self.packed.counts[f"{kind}_train_rows"] for kind in KINDS},
        )


@dataclass(frozen=True)
class FinishedTraining:
    """A finished training stage and what it read of one kind of rows."""

    record: StageRecord
    input: TrainingInput
    replayed: bool = False
    """Whether these are rows of text that it read beside its own."""

    @property
    def notes(self) -> Path:
        """The folder in which the stage noted what it read."""
        return self.record.path / REPLAYED if self.replayed else self.record.path

    @property
    def name(self) -> str:
        return self.record.path.name


def digest_of_replayed(record: StageRecord, kind: str) -> str:
    """Of the packed rows of a kind that a training stage read beside its own; nothing if it read none of them."""
    found = replayed_of(record) if kind == REPLAYED_KIND else None
    return found[1] if found else ""


@dataclass(frozen=True)
class History:
    """A home folder's past. All questions that cannot be answered raise NightStopped."""

    home: Path

    @property
    def journal(self) -> Journal:
        return Journal(self.home)

    @cached_property
    def entries(self) -> list[dict[str, Any]]:
        """Lines of the journal, oldest first."""
        return self.journal.entries()

    def published(self, *stages: str) -> Iterator[dict[str, Any]]:
        """Entries of published stages, on all branches, newest first, each once."""
        seen = set()
        for entry in reversed(self.entries):
            key = entry.get("stage"), entry.get("branch"), entry.get("key")
            if entry.get("event") == "published" and key[0] in stages and key not in seen:
                seen.add(key)
                yield entry

    def record_of(self, entry: dict[str, Any]) -> StageRecord | None:
        return self.journal.finished(stage_name(str(entry["stage"]), str(entry.get("branch", ""))), str(entry["key"]))

    def records(self, *stages: str, digest: str = "") -> Iterator[StageRecord]:
        """Records of stages, on all branches, whose folders are still there; newest first. With a digest, its alone."""
        known = set()
        for entry in self.published(*stages):
            if digest in ("", entry.get("digest")) and (record := self.record_of(entry)):
                known.add(record.path)
                yield record
        for folder in sorted((self.home / "data").glob("*@*")):  # published, but a crash kept it from the journal
            if folder not in known and not folder.name.endswith(".partial"):
                record = StageRecord.read(folder)
                if record and record.stage in stages and digest in ("", record.digest):
                    yield record

    def begun(self) -> Iterator[tuple[StageRecord, str]]:
        """Training stages that have begun and know the order of their rows, whether or not they have ended, each with
        the run of its night. The record of one that has not ended has the steps that it is to make."""
        for folder in sorted((self.home / "data").glob("*@*")):
            if (noted := BegunStage.read(folder)) and (steps := read_noted(folder).get("num_steps")):
                unfinished = replace(noted.record(folder), counts={"steps": int(steps)})
                yield StageRecord.read(folder) or unfinished, noted.night_run

    def record_with_digest(self, stage: str, digest: str) -> StageRecord | None:
        """The record of the stage with this digest, if its folder is still there."""
        return next(self.records(stage, digest=digest), None)

    def packed_for(self, *trained: StageRecord) -> StageRecord | None:
        """The packed rows that training stages read: each names the digest of its own kind's rows."""
        wanted = [(entry_of(record.stage).kind, record.inputs["tokens"]) for record in trained]
        for packed in self.records("tokens"):
            if all(digest_of_kind(packed, kind) == digest for kind, digest in wanted):
                return packed
        return None

    def recipes(self) -> list[str]:
        """Names of the recipes that have validated data, oldest first."""
        return [p.stem for p in sorted((self.home / "newest").glob("*.json"), key=lambda p: p.stat().st_mtime_ns)]

    def recipe(self, wanted: str | None) -> str:
        """The recipe that a question is about: the one named, or else the one whose data was prepared last."""
        names = self.recipes()
        if not names:
            raise NightStopped(f"no night has validated anything in {self.home}; run one: python -m flows RECIPE")
        if wanted and wanted not in names:
            raise NightStopped(f"no recipe {wanted!r:.80} has run in {self.home}, there are {listed(sorted(names))}")
        return wanted or names[-1]

    def data_of(self, packed: StageRecord) -> PreparedData:
        """The records that packed rows were made from."""
        chain = [packed]
        for stage in ("split", "deduplicate", "validate"):
            before = self.record_with_digest(stage, chain[-1].inputs["rows"])
            if before is None:
                raise NightStopped(
                    f"the {stage} stage that {chain[-1].path.name} was made of is not in {self.home / 'data'} "
                    "any more; a night of the recipe makes it again"
                )
            chain.append(before)
        packed, sides, distinct, validated = chain
        return PreparedData(validated, distinct, sides, packed)

    def newest_data(self, recipe: str) -> PreparedData:
        """The last finished preparation of a recipe's data."""
        packed = self.journal.newest("tokens", recipe)
        if packed is None:
            raise NightStopped(f"no night of recipe {recipe} has come as far as the tokens stage; run it again")
        return self.data_of(packed)

    def training(self, record: StageRecord, packed: StageRecord) -> FinishedTraining:
        """A training stage together with its reading order over the packed rows."""
        kind = entry_of(record.stage).kind
        reading = reading_of(record, packed.counts[f"{kind}_train_rows"])
        return FinishedTraining(record, TrainingInput(kind, packed.path, reading))

    def replayed(self, record: StageRecord, packed: StageRecord) -> FinishedTraining | None:
        """The same for the text that a training stage read beside its own rows, if it did."""
        if (found := replayed_of(record)) is None:
            return None
        return FinishedTraining(record, TrainingInput(REPLAYED_KIND, packed.path, found[0]), replayed=True)

    def grown_from(self, record: StageRecord) -> StageRecord | None:
        """The nearest record that a stage's output grew from whose folder is still there."""
        base, grown, asked = self.journal.base_of(record), self.journal.grown(), {record.digest}
        while base and base not in asked:
            if found := self.record_with_digest(record.stage, base):
                return found
            asked.add(base)
            base = grown.get(base, "")
        return None

    def trainings_on(self, packed: StageRecord, kind: str) -> Iterator[FinishedTraining]:
        """Training stages that read rows of a kind, of these packed rows or of earlier ones that these grew from.

        Those of nights' own models come first, then those of twins and sweeps, each newest first.
        """
        grown: dict[str, StageRecord] = {}
        step: StageRecord | None = packed
        while step and digest_of_kind(step, kind) not in grown:
            grown[digest_of_kind(step, kind)] = step
            step = self.grown_from(step)
        stages = [entry.name for entry in TRAINING_STAGES]
        for record in sorted(self.records(*stages), key=lambda record: bool(record.branch)):
            own = entry_of(record.stage).kind == kind
            rows = record.inputs["tokens"] if own else digest_of_replayed(record, kind)
            if shards := grown.get(rows):
                again = None if own else self.replayed(record, shards)
                yield again or self.training(record, shards)
