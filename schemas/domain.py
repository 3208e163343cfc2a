"""The domain of a text: source code, Chinese, English, mathematics, dialogue, or something else.

There is no model. A rule counts the hits of a few patterns and compares their number, per hundred characters, with a
threshold. The rules form a cascade: cheap ones settle most rows, dear ones see the rest, and a row that no rule
claims is `other`.

    chat    a transcript: speakers named line by line, or the markers of a chat template
    code    source, configuration, markup, shell sessions, tracebacks, whatever the language of the comments
    math    formulas, proofs and worked calculations, in any language
    zh      Han characters dominate; Japanese and Korean are `other`
    en      prose with the function words of English
    other   everything else: other languages, tables, logs, lists, noise

Function words as evidence of English prose follow Gopher's quality rules (Rae et al., 2021, arXiv:2112.11446, A1.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import polars as pl

Domain = Literal["code", "zh", "en", "math", "chat", "other"]
DOMAINS: tuple[Domain, ...] = get_args(Domain)
"""A domain is stored as its place in this tuple, so the order is a contract."""

PREFIX_CHARACTERS = 600
"""Nothing behind this many characters is looked at."""
WORD_CHARACTERS = 200
"""Where the language is in doubt, function words are looked up in so many characters."""
SCRIPT_CHARACTERS = 100
"""Han characters are counted in so many characters."""
SOFTENING = 40
"""Added to a length before dividing by it: one hit in a short text is no certainty."""
BLOCK_ROWS = 2048
"""So many rows are measured at a time, for their prefixes to stay in the processor's cache between two patterns."""

Evidence = tuple[tuple[float, str], ...]
"""Pairs of weight and pattern."""

# Two habits keep the patterns cheap. Those that every row meets begin with rare bytes, so that the search skips from
# one such byte to the next; a leading set of more than ten characters, or the `\b` of Unicode, would make it walk. And
# there are no more than 32 of them: so many compiled patterns polars keeps, and to compile one takes as long as to
# search a hundred rows.
CODE_MARKS: Evidence = (
    (
        1,
        r"[;{}(\[]\n|[)\]:]\n|\)[:;){]|\(\)|\{\}|\[\]|\};|,\{|\}\)|;\}|=>|->|::|&&|\|\|| == |!=|\+=|</|/>|=\"|\(['\"]"
        r"|\":|\",|\$[{(]|\n//|\n# ",
    ),
    (1, r"_[a-z]"),
)
CODE_HEAD = (
    r"^\s*(?:/\*|//|#!|#\n#|# (?:Copyright|-\*-|SPDX)|#include|<\?xml|<!DOCTYPE|<html|<svg|diff --git |\{\s*\"|\[\s*\{"
    r"|\"\"\"|\"use strict\"|package [a-z.]+;?\n|import [a-zA-Z_{*]|from [a-z_.]+ import|using [A-Za-z.]+;)"
)
CODE_SIGNS = r"\n[ \t\-#\[]|[_{}\\$;]|--|:\n"
"""A text without marks and without any of these is no code."""
CODE_LINES: Evidence = (
    (
        1,
        r"(?m)\n(?:[ \t]*(?:(?:import|from|def|class|return|public|const|let|var|if|elif|else|for|while|end|func|fn|use"
        r"|FROM|SELECT|WHERE|CREATE|INSERT|print|#include|#!|git|pip|RUN|COPY|CMD|--- |\+\+\+ |@@|```)[^0-9A-Za-z_]"
        r"|>>>|\$ |[a-z]+@[a-z]+:|[A-Z]:\\[a-z\\]*>|# |//|\*|@[a-z]|(?:- )?[a-zA-Z][0-9a-zA-Z_.-]*:(?: [!-~]+)?$)"
        r"|\[[0-9A-Za-z_.:* {},]+\]$|[0-9A-Za-z_.-]+ ?= ?[!-~]|<\?xml|<!DOCTYPE)",
    ),
    (
        0.8,
        r"\n(?:  |\t)[ \t]*[!-~]| --?[a-z]|\\(?:documentclass|usepackage|newcommand)|[a-z_]{3}\([\"'0-9a-zA-Z]"
        r"|</?[a-zA-Z][^<>\n]*>|[0-9a-z);];[a-z}]|[{;] ?[a-z-]{3,}:|[a-z]\.[a-zA-Z_]{2,}(?:[(=;,\[]| =)",
    ),
)
"""How lines begin. They are looked for in the text with a line feed at both ends."""

