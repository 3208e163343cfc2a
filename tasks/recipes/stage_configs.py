"""The parts of a recipe, one for each stage; those of the model and of training lie in `model/config/`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from model.config.checks import STRICT, Range, Seed, Share, field_problems, require
from schemas.adapters import Format
from schemas.domain import Domain
from schemas.filters import FilterConfig

HUB = "hub:"
"""What is on the Hugging Face hub: `hub:OWNER/NAME`."""
MAX_ROW_TOKENS = 32_768
"""Slots of the longest packed row."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Raw rows, and their name in every report and metric."""

    __pydantic_config__ = STRICT

    name: str
    """Letters, digits, - and _; in every report and metric."""
    kind: Literal["pretrain", "chat"]
    """What it is for: pretraining, or SFT on conversations."""
    location: str
    """A path, a glob, `builtin:NAME`, an http(s), s3 or other fsspec address, or `hub:OWNER/NAME[:SPLIT]`."""
    format: Format = "minimind"
    """The shape of a row; `schemas/adapters.py` lists them."""
    merge_turns: bool = False
    """Make turns of one role in a row, a user's or an assistant's, one turn; without it such rows are quarantined."""
    domain: Domain | None = None
    """What every row of the source is about; without it each row is classified by its text."""
    weight: Annotated[float, Range(0, 100, above=True)] = 1.0
    """How often a row of the train side is seen in an epoch: 2 is twice, 0.5 is every second row."""

    licence: str = ""
    """Under which its text may be used, as SPDX names it, such as `CC-BY-4.0`; stands in the model's card. Built-in
    text has its own."""

    def __post_init__(self) -> None:
        require(field_problems(self), f"source {self.name}")
        if not self.name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"source name {self.name!r} may hold letters, digits, - and _ alone")
        if self.name in ("pretrain", "chat", "clean"):
            raise ValueError(f"source name {self.name!r} is the name of a kind or a metric; choose another name")


@dataclass(frozen=True, kw_only=True)
class ValidateConfig:
    """How many bad lines a night accepts."""

    __pydantic_config__ = STRICT

    max_bad_share: Share = 0.05
    """Quarantined lines over all lines; above it the night stops before anything is trained."""
    max_bad_share_per_file: Share = 0.5
    """The same for each file with at least `min_lines_to_judge` lines: one bad file cannot hide among good ones."""
    min_lines_to_judge: Annotated[int, Range(1, 10**9)] = 100
    """Lines that a file must have for max_bad_share_per_file to count."""
    max_line_bytes: Annotated[int, Range(1, 2**31)] = 1 << 20
    """A longer line is quarantined."""
    settle_seconds: Annotated[float, Range(0, 86_400)] = 2.0
    """A file changed more recently than this is checked twice; one that still grows is left for the next night."""
    filters: FilterConfig = field(default_factory=FilterConfig)
    """Texts that are left out though they are well formed."""

    def __post_init__(self) -> None:
        require(field_problems(self), "ValidateConfig")


@dataclass(frozen=True, kw_only=True)
class DeduplicateConfig:
    """From which similarity rows are duplicates. Exact copies, white space aside, are always left out."""

    __pydantic_config__ = STRICT

    near_threshold: Annotated[float, Range(0.5, 1)] | None = 0.8
    """Estimated Jaccard similarity of five-word shingles from which rows are near duplicates; null looks for none."""
    near: Literal["drop", "keep"] = "drop"
    """Leave near duplicates out, or keep them all on one side."""

    def __post_init__(self) -> None:
        require(field_problems(self), "DeduplicateConfig")


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Which rows are never trained on."""

    __pydantic_config__ = STRICT

    val_share: Annotated[float, Range(0, 1, above=True, below=True)] = 0.02
    """Share of clusters of near-duplicate rows that is held out."""
    val_bytes_per_slice: Annotated[int, Range(1, 10**15)] = 1_000_000
    """UTF-8 bytes of text to which each validation slice, a kind and domain, grows night by night; then it is frozen,
    and rows held out beyond it are not used."""
    salt: str = "nightschool"
    """Another salt gives another validation side, after which nights cannot be compared with earlier ones."""
    shuffle_seed: Seed = 1
    """Of the order of the rows on the train side."""

    def __post_init__(self) -> None:
        require(field_problems(self), "SplitConfig")


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """How far tonight's data may drift from the champion's, and how much of a source may be lost on the way."""

    __pydantic_config__ = STRICT

    max_drift_psi: Annotated[float, Range(0, 1_000, above=True)] | None = None
    """Population stability index of any feature above which the night stops; null reports and goes on."""
    restart_drift_psi: Annotated[float, Range(0, 1_000, above=True)] | None = None
    """The same above which pretraining begins from scratch instead of going on from the trunk; null never does."""
    warn_lost_share_per_source: Annotated[float, Range(0, 1, above=True)] = 0.5
    """Share of a source's rows that one stage may leave out before log, summary and report name the source."""
    warn_lost_answers_share: Annotated[float, Range(0, 1)] = 0.01
    """The same for a source's answers that no packed row holds; the row length that would is named, too."""
    max_lost_share_per_source: Annotated[float, Range(0, 1, above=True)] = 0.95
    """The share, of rows or answers, above which the night stops; exact copies do not count. 1 never stops it."""
    min_rows_to_judge: Annotated[int, Range(1, 10**9)] = 100
    """Rows, or answers, of a source from which it can stop the night."""

    def __post_init__(self) -> None:
        require(field_problems(self), "InspectConfig")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What a model is asked beside its scores on the validation rows."""

    __pydantic_config__ = STRICT

    prompts: tuple[str, ...] = ("Hello!", "How are you doing today?", "What do you like to do for fun?")
    """Questions that the model answers for people to read."""
    max_new_tokens: Annotated[int, Range(1, 10**6)] = 32
    """Tokens of a reply at most."""
    temperature: Annotated[float, Range(0, 1_000)] = 0.5
    """Of sampling; 0 always takes the likeliest token."""
    held_out_prompts: Annotated[int, Range(0, 10_000)] = 48
    """Beginnings of held-out conversations that are answered, too, for the shares of replies that end, repeat and keep
    the format."""
    choices: Annotated[int, Range(0, 100_000)] = 100
    """Multiple-choice questions made of held-out text: how it goes on, against how three others do."""
    seed: Seed = 1
    """Of the choice of prompts and questions."""
    harness_tasks: tuple[str, ...] = ()
    """Tasks of lm-evaluation-harness that the exported model is asked, by name."""
    harness_folder: str = ""
    """Folder with those tasks' YAML files and data; nothing is fetched."""
    audit_share: Annotated[float, Range(0, 0.5)] = 0.1
    """Share of the held-out clusters that no decision sees; they are scored apart, to tell how far a year of
    promotions overfits those that decide. 0 keeps none apart."""

    def __post_init__(self) -> None:
        problems = field_problems(self)
        if self.harness_tasks and not self.harness_folder:
            problems.append(
                f"harness_tasks ({', '.join(self.harness_tasks)}) needs harness_folder, where their files lie"
            )
        require(problems, "EvaluateConfig")


