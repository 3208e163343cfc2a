"""Optional filters over texts, each a quarantine rule like any other. All are off until a recipe sets them.

Every measure is a share of the text, taken over a whole series at once. The measures follow the quality and
repetition rules of MassiveText (Gopher, arXiv 2112.11446, appendix A.1); its stop-word and mean-word-length rules
are left out, because they hold for English prose alone and this corpus has many languages, short chats and code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import polars as pl

from schemas.jsonl import Fault
from schemas.personal_data import personal_data_of_texts

STRICT = {"extra": "forbid"}
"""For whoever builds the class from plain values, as Prefect does: an unknown key is an error."""
MOST_CHARACTERS = 10**9
"""The largest limit of a text's length."""
RULES: tuple[str, ...] = (
    "filter_personal_data",
    "filter_too_short",
    "filter_too_long",
    "filter_symbols",
    "filter_gibberish",
    "filter_repeated_lines",
    "filter_repetition",
)
"""In the order they are asked; a text that breaks several is reported under the first."""

WORD_NGRAM = 5
CHARACTER_NGRAM = 10
MAX_MEAN_WORD_CHARACTERS = 16
"""A text with longer words on average is written without spaces, as Chinese is."""
SLICE_BYTES = 1 << 20
"""Texts measured at a time: n-grams take some 30 bytes of memory for each byte of text without spaces."""
HASH_FACTOR = 0x9E3779B97F4A7C15
"""Odd, so that multiplication modulo 2^64 loses nothing."""

SYMBOL = r"[^\p{L}\p{M}\p{N}\s[\p{P}--[#*@\[\\\]_{}]]\x{200C}\x{200D}]"
"""Neither letter, mark, number, white space nor punctuation of prose; the two joiners are spelling in Persian."""