MATH_HINTS: Evidence = (
    (
        1,
        r"\\(?:frac|sum|int|sqrt|math|infty|le|ge|in |to |alpha|beta|lambda|mu|theta|pi|begin\{|cdot|ldots|binom"
        r"|\[[\n \\]|\([a-zA-Z\\])",
    ),
    (1, r"[∫∑√≤≥≈∈ℝ×÷]|\^[0-9a-z{(]|\$[A-Za-z]\$"),
    (1, r"Theorem|Proof|Lemma|Corollary|Proposition|Suppose |Let |Definition|Solve|How m| < | > "),
)
RELATION: Evidence = ((1, r"[=≈≤≥] ?[-−√|(0-9a-zA-Z]"),)
MATH: Evidence = (
    (
        2,
        r"\\(?:frac|sum|int|sqrt|math[a-z]{2,4}|begin\{(?:theorem|proof|equation|align|[pb]matrix)"
        r"|[a-z]{2,}(?:[ ^_=,)}$]|\\)|\[[\n \\]|\([a-zA-Z\\])"
        r"|[0-9] ?[-+*/·×÷−] ?[0-9][0-9.,]* ?[=≈] ?[-−$€£]?[0-9]",
    ),
    (2, r"\$[^$\n]*[\\^_=<>+ ][^$\n]*\$|\$[a-zA-Z]\$"),
    (1, r"[0-9A-Za-z_)|²] ?[=≈≤≥<>⊆∈] ?[-−+√(0-9A-Za-z_|]"),
    (1, r"[0-9A-Za-z)²] ?[+*/·×÷−^] ?[0-9(√a-z]|[0-9A-Za-z)] - [0-9A-Za-z(]"),
    (
        1,
        r"[∫∑∏√≤≥≠∈∉⊂⊆∪∩∀∃∞≈≡⇒ℝℂℤℕℚ×÷−·²³ⁿ⊥∂∇ᵢ]"
        r"|(?-u:\b)(?:[a-zA-Z](?:\^|\([a-z]\)|_[0-9a-z](?-u:\b)| ?=)|[0-9]+[a-z](?-u:\b))",
    ),
    (
        1.2,
        r"(?-u:\b)(?:[Tt]heorem|[Ll]emma|[Pp]roof|[Pp]rove|[Cc]orollary|[Pp]roposition|[Ss]uppose|[Hh]ence|[Tt]hus"
        r"|integers?|primes?|polynomials?|equations?|derivative|[Ii]ntegral|matrix|vectors?|eigen[a-z]+|continuous"
        r"|bijection|converges?|sequence|series|inequality|probability|perimeter|triangle|[Ss]olve|[Aa]nswer|induction"
        r"|contradiction|remainder|sums?|product|denominator|average|fractions|determinant|abelian|injective|compact"
        r"|divisible|surjective|homeomorphism|manifold|metric|set|Let|[Hh]ow many|[Hh]ow much)(?-u:\b)",
    ),
)

CHAT_MARKERS = (
    r"<\|(?:im_start|user|assistant)|\[/?INST\]|<start_of_turn>|### ?(?:User|Human|Assistant)"
    r"|(?:\n|\": \[|\}, ?)\{\"role\": ?\""
)
CHAT_SIGNS = r": |：|> |:\*|<\||\[INST|<start_of|\": \[\{|### [UHA]"
"""A text without any of these is no transcript."""
LABEL_GATE = (
    r"\n(?:[^\s:：>(=](?:[^\n:：>(=]|:[0-9]){0,40}(?:: |：|:\*)"
    r"|(?:\[[^\]\n]{2,24}\] ?)?<?[A-Za-z][0-9A-Za-z_]{0,23}>:? )"
)
"""A rough look for a label, on any line but the first."""
LABEL = (
    r"(?m)^(?:[-*#>] ?){0,4}[*<]{0,2}[^\x00-@\[-`{-~：][^\x00-\x1f!-&(-,/:-@\[-^`{-~：]{0,23}[*>]{0,2} ?"
    r"(?::\*{0,2} |：|> )"
)
"""A line's first words, up to the colon that makes them a speaker's name."""
TIMESTAMP = r"(?m)^(?:\[[^\]\n]{2,24}\] ?|[0-9/.-]{6,10},? [0-9:]{4,8} (?:[AP]M )?- )"
ROLE = (
    r"(?im)^[-*# <]*(?:user|human|usuario|benutzer|utilisateur|用户|用戶|ユーザー"
    r"|assistant|ai|bot|asistente|assistent|助手|アシスタント)[*> ]*[:：]"
)
NO_SPEAKER = r"(?m)^(?:(?i:info|warn|warning|error|debug|note|author|date|https?) ?:|- [a-z])"