@dataclass(frozen=True, kw_only=True)
class PromoteConfig:
    """Who promotes a model, and what counts as evidence that it is better than the champion."""

    __pydantic_config__ = STRICT

    mode: Literal["auto", "ask", "never"] = "auto"
    """`auto` moves the champion on evidence; `ask` registers a challenger and says the command that promotes it;
    `never` registers alone. A night with overrides asks, unless they name the mode."""
    min_documents: Annotated[int, Range(1, 10**9)] = 50
    """Validation documents below which no model is promoted, the first one included: chance decides among fewer.
    The night warns of them before it trains."""
    min_bytes: Annotated[int, Range(1, 10**15)] = 10_000
    """The same for the UTF-8 bytes of text in them that is scored: of chat, what the assistant says."""
    false_promotions_a_year: Annotated[float, Range(0, 100, above=True)] = 1.0
    """How many models that are no better may be promoted by chance in 365 days, in expectation at most. Each
    comparison spends some of it: about a 365th where one is made every night."""
    min_gain_bpb: Annotated[float, Range(0, 100)] = 0.0
    """Bits per byte by which the challenger must be better."""
    max_domain_loss_share: Annotated[float, Range(0, 1, above=True)] = 0.01
    """Share of the champion's bits per byte by which the challenger may be worse in a domain; in one whose documents
    cannot tell so little apart, as much as they can."""
    domain_error_share: Annotated[float, Range(0, 0.5, above=True, below=True)] = 0.05
    """Probability, over all domains together, of refusing a model that is equal in all, and of not refusing one that
    is worse by more than may be in some."""
    min_domain_clusters: Annotated[int, Range(2, 10**9)] = 30
    """Clusters of near duplicates below which a domain is not judged by itself."""
    max_cluster_share: Annotated[float, Range(0, 1, above=True)] = 0.02
    """Share of the bytes that one cluster of validation documents counts for at most: a long text must not decide
    alone."""
    max_pretrain_regression_share: Annotated[float, Range(0, 10)] = 0.01
    """Share of the champion's bits per byte on text by which the final model, after SFT, may be worse there."""
    max_more_dead_experts: Annotated[int, Range(0, 10**6)] = 1
    """How many more dead experts than the champion's the new model may have."""
    max_repetition_rise: Annotated[float, Range(0, 1)] = 0.25
    """How much the share of repetition in sampled replies may rise over the champion's."""
    max_self_ending_fall: Annotated[float, Range(0, 1)] = 0.25
    """How much the share of sampled replies that end by themselves may fall under the champion's."""
    max_contaminated_share: Annotated[float, Range(0, 1)] = 0.25
    """Share of the validation bytes that may stand in documents which the train side repeats."""
    resamples: Annotated[int, Range(100, 10**6)] = 10_000
    """Of the bootstrap over clusters."""
    seed: Seed = 1
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        require(field_problems(self), "PromoteConfig")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How text becomes rows of tokens."""

    __pydantic_config__ = STRICT

    tokenizer: str = ""
    """A folder with tokenizer.json, or `hub:OWNER/NAME`; empty trains a byte-level BPE of `vocab_size` entries."""
    sequence_length_tokens: Annotated[int, Range(16, MAX_ROW_TOKENS)] = 512
    """Slots of one packed row."""

    def __post_init__(self) -> None:
        require(field_problems(self), "DataConfig")
