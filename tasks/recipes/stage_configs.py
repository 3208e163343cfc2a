"""The parts of a recipe, one for each stage; those of the model and of training lie in `model/config/`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from model.config.checks import STRICT, require
from schemas.adapters import Format
from schemas.domain import Domain
from schemas.filters import FilterConfig

HUB = "hub:"
"""What is on the Hugging Face hub: `hub:OWNER/NAME`."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Raw rows, and their name in every report and metric."""

    __pydantic_config__ = STRICT

    name: str
    kind: Literal["pretrain", "chat"]
    location: str
    """A path, a glob, `builtin:NAME`, an http(s), s3 or other fsspec address, or `hub:OWNER/NAME[:SPLIT]`."""
    format: Format = "minimind"
    """The shape of a row; `schemas/adapters.py` lists them."""
    merge_turns: bool = False
    """Make turns of one role in a row, a user's or an assistant's, one turn; without it such rows are quarantined."""
    domain: Domain | None = None
    """What every row of the source is about; without it each row is classified by its text."""
    weight: float = 1.0
    """How often a row of the train side is seen in an epoch: 2 is twice, 0.5 is every second row."""

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 100:
            raise ValueError(f"source {self.name}: weight ({self.weight}) must lie above 0 and up to 100")
        if not self.name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"source name {self.name!r} may hold letters, digits, - and _ alone")
        if self.name in ("pretrain", "chat", "clean"):
            raise ValueError(f"source name {self.name!r} is the name of a kind or a metric; choose another name")


@dataclass(frozen=True, kw_only=True)
class ValidateConfig:
    """How many bad lines a night accepts."""

    __pydantic_config__ = STRICT

    max_bad_share: float = 0.05
    """Quarantined lines over all lines; above it the night stops before anything is trained."""
    max_bad_share_per_file: float = 0.5
    """The same for each file with at least `min_lines_to_judge` lines: one bad file cannot hide among good ones."""
    min_lines_to_judge: int = 100
    max_line_bytes: int = 1 << 20
    settle_seconds: float = 2.0
    """A file changed more recently than this is checked twice; one that still grows is left for the next night."""
    filters: FilterConfig = field(default_factory=FilterConfig)

    def __post_init__(self) -> None:
        problems = []
        for name in ("max_bad_share", "max_bad_share_per_file"):
            if not 0 <= getattr(self, name) <= 1:
                problems.append(f"{name} ({getattr(self, name)}) must lie between 0 and 1")
        if self.max_line_bytes < 1:
            problems.append(f"max_line_bytes ({self.max_line_bytes}) must be at least 1")
        require(problems, "ValidateConfig")


@dataclass(frozen=True, kw_only=True)
class DeduplicateConfig:
    """From which similarity rows are duplicates. Exact copies, white space aside, are always left out."""

    __pydantic_config__ = STRICT

    near_threshold: float | None = 0.8
    """Estimated Jaccard similarity of five-word shingles from which rows are near duplicates; null looks for none."""
    near: Literal["drop", "keep"] = "drop"
    """Leave near duplicates out, or keep them all on one side."""

    def __post_init__(self) -> None:
        if self.near_threshold is not None and not 0.5 <= self.near_threshold <= 1:
            raise ValueError(f"near_threshold ({self.near_threshold}) must lie between 0.5 and 1, or be null")


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Which rows are never trained on."""

    __pydantic_config__ = STRICT

    val_share: float = 0.02
    """Share of clusters of near-duplicate rows that is held out."""
    val_bytes_per_slice: int = 1_000_000
    """UTF-8 bytes of text in each frozen validation slice, a kind and domain; rows held out beyond it are not used."""
    salt: str = "nightschool"
    """Another salt gives another validation side, after which nights cannot be compared with earlier ones."""
    shuffle_seed: int = 1

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.val_share < 1:
            problems.append(f"val_share ({self.val_share}) must lie between 0 and 1, both excluded")
        if self.val_bytes_per_slice < 1:
            problems.append(f"val_bytes_per_slice ({self.val_bytes_per_slice}) must be at least 1")
        require(problems, "SplitConfig")


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """How far tonight's data may drift from the champion's."""

    __pydantic_config__ = STRICT

    max_drift_psi: float | None = None
    """Population stability index of any feature above which the night stops; null reports and goes on."""

    def __post_init__(self) -> None:
        if self.max_drift_psi is not None and self.max_drift_psi <= 0:
            raise ValueError(f"max_drift_psi ({self.max_drift_psi}) must be above 0, or null")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """The samples that are generated for people to read, beside the scores."""

    __pydantic_config__ = STRICT

    prompts: tuple[str, ...] = ("Hello!", "How are you doing today?", "What do you like to do for fun?")
    max_new_tokens: int = 32
    temperature: float = 0.5


@dataclass(frozen=True, kw_only=True)
class PromoteConfig:
    """What counts as evidence that the challenger is better than the champion."""

    __pydantic_config__ = STRICT

    confidence: float = 0.95
    """One-sided confidence that the challenger needs fewer bits per byte on the same documents."""
    min_gain_bpb: float = 0.0
    resamples: int = 2_000
    seed: int = 1

    def __post_init__(self) -> None:
        problems = []
        if not 0.5 <= self.confidence < 1:
            problems.append(f"confidence ({self.confidence}) must lie in [0.5, 1)")
        if self.resamples < 100:
            problems.append(f"resamples ({self.resamples}) must be at least 100")
        require(problems, "PromoteConfig")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How text becomes rows of tokens."""

    __pydantic_config__ = STRICT

    tokenizer: str = ""
    """A folder with tokenizer.json, or `hub:OWNER/NAME`; empty trains a byte-level BPE of `vocab_size` entries."""
    sequence_length_tokens: int = 512
    """Slots of one packed row."""

    def __post_init__(self) -> None:
        problems = []
        if not 16 <= self.sequence_length_tokens <= 32_768:
            problems.append(f"sequence_length_tokens ({self.sequence_length_tokens}) must lie between 16 and 32768")
        require(problems, "DataConfig")