ENGLISH_MARKS: Evidence = ((1, r" (?:the|and|of|you) "),)
ENGLISH_WORDS = (
    r"(?i-u)\b(?:the|and|of|to|in|is|that|it|was|for|with|you|are|be|not|this|have|but|on|as|at|by|from|or|an|a|i|he"
    r"|we|they|his|her|my|your|its|their|who|what|how|when|which|where|why|do|does|did|don't|i'm|it's|if|so|can|will"
    r"|would|could|has|had|were|been|there|about|into|than|then|only|no|one|all|me|please|first|like|out|up|she)\b"
)
FOREIGN_WORDS = (
    r"(?i-u:\b(?:de|la|el|los|las|que|en|un|una|der|die|das|und|ist|nicht|ein|eine|le|les|des|et|est|du|dans|pour|qui"
    r"|yang|di|dan|itu|il|che|non|het|van|een|os|um|uma|och|att|som|det|si|na|ang|ng|ut|sed|se|con|per|por|mit|auf|nie"
    r"|w|i|com|para|zu|zum|den|im|von|ich|wir|sie|je|ik|wat|hoe|voor|jag|kan|mi|ti|ne|au|sur|sont|nous|vous|lo|gli"
    r"|della|untuk|dengan|ini|ada|saya|posso|al|del)\b)|[à-öø-ÿ¿¡]"
)
HAN = r"\p{Han}"
HAN_PARTICLES = r"[的了是]"
HAN_COMMON = r"[一不人之有在大中上的]"
KANA = r"[のはをにがでとるかお]"

TEXT, CHARS = pl.col("text"), pl.col("chars")
MARKS, ENGLISH, HINTS, RELATIONS, WIDE = (pl.col(name) for name in ("marks", "english", "hints", "relations", "wide"))


def hits(evidence: Evidence, text: pl.Expr = TEXT) -> pl.Expr:
    return pl.sum_horizontal(weight * text.str.count_matches(pattern) for weight, pattern in evidence)


def density(evidence: Evidence, text: pl.Expr = TEXT) -> pl.Expr:
    """Weighted hits per hundred characters."""
    return 100 * hits(evidence, text) / (CHARS + SOFTENING)


def takes_turns() -> pl.Expr:
    """Two speakers, and one of them speaks again on nearly every other line; or a user and an assistant."""
    turns, speakers = pl.col("labels").list.len(), pl.col("labels").list.n_unique()
    dense = turns * 2.5 >= TEXT.str.count_matches("\n", literal=True) + 1
    named = (speakers < turns) & dense & ~TEXT.str.contains(NO_SPEAKER)
    return (speakers >= 2) & (named | (TEXT.str.count_matches(ROLE) >= 2))


def reads_chinese() -> pl.Expr:
    sample = TEXT.str.slice(0, SCRIPT_CHARACTERS)
    han = sample.str.count_matches(HAN)
    return (han > 0) & (han >= 0.2 * sample.str.len_chars()) & (sample.str.count_matches(KANA) < 0.05 * han)


def reads_english() -> pl.Expr:
    sample = TEXT.str.slice(0, WORD_CHARACTERS)
    english = sample.str.count_matches(ENGLISH_WORDS)
    words = sample.str.count_matches(" ", literal=True) + 1
    return (english > 0) & (english >= 0.16 * words) & (english > 1.5 * sample.str.count_matches(FOREIGN_WORDS))


