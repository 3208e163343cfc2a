"""The tables of the data report: each shows some of a night's statistics, for the page and for the short version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from data.rows.drift import Drift
from data.rows.statistics import Fates, NightStatistics, Profile, TokenCount
from data.sides.slices import Slice
from data.tokens.answers import ENOUGH, HeldAnswers
from schemas.domain import DOMAINS
from tasks.pages.drawings import Bar, Part
from tasks.pages.tables import Category, Cell, Column, Table
from tasks.pages.text import format_bytes, format_ratio, format_share

EXAMPLE_CHARACTERS = 200
"""Most characters of an example of a rule, and of the reason why a file is left out."""
FATE_COLOURS = {
    "kept": "var(--good)",
    "exact duplicates": "var(--exact)",
    "near duplicates": "var(--near)",
    "quarantined": "var(--bad)",
    "blank": "var(--c5)",
}
READING_COLOURS = {"stable": "var(--good)", "shifted": "var(--warn)", "different": "var(--bad)"}
METER_END = 0.5
"""Population stability index at which the meter of a feature is full."""
NOTICEABLE_PSI = 0.005
"""Least index of a feature whose bin that moved most is named."""


def in_order(domains: Iterable[str]) -> list[str]:
    """Domains as DOMAINS lists them, then others by name."""
    return sorted(domains, key=lambda name: (DOMAINS.index(name) if name in DOMAINS else len(DOMAINS), name))


def domain_colour(domain: str) -> str:
    return f"var(--c{DOMAINS.index(domain) if domain in DOMAINS else len(DOMAINS) - 1})"


def domain_category(domain: str) -> Category:
    return Category(domain, domain_colour(domain))


def fate_parts(fates: Fates) -> list[Part]:
    """The right side of read = kept + exact duplicates + near duplicates + quarantined (+ blank)."""
    counts = (fates.kept, fates.exact_duplicates, fates.near_duplicates, fates.quarantined, fates.blank)
    parts = [Part(name, count, colour) for (name, colour), count in zip(FATE_COLOURS.items(), counts, strict=True)]
    return parts if fates.blank else parts[:-1]


def drift_table(drift: Drift) -> Table:
    """A feature a row; the marks of its meter are where readings change."""
    columns = [
        Column("feature"),
        Column("index", "number"),
        Column("0 to 0.5", "bar"),
        Column("reading", "badge"),
        Column("moved most, champion → tonight", "long", EXAMPLE_CHARACTERS),
    ]
    rows: list[list[Cell]] = []
    for feature in drift.features:
        part = Part(feature.name, round(min(feature.psi, METER_END), 3), READING_COLOURS[feature.reading])
        moved = f"{feature.bin}: {feature.reference:.1%} → {feature.tonight:.1%}"
        rows.append(
            [
                feature.name.replace("_", " "),
                f"{feature.psi:.3f}",
                Bar([part], METER_END, "meter"),
                feature.reading,
                moved if feature.psi >= NOTICEABLE_PSI else "",
            ]
        )
    return Table(columns, rows)


def source_table(night: NightStatistics) -> Table:
    """A source a row: the fates of its rows, its text and its tokens."""
    columns = [
        Column("source"),
        Column("read", "number"),
        Column("kept", "number"),
        Column("exact dup.", "number"),
        Column("near dup.", "number"),
        Column("quarantined", "number"),
        Column("blank", "number"),
        Column("fates", "bar"),
        Column("text", "number"),
        Column("domains", "bar"),
        Column("tokens", "number"),
        Column("bytes/token", "number"),
    ]

    def row(
        name: str, fates: Fates, domains: Mapping[str, Profile], tokens: Mapping[str, TokenCount]
    ) -> Sequence[Cell]:
        kept_bytes = sum(profile.bytes for profile in domains.values())
        parts = [Part(domain, domains[domain].bytes, domain_colour(domain)) for domain in in_order(domains)]
        num_tokens = sum(count.tokens for count in tokens.values())
        token_bytes = sum(count.bytes for count in tokens.values())
        return [
            name,
            fates.read,
            fates.kept,
            fates.exact_duplicates,
            fates.near_duplicates,
            fates.quarantined,
            fates.blank or "",
            Bar(fate_parts(fates), fates.read),
            format_bytes(kept_bytes),
            Bar(parts, kept_bytes) if kept_bytes else None,
            num_tokens if tokens else "",
            format_ratio(token_bytes, num_tokens),
        ]

    rows = []
    for name in night.names:
        domains = night.sources[name].domains if name in night.sources else {}
        rows.append(row(name, night.fates.get(name, Fates()), domains, (night.tokens or {}).get(name, {})))
    total = row("all", night.fate, night.by_domain.domains, night.tokens_by_domain())
    return Table(columns, rows, total).without_empty_columns()


def domain_table(night: NightStatistics) -> Table:
    """A domain a row: how much text it has, and what its text is like."""
    columns = [
        Column("domain", "category"),
        Column("rows", "number"),
        Column("text", "number"),
        Column("share", "number"),
        Column("", "bar"),
        Column("characters/byte", "number"),
        Column("bytes/row", "number"),
        Column("lines/row", "number"),
        Column("turns/chat", "number"),
        Column("white space", "number"),
        Column("digits", "number"),
    ]
    whole = night.by_domain.total

    def row(domain: Category, profile: Profile) -> Sequence[Cell]:
        num_rows = max(1, profile.rows)
        num_chats = profile.rows - profile.histograms["turns"][0]
        part = Part(domain.name, profile.bytes, domain.colour)
        return [
            domain,
            profile.rows,
            format_bytes(profile.bytes),
            format_share(profile.bytes, whole.bytes),
            Bar([part], whole.bytes) if domain.colour else None,
            format_ratio(profile.characters, profile.bytes),
            f"{profile.bytes / num_rows:,.0f}",
            f"{profile.lines / num_rows:,.1f}",
            f"{profile.turns / num_chats:,.1f}" if num_chats else "",
            format_share(profile.white_space, profile.bytes),
            format_share(profile.digits, profile.bytes),
        ]

    profiles = night.by_domain.domains
    rows = [row(domain_category(name), profiles[name]) for name in in_order(profiles)]
    return Table(columns, rows, row(Category("all"), whole)).without_empty_columns()


def token_table(night: NightStatistics) -> Table:
    """A domain a row: its tokens, how much of the vocabulary they use, and how evenly they are spread."""
    tokens, coverage, dispersion = night.tokens_by_domain(), night.vocabulary_coverage or {}, night.dispersion or {}
    columns = [
        Column("domain", "category"),
        Column("tokens", "number"),
        Column("share", "number"),
        Column("", "bar"),
        Column("bytes/token", "number"),
        Column("vocabulary used", "number"),
        Column("dispersion", "number"),
    ]
    whole = TokenCount(tokens=sum(c.tokens for c in tokens.values()), bytes=sum(c.bytes for c in tokens.values()))

    def row(domain: Category, count: TokenCount | None) -> Sequence[Cell]:
        name = domain.name
        bar = Bar([Part(name, count.tokens, domain.colour)], whole.tokens) if count and domain.colour else None
        return [
            domain,
            count.tokens if count else "",
            format_share(count.tokens, whole.tokens) if count else "",
            bar,
            format_ratio(count.bytes, count.tokens) if count else "",
            f"{coverage[name]:.1%}" if name in coverage else "",
            f"{dispersion[name]:.2f}" if name in dispersion else "",
        ]

    domains = in_order({*tokens, *coverage, *dispersion} - {"all"})
    rows = [row(domain_category(name), tokens.get(name)) for name in domains]
    return Table(columns, rows, row(Category("all"), whole if tokens else None)).without_empty_columns()


def packing_table(night: NightStatistics) -> Table:
    """How full the packed tables are."""
    rows: list[list[Cell]] = [
        [name, f"{share:.1%}", Bar([Part(name, share, "var(--c0)")], 1)]
        for name, share in (night.slots_filled or {}).items()
    ]
    return Table([Column("table"), Column("filled", "number"), Column("", "bar")], rows)


def slices_table(slices: Mapping[str, Slice]) -> Table:
    """A validation slice a row: its newest version, and whether it still grows."""
    columns = [
        Column("slice"),
        Column("version"),
        Column("documents", "number"),
        Column("text", "number"),
        Column("frozen"),
    ]
    rows: list[list[Cell]] = [
        [
            name,
            str(its.newest),
            its.newest.documents,
            format_bytes(its.newest.num_bytes) if its.newest.num_bytes else "",
            "yes" if its.full else "grows",
        ]
        for name, its in slices.items()
    ]
    return Table(columns, rows)


def answers_table(by_source: Mapping[str, HeldAnswers]) -> Table:
    """What packed rows do not hold of each source's conversations, and the row length that would hold almost all."""
    columns = [
        Column("source"), Column("answers", "number"), Column("too long", "number"), Column("share", "number"),
        Column("conversations", "number"), Column("in no row", "number"), Column(f"row for {ENOUGH:.0%}", "number"),
    ]  # fmt: skip
    rows: list[list[Cell]] = [
        [source, held.answers, held.lost, format_share(held.lost, held.answers), held.conversations, held.unpacked,
         f"{wanted:,}" if (wanted := held.row_length_for(ENOUGH)) else ""]
        for source, held in by_source.items()
    ]  # fmt: skip
    return Table(columns, rows)


def contamination_table(night: NightStatistics) -> Table:
    """How many validation documents of a slice share text with the train side."""
    columns = [
        Column("slice"),
        Column("documents", "number"),
        Column("with overlap", "number"),
        Column("share", "number"),
        Column("", "bar"),
    ]
    rows: list[list[Cell]] = [
        [
            name,
            overlap.documents,
            overlap.overlapping,
            f"{overlap.share:.1%}",
            Bar([Part(name, overlap.overlapping, "var(--bad)")], overlap.documents),
        ]
        for name, overlap in (night.contamination or {}).items()
    ]
    return Table(columns, rows)


def files_table(files: Iterable[tuple[str, str]]) -> Table:
    """(file, reason) of files that are left out."""
    columns = [Column("file", "long"), Column("reason", "long", EXAMPLE_CHARACTERS)]
    return Table(columns, [list(row) for row in files])
