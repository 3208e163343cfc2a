"""The data of a night on one page: what came in, what became of it, and how it differs from the champion's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from data.rows.drift import DIFFERENT, SHIFTED, Drift
from data.rows.statistics import FORMAT, Fates, NightStatistics, bin_label
from data.sides.slices import Slice, validation_version
from data.tokens.answers import HeldAnswers
from tasks.pages.data_tables import (
    EXAMPLE_CHARACTERS,
    answers_table,
    contamination_table,
    domain_category,
    domain_table,
    drift_table,
    fate_parts,
    files_table,
    in_order,
    packing_table,
    slices_table,
    source_table,
    token_table,
)
from tasks.pages.drawings import Bar, Histogram, Part
from tasks.pages.losses import Loss
from tasks.pages.rendering import render
from tasks.pages.tables import Category, Column, Table
from tasks.pages.text import format_bytes, format_share, markdown_line, plural

MAX_RULES, MAX_EXAMPLES = 20, 5
"""Most rules that are shown, and most examples of each."""
NUM_OPEN_RULES = 3
"""Rules whose examples are in sight when the page opens."""
EDGE_LABELS = {1: "1 B", 5: "16 B", 9: "256 B", 13: "4 KiB", 17: "64 KiB", 21: "1 MiB"}
"""Left edges of bins of row lengths, by the bin."""
RuleReports = Mapping[str, Any]
"""Count and examples by rule, as `FailureReport.as_dict` returns them."""


@dataclass(frozen=True)
class RowBalance:
    """Whether every row that was read has one fate."""

    read: int
    parts: Sequence[Part]
    unaccounted: int

    @classmethod
    def of(cls, fates: Fates) -> RowBalance:
        return cls(fates.read, fate_parts(fates), fates.unaccounted)

    @property
    def bar(self) -> Bar:
        return Bar(self.parts, self.read, "tall")


@dataclass(frozen=True)
class BrokenRule:
    """A rule and the rows that broke it first."""

    name: str
    count: int
    share: str
    """Of all quarantined rows."""
    examples: Sequence[str]


@dataclass(frozen=True)
class LengthPanel:
    """The row lengths of a domain."""

    domain: Category
    median: str
    """The bin that the median lies in."""
    histogram: Histogram


def length_panels(night: NightStatistics) -> Iterator[LengthPanel]:
    """A panel for each domain, all over the same bins."""
    profiles = night.by_domain.domains
    used = [index for index, count in enumerate(night.by_domain.total.histograms["bytes"]) if count]
    for name in in_order(profiles):
        counts, category = profiles[name].histograms["bytes"], domain_category(name)
        median = next(i for i, below in enumerate(accumulate(counts)) if 2 * below >= profiles[name].rows)
        bins = [(bin_label("bytes", index), counts[index]) for index in range(used[0], used[-1] + 1)]
        edges = [(index - used[0], label) for index, label in EDGE_LABELS.items() if used[0] <= index <= used[-1]]
        yield LengthPanel(category, bin_label("bytes", median), Histogram(bins, edges, category.colour))


@dataclass(frozen=True)
class DataReport:
    """A night's data for people; sections whose numbers are not known yet (None or empty) are left out."""

    statistics: NightStatistics
    drift: Drift | None
    """From the champion's data."""
    deferred: Sequence[tuple[str, str]]
    """(file, reason)."""
    title: str
    rules: RuleReports = field(default_factory=dict)
    """With the examples of quarantined rows."""
    losses: Sequence[Loss] = ()
    """Where a source lost more than the recipe's share."""
    too_little: str = ""
    """Why the validation text is not enough to promote by; empty if it is."""
    slices: Mapping[str, Slice] = field(default_factory=dict)
    """The validation side by slice."""
    answers: Mapping[str, HeldAnswers] = field(default_factory=dict)
    """What packed rows hold of each source's answers."""

    @property
    def broken_rules(self) -> list[BrokenRule]:
        """Most frequent first; counts are those of the statistics, `rules` may know more names."""
        counts = {name: int(rule["count"]) for name, rule in self.rules.items()} | dict(self.statistics.fate.rules)
        return [
            BrokenRule(
                name,
                count,
                format_share(count, self.statistics.fate.quarantined),
                self.rules.get(name, {}).get("examples", ())[:MAX_EXAMPLES],
            )
            for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        ]

    @property
    def tiles(self) -> list[tuple[str, str]]:
        """(value, label) of the headline numbers."""
        fates, total = self.statistics.fate, self.statistics.by_domain.total
        num_tokens = sum(count.tokens for count in self.statistics.tokens_by_domain().values())
        tiles = [
            (f"{fates.kept:,}", "rows kept"),
            (format_share(fates.kept, fates.read), "of the rows read"),
            (format_bytes(total.bytes), "of text"),
            (f"{total.characters:,}", "characters"),
            (f"{num_tokens:,}" if num_tokens else "", "tokens"),
        ]
        if self.drift:
            worst = self.drift.worst
            tiles.append((f"{worst.psi:.3f}", f"drift, worst: {worst.name.replace('_', ' ')}"))
        return [(value, label) for value, label in tiles if value]

    def as_html(self) -> str:
        """One page that needs no other file and no network."""
        night, rules = self.statistics, self.broken_rules
        html = render(
            "data_report.html.j2",
            title=self.title,
            num_sources=len(night.names),
            tiles=self.tiles,
            balance=RowBalance.of(night.fate),
            losses=[loss.sentence for loss in self.losses],
            too_little=self.too_little,
            drift=self.drift,
            drift_table=drift_table(self.drift) if self.drift else None,
            drift_limits=(SHIFTED, DIFFERENT),
            sources=source_table(night),
            domains=domain_table(night),
            lengths=list(length_panels(night)),
            rules=rules[:MAX_RULES],
            num_hidden_rules=max(0, len(rules) - MAX_RULES),
            num_open_rules=NUM_OPEN_RULES,
            example_characters=EXAMPLE_CHARACTERS,
            tokens=token_table(night),
            has_dispersion=bool(night.dispersion),
            packing=packing_table(night),
            validation=validation_version(self.slices) if self.slices else None,
            slices=slices_table(self.slices),
            answers=answers_table(self.answers),
            contamination=contamination_table(night),
            files_left_out=files_table(self.deferred),
            statistics_format=FORMAT,
        )
        return str(html)

    def as_markdown(self) -> str:
        """The short version: the fates of rows, sources, domains, rules, drift, files left out."""
        night = self.statistics
        balance = RowBalance.of(night.fate)
        fates = " + ".join(f"{part.size:,} {part.name}" for part in balance.parts)
        blocks = [
            f"# {markdown_line(self.title)}",
            f"{balance.read:,} read = {fates}, {format_bytes(night.by_domain.total.bytes)} of text.",
            f"**{plural(balance.unaccounted, 'row')} unaccounted for.**" if balance.unaccounted else "",
            "\n".join(f"- **{markdown_line(loss.sentence)}**" for loss in self.losses),
            f"**{markdown_line(self.too_little)}**" if self.too_little else "",
            source_table(night)
            .only("source", "read", "kept", "exact dup.", "near dup.", "quarantined", "blank")
            .as_markdown(),
            domain_table(night).only("domain", "rows", "text", "share").as_markdown(),
            Table(
                [Column("rule"), Column("rows", "number")],
                [[rule.name, rule.count] for rule in self.broken_rules[:MAX_RULES]],
            ).as_markdown(),
            *(["Answers in packed rows:", answers_table(self.answers).as_markdown()] if self.answers else ()),
            *(drift_as_markdown(self.drift) if self.drift else ()),
            *(slices_as_markdown(self.slices) if self.slices else ()),
            *(["Files left out:", files_table(self.deferred).as_markdown()] if self.deferred else ()),
        ]
        return "\n\n".join(block for block in blocks if block) + "\n"


def slices_as_markdown(slices: Mapping[str, Slice]) -> Iterator[str]:
    """The version of the validation side, and its slices."""
    yield f"Validation {validation_version(slices)}:"
    yield slices_table(slices).as_markdown()


def drift_as_markdown(drift: Drift) -> Iterator[str]:
    """The index of each feature, and the sources that came and went."""
    yield "Drift from the champion's data:"
    yield drift_table(drift).only("feature", "index", "reading").as_markdown()
    for change, names in (("New", drift.new_sources), ("Vanished", drift.vanished_sources)):
        if names:
            yield f"{change} {'source' if len(names) == 1 else 'sources'}: {', '.join(map(markdown_line, names))}"