CONSONANT = "[bcdfgjklmnpqrstvwxz]"
"""Without h, which spells one sound with its neighbour (German `Rechtsprechung`), and without the vowel y."""
RARE_PAIR = "q[bcdfghjkmnpqtvwxz]|[fgjkmvwxyz]q|[dghjkmsvwz]x|x[jkrvz]|j[xw]|v[fwx]|w[vx]"
CONTINUATION = r"[\x{80}-\x{BF}€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
GIBBERISH = "|".join(
    [
        r"(?-u:[A-Za-z0-9+/]{32,})",
        rf"(?i-u:[a-z]*(?:{CONSONANT}{{5}}|{RARE_PAIR})[a-z]*)",
        r"[\x{FFFD}\p{Co}]",
        rf"[\x{{C2}}-\x{{DF}}]{CONTINUATION}|[\x{{E0}}-\x{{EF}}]{CONTINUATION}{{2}}|[\x{{F0}}-\x{{F4}}]{CONTINUATION}{{3}}",
    ]
)
"""What no language looks like:

- 32 and more letters and digits without a break: base64, digests, sequences;
- a word of ASCII letters with five consonants in a row, or with a pair of letters that makes up fewer than five in a
  million of the pairs in prose of a dozen languages;
- replacement and private-use characters;
- UTF-8 read as Latin-1 or Windows-1252: the letter that a lead byte becomes, before what its continuations become.
"""


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Which texts are left out though they are well formed. A text exactly at a limit is kept.

    Sensible settings for prose, chats and code together: min_characters 5 (10 would drop a Chinese chat in fifteen),
    max_symbol_share 0.3, max_repeated_line_share 0.4, max_repeated_ngram_share 0.6, max_gibberish_score 0.3. Each drops
    one row in ninety at most of any file of the built-in corpus. personal_data also finds authors named in source code.
    """

    __pydantic_config__ = STRICT

    min_characters: int | None = None
    max_characters: int | None = None
    max_repeated_ngram_share: float | None = None
    """Characters in n-grams that occur more than once, over all but white space: n is 5 words, or 10 characters where
    words are not parted by spaces."""
    max_repeated_line_share: float | None = None
    """Characters of lines that repeat an earlier line, over those of all lines, white space around lines apart."""
    max_symbol_share: float | None = None
    """Characters that are neither letters, digits, white space nor punctuation of prose, over all."""
    max_gibberish_score: float | None = None
    """Characters in what no language looks like (`GIBBERISH`), over all. Random letters score about 0.4."""
    personal_data: bool = False
    """Leave out texts with an e-mail address, phone, card, account, identity or IPv4 number."""

    def __post_init__(self) -> None:
        problems = []
        for name in ("min_characters", "max_characters"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MOST_CHARACTERS:
                problems.append(f"{name} ({value}) must lie between 1 and {MOST_CHARACTERS:,}, or be null for no limit")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith(("_share", "_score")) and value is not None and not 0 <= value <= 1:
                problems.append(f"{field.name} ({value}) must lie between 0 and 1, or be null for no limit")
        if self.min_characters and self.max_characters and self.min_characters > self.max_characters:
            problems.append(f"min_characters ({self.min_characters}) is over max_characters ({self.max_characters})")
        if problems:
            raise ValueError("FilterConfig: " + "; ".join(problems))

    @property
    def active(self) -> bool:
        """Whether any filter is on."""
        values = [getattr(self, field.name) for field in fields(self)]
        return any(value is not None and value is not False for value in values)  # a limit of 0 is a limit


def faults_of_texts(texts: pl.Series, config: FilterConfig) -> dict[int, Fault]:
    """The first fault of each text that breaks a filter, by its index in the series; null has none.

    The result for a text does not depend on the others in the series.
    """
    found: dict[int, Fault] = {}
    if not config.active or not len(texts):
        return found
    texts = texts.cast(pl.String)
    mean_bytes = int(texts.str.len_bytes().sum()) // len(texts) + 1
    rows = SLICE_BYTES // mean_bytes + 1
    for start in range(0, len(texts), rows):
        for row, fault in faults_of_slice(texts.slice(start, rows), config):
            found.setdefault(start + row, fault)
    return dict(sorted(found.items()))


def faults_of_slice(texts: pl.Series, config: FilterConfig) -> Iterator[tuple[int, Fault]]:
    """Index and fault, all of one rule before those of the next, in the order of `RULES`."""
    if config.personal_data:
        for row, kind in personal_data_of_texts(texts).items():
            yield row, Fault("filter_personal_data", f"holds {kind} (validate.filters.personal_data)")
    characters = texts.str.len_chars()
    if config.min_characters is not None:
        for row in rows_where(characters < config.min_characters):
            detail = f"{characters[row]} characters, the minimum is {config.min_characters}"
            yield row, Fault("filter_too_short", f"{detail} (validate.filters.min_characters)")
    if config.max_characters is not None:
        for row in rows_where(characters > config.max_characters):
            detail = f"{characters[row]} characters, the limit is {config.max_characters}"
            yield row, Fault("filter_too_long", f"{detail} (validate.filters.max_characters)")
    for share in SHARES:
        limit = getattr(config, share.field)
        if limit is None:
            continue
        values = share.measure(texts)
        for row in rows_where(values > limit):
            detail = f"{share.words.format(percent(values[row], limit))}, the limit is {100 * limit:.10g}%"
            yield row, Fault(share.rule, f"{detail} (validate.filters.{share.field})")


def rows_where(mask: pl.Series) -> list[int]:
    return mask.fill_null(False).arg_true().to_list()


def percent(value: float, limit: float) -> str:
    """A share over its limit with as few decimals as show that it is over."""
    decimals = next((places for places in range(17) if round(100 * value, places) > 100 * limit), 17)
    return f"{100 * value:.{decimals}f}%"


def symbol_shares(texts: pl.Series) -> pl.Series:
    """Symbols over all characters, (rows,) in [0, 1]."""
    return share_of(texts.str.count_matches(SYMBOL), texts.str.len_chars())


def gibberish_scores(texts: pl.Series) -> pl.Series:
    """Characters in gibberish over all, (rows,) in [0, 1]."""
    characters = texts.str.len_chars()
    return share_of(characters - texts.str.replace_all(GIBBERISH, "").str.len_chars(), characters)


def share_of(part: pl.Series, whole: pl.Series) -> pl.Series:
    """0 where there is nothing to share; null stays null."""
    return (part / whole).fill_nan(0.0)


def repeated_line_shares(texts: pl.Series) -> pl.Series:
    """Characters of lines that repeat an earlier line over those of all lines, (rows,) in [0, 1]."""
    lines = pl.DataFrame({"unit": texts.str.split("\n")}).with_row_index("row").explode("unit")
    lines = lines.with_columns(pl.col("unit").str.strip_chars())
    repeats = ~hash_in_row(pl.col("unit").hash()).is_first_distinct()
    return shares_by_row(len(texts), lines.select("row", length=pl.col("unit").str.len_chars(), counted=repeats))


def repeated_ngram_shares(texts: pl.Series) -> pl.Series:
    """Characters in n-grams that a text holds twice over all but white space, (rows,) in [0, 1].

    The units are words, or characters where what lies between two characters of white space is long on average.
    """
    frame = texts.to_frame("text").with_row_index("row")
    frame = frame.with_columns(unit=pl.col("text").str.replace_all(r"[^\S ]", " ").str.split(" "))
    unspaced = pl.col("text").str.len_chars() > MAX_MEAN_WORD_CHARACTERS * pl.col("unit").list.len()
    words = frame.filter(~unspaced).select("row", "unit")
    characters = frame.filter(unspaced).select("row", unit=pl.col("text").str.replace_all(r"\s", "").str.split(""))
    repeated = [
        repeated_ngrams(words.explode("unit"), WORD_NGRAM),
        repeated_ngrams(characters.explode("unit"), CHARACTER_NGRAM),
    ]
    return shares_by_row(len(texts), pl.concat(repeated))


def repeated_ngrams(units: pl.DataFrame, n: int) -> pl.DataFrame:
    """From columns row and unit to row, length and counted: whether the row holds an n-gram over the unit twice.

    N-grams are told apart by polynomials of 64-bit hashes, built by doubling: of 2 units, of 4, then of n. Rows without
    a repeated n-gram are left out.
    """
    units = units.filter(pl.col("unit") != "")
    units = units.select("row", key=pl.col("unit").hash(), length=pl.col("unit").str.len_chars())
    for shift in doublings(n):
        factor = pow(HASH_FACTOR, shift, 1 << 64)  # with one factor for all steps, two units would weigh the same
        units = units.with_columns(key=pl.col("key") * factor + pl.col("key").shift(-shift))
    within_row = (pl.col("row") == pl.col("row").shift(-(n - 1))).fill_null(False)
    units = units.with_columns(key=pl.when(within_row).then(hash_in_row(pl.col("key"))))
    keys = units["key"].drop_nulls().sort()
    twice = keys.filter(keys == keys.shift(1)).unique()  # sorting is twice as fast as is_duplicated()
    units = units.with_columns(counted=pl.col("key").is_in(twice.implode()).fill_null(False))
    touched = units.filter("counted")["row"].unique()
    units = units.filter(pl.col("row").is_in(touched.implode()))
    for shift in doublings(n):
        units = units.with_columns(counted=pl.col("counted") | pl.col("counted").shift(shift, fill_value=False))
    return units.drop("key")


def doublings(n: int) -> list[int]:
    """Steps that take a window of one to a window of n: 5 is 1, 2, 1."""
    width, steps = 1, []
    while width < n:
        steps.append(min(width, n - width))
        width += steps[-1]
    return steps


def hash_in_row(key: pl.Expr) -> pl.Expr:
    """Equal for equal keys of one row only."""
    return key * HASH_FACTOR + pl.col("row")


def shares_by_row(rows: int, units: pl.DataFrame) -> pl.Series:
    """From columns row, length and counted to the counted length over all of it, (rows,); 0 for rows without units."""
    sums = units.group_by("row").agg(part=pl.col("length").filter("counted").sum(), whole=pl.col("length").sum())
    return pl.zeros(rows, eager=True).scatter(sums["row"], share_of(sums["part"], sums["whole"]))


@dataclass(frozen=True)
class Share:
    """A measure of a text between 0 and 1, and the limit that it is held to."""

    rule: str
    field: str
    measure: Callable[[pl.Series], pl.Series]
    words: str


SHARES = (
    Share("filter_symbols", "max_symbol_share", symbol_shares, "symbols are {} of the characters"),
    Share("filter_gibberish", "max_gibberish_score", gibberish_scores, "gibberish is {} of the characters"),
    Share(
        "filter_repeated_lines",
        "max_repeated_line_share",
        repeated_line_shares,
        "lines that repeat an earlier one are {} of the text",
    ),
    Share(
        "filter_repetition",
        "max_repeated_ngram_share",
        repeated_ngram_shares,
        f"repeated n-grams ({WORD_NGRAM} words, {CHARACTER_NGRAM} characters without spaces) cover {{}} of the text",
    ),
)