@dataclass(frozen=True)
class Rule:
    """A claim of rows for a domain."""

    domain: Domain
    steps: tuple[pl.Expr | dict[str, pl.Expr], ...]
    """Conditions, all of which must hold, cheap ones first, and columns for the conditions behind them. Each step is
    taken on the rows that met the conditions before it."""


LINES = {"lines": "\n" + TEXT + "\n"}
CODE = MARKS + density(CODE_LINES, pl.col("lines"))
# Prose about code quotes some, so the more function words there are, the more code is asked for.
CODE_ENOUGH = 1.7 + ENGLISH
CALCULATES = (HINTS >= 2) | ((RELATIONS >= 0.4) & (MARKS < RELATIONS))

RULES = (
    Rule("chat", (pl.col("chat_signs"), TEXT.str.count_matches(CHAT_MARKERS) >= 2)),
    Rule(
        "chat",
        (
            pl.col("chat_signs"),
            TEXT.str.contains(LABEL_GATE),
            {"labels": TEXT.str.replace_all(TIMESTAMP, "").str.extract_all(LABEL)},
            pl.col("labels").list.len() >= 2,
            takes_turns(),
        ),
    ),
    Rule("code", (pl.col("code_head") | ((HINTS == 0) & (MARKS >= CODE_ENOUGH)),)),
    Rule("en", (~CALCULATES & (ENGLISH >= 0.5) & (MARKS < ENGLISH),)),
    Rule("zh", (~CALCULATES & (WIDE >= 1), TEXT.str.contains(HAN_PARTICLES) & ~TEXT.str.contains(KANA))),
    Rule("math", (CALCULATES, LINES, density(MATH) > pl.max_horizontal(2.2, CODE))),
    Rule("code", ((MARKS > 0) | TEXT.str.contains(CODE_SIGNS), LINES, CODE >= CODE_ENOUGH)),
    Rule("zh", (WIDE >= 0.4, (CHARS < SCRIPT_CHARACTERS) | TEXT.str.contains(HAN_COMMON), reads_chinese())),
    Rule("en", (ENGLISH >= 0.5,)),
    Rule("en", ((WIDE < 0.4) & ((CHARS < WORD_CHARACTERS) | (ENGLISH > 0)), reads_english())),
)


def classify(texts: pl.Series) -> pl.Series:
    """The domain of each text as its place in DOMAINS, shape (rows,), UInt8. `texts` is String, without nulls.

    A row's domain depends on the first PREFIX_CHARACTERS characters of that row, and on nothing else.
    """
    other = DOMAINS.index("other")
    codes = pl.repeat(other, len(texts), dtype=pl.UInt8, eager=True)
    rows = measured(texts.rechunk())
    for rule in RULES:
        claimed = claim(rows, rule)
        if len(claimed):
            codes.scatter(claimed, DOMAINS.index(rule.domain))
            rows = rows.filter(codes.gather(rows["row"]) == other)
    return codes.alias("domain")


def measured(texts: pl.Series) -> pl.DataFrame:
    """Prefixes with what is asked of every row."""
    starts = range(0, max(len(texts), 1), BLOCK_ROWS)
    blocks = [measured_block(texts.slice(first, BLOCK_ROWS)) for first in starts]
    return pl.concat(blocks, rechunk=True).with_row_index("row")


def measured_block(texts: pl.Series) -> pl.DataFrame:
    prefix = texts.str.slice(0, PREFIX_CHARACTERS)
    return pl.DataFrame({"text": prefix, "chars": prefix.str.len_chars()}).with_columns(
        wide=(TEXT.str.len_bytes() - CHARS) / CHARS.clip(1),
        chat_signs=TEXT.str.contains(CHAT_SIGNS),
        code_head=TEXT.str.contains(CODE_HEAD),
        marks=density(CODE_MARKS),
        english=density(ENGLISH_MARKS),
        hints=hits(MATH_HINTS),
        relations=density(RELATION),
    )


def claim(rows: pl.DataFrame, rule: Rule) -> pl.Series:
    """The numbers of the rows that meet the conditions of a rule."""
    for step in rule.steps:
        rows = rows.filter(step) if isinstance(step, pl.Expr) else rows.with_columns(**step)
        if rows.is_empty():
            break
    return rows["row"]
