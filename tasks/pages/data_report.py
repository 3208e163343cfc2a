"""The data of a night on one page: what came in, what became of it, and how it differs from the champion's."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from data.rows.drift import DIFFERENT, SHIFTED, Drift
from data.rows.statistics import FORMAT, Fates, NightStatistics, Profile, TokenCount, bin_label
from schemas.domain import DOMAINS
from tasks.pages.html import (
    NAME_CHARACTERS,
    ROWS,
    bar,
    histogram,
    page,
    ratio,
    safe,
    section,
    share,
    shown,
    size,
    table,
)  # fmt: skip

EXAMPLES, EXAMPLE_CHARACTERS, RULES = 5, 200, 20
"""Most examples of a rule, characters of an example, and rules that are shown."""
OPEN_RULES = 3
Rules = Mapping[str, Any]
"""As `FailureReport.as_dict` gives them: count and examples by rule."""
FATES = {"kept": "var(--good)", "exact duplicates": "var(--exact)", "near duplicates": "var(--near)",
         "quarantined": "var(--bad)"}  # fmt: skip
LIGHTS = {"stable": "var(--good)", "shifted": "var(--warn)", "different": "var(--bad)"}
VISIBLE = 0.005
"""Least index at which the bin that moved most is worth a word."""
TICKS = {1: "1 B", 5: "16 B", 9: "256 B", 13: "4 KiB", 17: "64 KiB", 21: "1 MiB"}
"""Left edges of bins of row lengths."""


def in_order(domains: Iterable[str]) -> list[str]:
    return sorted(domains, key=lambda name: (DOMAINS.index(name) if name in DOMAINS else len(DOMAINS), name))


def colour(domain: str) -> str:
    return f"var(--c{DOMAINS.index(domain) if domain in DOMAINS else len(DOMAINS) - 1})"


def named(domain: str) -> str:
    return f'<i class="dot" style="background:{colour(domain)}"></i>{safe(domain)}'


def fate_parts(fates: Fates) -> list[tuple[str, int, str]]:
    """(fate, rows, colour): the right side of the conservation law."""
    numbers = (fates.kept, fates.exact_duplicates, fates.near_duplicates, fates.quarantined)
    return [(name, number, FATES[name]) for name, number in zip(FATES, numbers, strict=True)]


def rule_counts(night: NightStatistics, rules: Rules) -> list[tuple[str, int]]:
    """Rules and their counts, most frequent first; the statistics count, `rules` may know more names."""
    counts = {name: int(rule["count"]) for name, rule in rules.items()} | dict(night.fate.rules)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def headline(night: NightStatistics, drift: Drift | None) -> str:
    fates, total = night.fate, night.by_domain.total
    tokens = sum(count.tokens for count in night.tokens_by_domain().values())
    tiles = {
        "rows kept": f"{fates.kept:,}",
        "of the rows read": share(fates.kept, fates.read),
        "of text": size(total.bytes),
        "characters": f"{total.characters:,}",
        "tokens": f"{tokens:,}" if tokens else "",
    }
    if drift:
        tiles[f"drift, worst: {drift.worst.name.replace('_', ' ')}"] = f"{drift.worst.psi:.3f}"
    parts = fate_parts(fates)
    words = " + ".join(
        f'<span><i style="background:{fill}"></i>{number:,} {name}</span>' for name, number, fill in parts
    )
    check = '<span class="good">It adds up.</span>'
    if fates.unaccounted:
        check = f'<span class="bad">Does not add up: {fates.unaccounted:,} rows unaccounted for.</span>'
    boxes = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in tiles.items() if value)
    law = f'<p class="law"><span>{fates.read:,} read</span> = {words}. {check}</p>'
    return f'<section><div class="tiles">{boxes}</div>{bar(parts, fates.read, "bar tall")}{law}</section>'


def drift_section(drift: Drift | None) -> str:
    if drift is None:
        return ""
    columns = [
        ("feature", ""),
        ("index", "n"),
        ("0 to 0.5", "w"),
        ("reading", ""),
        ("moved most, champion → tonight", "t"),
    ]
    rows = [
        [
            feature.name.replace("_", " "),
            f"{feature.psi:.3f}",
            bar([(feature.name, round(min(feature.psi, 0.5), 3), LIGHTS[feature.reading])], 0.5, "bar meter"),
            f'<span class="word {feature.reading}">{feature.reading}</span>',
            f"{safe(feature.bin)}: {feature.reference:.1%} → {feature.tonight:.1%}" if feature.psi >= VISIBLE else "",
        ]
        for feature in drift.features
    ]
    lists = {"New sources": drift.new_sources, "Vanished sources": drift.vanished_sources}
    came = "".join(
        f'<p class="change"><b>{title}:</b> {", ".join(map(safe, names))}</p>'
        for title, names in lists.items()
        if names
    )
    note = (
        f"Population stability index against the champion's data: below {SHIFTED} stable, above {DIFFERENT} different."
    )
    return section("Drift", note, came + table(columns, rows))


def source_section(night: NightStatistics) -> str:
    columns = [("source", ""), ("read", "n"), ("kept", "n"), ("exact dup.", "n"), ("near dup.", "n"),
               ("quarantined", "n"), ("fates", "w"), ("text", "n"), ("domains", "w"), ("tokens", "n"),
               ("bytes/token", "n")]  # fmt: skip

    def row(label: str, fates: Fates, domains: Mapping[str, Profile], tokens: Mapping[str, TokenCount]) -> list[str]:
        parts, kept = fate_parts(fates), sum(profile.bytes for profile in domains.values())
        mix = bar([(name, domains[name].bytes, colour(name)) for name in in_order(domains)], kept) if kept else ""
        count, covered = sum(c.tokens for c in tokens.values()), sum(c.bytes for c in tokens.values())
        return [label, f"{fates.read:,}", *(f"{number:,}" for _, number, _ in parts), bar(parts, fates.read),
                size(kept), mix, f"{count:,}" if tokens else "", ratio(covered, count)]  # fmt: skip

    rows = []
    for name in night.names:
        domains = night.sources[name].domains if name in night.sources else {}
        rows.append(row(safe(name), night.fates.get(name, Fates()), domains, (night.tokens or {}).get(name, {})))
    total = row("all", night.fate, night.by_domain.domains, night.tokens_by_domain())
    return section("Sources", "Every row that was read has one fate.", table(columns, rows, total))


def domain_section(night: NightStatistics) -> str:
    columns = [("domain", ""), ("rows", "n"), ("text", "n"), ("share", "n"), ("", "w"), ("characters/byte", "n"),
               ("bytes/row", "n"), ("lines/row", "n"), ("turns/chat", "n"), ("white space", "n"),
               ("digits", "n")]  # fmt: skip
    whole = night.by_domain.total

    def row(label: str, profile: Profile, fill: str) -> list[str]:
        return [label, f"{profile.rows:,}", size(profile.bytes), share(profile.bytes, whole.bytes),
                bar([(label, profile.bytes, fill)], whole.bytes) if fill else "",
                ratio(profile.characters, profile.bytes),
                f"{profile.bytes / max(1, profile.rows):,.0f}", f"{profile.lines / max(1, profile.rows):,.1f}",
                f"{profile.turns / talks:,.1f}" if (talks := profile.rows - profile.histograms["turns"][0]) else "",
                share(profile.white_space, profile.bytes), share(profile.digits, profile.bytes)]  # fmt: skip

    profiles = night.by_domain.domains
    rows = [[named(name), *row(name, profiles[name], colour(name))[1:]] for name in in_order(profiles)]
    return section(
        "Domains", "Rows that passed the rules, duplicates included.", table(columns, rows, row("all", whole, ""))
    )


def length_section(night: NightStatistics) -> str:
    profiles = night.by_domain.domains
    used = [index for index, count in enumerate(night.by_domain.total.histograms["bytes"]) if count]
    panels = []
    for name in in_order(profiles):
        counts = profiles[name].histograms["bytes"]
        median = next(i for i, below in enumerate(accumulate(counts)) if 2 * below >= profiles[name].rows)
        bins = [(bin_label("bytes", index), counts[index]) for index in range(used[0], used[-1] + 1)]
        ticks = [(index - used[0], word) for index, word in TICKS.items() if used[0] <= index <= used[-1]]
        words = f"{named(name)} <span>median {bin_label('bytes', median)}</span>"
        panels.append(f"<div>{words}{histogram(bins, ticks, colour(name))}</div>")
    body = f'<div class="panels">{"".join(panels)}</div>' if panels else ""
    return section(
        "Row lengths", "Rows by their UTF-8 bytes, in doubling steps on one axis; heights within a domain.", body
    )


def quarantine_section(night: NightStatistics, rules: Rules) -> str:
    counts, bad, parts = rule_counts(night, rules), night.fate.quarantined, []
    for number, (name, count) in enumerate(counts[:RULES]):
        examples = [safe(text, EXAMPLE_CHARACTERS) for text in rules.get(name, {}).get("examples", ())][:EXAMPLES]
        line = f"<b>{count:,}</b> <code>{safe(name)}</code> {share(count, bad)}"
        if examples:
            listed = "".join(f"<li>{example}</li>" for example in examples)
            is_open = " open" if number < OPEN_RULES else ""
            parts.append(f"<details{is_open}><summary>{line}</summary><ul>{listed}</ul></details>")
        else:
            parts.append(f"<p>{line}</p>")
    if len(counts) > RULES:
        parts.append(f'<p class="note">and {len(counts) - RULES:,} more rules</p>')
    return section("Quarantine", "Rows set aside, by the rule they broke first.", "".join(parts))


def token_section(night: NightStatistics) -> str:
    tokens, used, order = night.tokens_by_domain(), night.vocabulary_coverage or {}, night.dispersion or {}
    columns = [("domain", ""), ("tokens", "n"), ("share", "n"), ("", "w"), ("bytes/token", "n"),
               ("vocabulary used", "n"), ("dispersion", "n")]  # fmt: skip
    whole = TokenCount(tokens=sum(c.tokens for c in tokens.values()), bytes=sum(c.bytes for c in tokens.values()))

    def row(name: str, count: TokenCount | None, drawn: bool) -> list[str]:
        there = [f"{count.tokens:,}", share(count.tokens, whole.tokens)] if count else ["", ""]
        return [named(name) if drawn else name, *there,
                bar([(name, count.tokens, colour(name))], whole.tokens) if count and drawn else "",
                ratio(count.bytes, count.tokens) if count else "", f"{used[name]:.1%}" if name in used else "",
                f"{order[name]:.2f}" if name in order else ""]  # fmt: skip

    rows = [row(name, tokens.get(name), True) for name in in_order({*tokens, *used, *order} - {"all"})]
    note = (
        "Dispersion is how much a domain's share varies over batches of 64 rows, over what chance gives: 1 is shuffled."
    )
    return section("Tokens", note if order else "", table(columns, rows, row("all", whole if tokens else None, False)))


def other_sections(night: NightStatistics, deferred: Sequence[tuple[str, str]]) -> list[str]:
    filled = [
        [safe(name), f"{value:.1%}", bar([(name, value, "var(--c0)")], 1)]
        for name, value in (night.slots_filled or {}).items()
    ]
    overlaps = [
        [safe(name), f"{overlap.documents:,}", f"{overlap.overlapping:,}", f"{overlap.share:.1%}",
         bar([(name, overlap.overlapping, "var(--bad)")], overlap.documents)]
        for name, overlap in (night.contamination or {}).items()
    ]  # fmt: skip
    columns = [("slice", ""), ("documents", "n"), ("with overlap", "n"), ("share", "n"), ("", "w")]
    files = [[safe(name), safe(reason, EXAMPLE_CHARACTERS)] for name, reason in deferred]
    return [
        section(
            "Packing", "Packed slots that hold a token.", table([("table", ""), ("filled", "n"), ("", "w")], filled)
        ),
        section("Contamination", "Validation documents that share text with the train side.", table(columns, overlaps)),
        section("Files left out", "Deferred or not readable tonight.", table([("file", "t"), ("reason", "t")], files)),
    ]


def cell(text: object, limit: int = NAME_CHARACTERS) -> str:
    """Text from the data inside a markdown table."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(shown(text, limit), quote=False))


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Numbers to the right, everything else to the left; no lines without rows."""
    filled = [[f"{value:,}" if isinstance(value, int) else str(value) for value in row] for row in rows]
    if not filled:
        return []
    rule = ["---", *("---:" for _ in heads[1:])]
    return ["", *(f"| {' | '.join(line)} |" for line in (heads, rule, *filled))]


@dataclass(frozen=True)
class DataReport:
    """What is not known yet (None or empty) has no place in it."""

    statistics: NightStatistics
    drift: Drift | None
    """From the champion's data."""
    deferred: Sequence[tuple[str, str]]
    """(file, reason)."""
    title: str
    rules: Rules = field(default_factory=dict)
    """With the examples of quarantined rows."""

    def as_html(self) -> str:
        """One page that needs no other file and no network."""
        night = self.statistics
        sections = [
            headline(night, self.drift), drift_section(self.drift), source_section(night), domain_section(night),
            length_section(night), quarantine_section(night, self.rules), token_section(night),
            *other_sections(night, self.deferred),
        ]  # fmt: skip
        count = len(night.names)
        lead = f"{count:,} {'source' if count == 1 else 'sources'}, {night.fate.read:,} rows"
        foot = f"Text is counted in UTF-8 bytes; kB, MB and GB are powers of 1000. Statistics of format {FORMAT}."
        return page(self.title, lead, sections, foot)

    def as_markdown(self) -> str:
        """The short version: the law, sources, domains, rules, drift, files left out."""
        night = self.statistics
        fates, whole = night.fate, night.by_domain.total
        law = f"{fates.read:,} read = " + " + ".join(f"{number:,} {name}" for name, number, _ in fate_parts(fates))
        lines = [f"# {cell(self.title)}", "", f"{law}, {size(whole.bytes)} of text."]
        if fates.unaccounted:
            lines += ["", f"**{fates.unaccounted:,} rows unaccounted for.**"]
        by_source = [(name, night.fates.get(name, Fates())) for name in night.names]
        rows = [[cell(name), fate.read, *(number for _, number, _ in fate_parts(fate))] for name, fate in by_source]
        lines += markdown_table(["source", "read", *FATES], rows[:ROWS])
        profiles = night.by_domain.domains
        lines += markdown_table(
            ["domain", "rows", "text", "share"],
            [[cell(n), profiles[n].rows, size(profiles[n].bytes), share(profiles[n].bytes, whole.bytes)]
             for n in in_order(profiles)],
        )  # fmt: skip
        counts = rule_counts(night, self.rules)[:RULES]
        lines += markdown_table(["rule", "rows"], [[cell(name), count] for name, count in counts])
        if self.drift:
            lines += markdown_table(
                ["drift", "index", "reading"], [[cell(f.name), f"{f.psi:.3f}", f.reading] for f in self.drift.features]
            )
            for words, names in (("New", self.drift.new_sources), ("Vanished", self.drift.vanished_sources)):
                lines += ["", f"{words} sources: {', '.join(map(cell, names))}"] if names else []
        files = [[cell(name), cell(reason, EXAMPLE_CHARACTERS)] for name, reason in self.deferred]
        lines += markdown_table(["file left out", "reason"], files[:ROWS])
        return "\n".join([*lines, ""])
