"""A recipe: everything that decides what a night does. Recipes live in prefect.yaml and nowhere else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import TypeAdapter, ValidationError

from model.checks import STRICT, require
from model.config import DataConfig, ModelConfig, TrainConfig
from model.exportable import export_obstacles
from schemas.adapters import Format
from schemas.domain import Domain
from schemas.filters import FilterConfig
from tasks.errors import NightStopped

DEPLOYMENTS = Path(__file__).resolve().parent.parent / "prefect.yaml"
ENTRYPOINT = "flows.retrain_nightly:retrain_nightly"


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Raw jsonl, and what it is called in every report and metric."""

    __pydantic_config__ = STRICT

    name: str
    kind: Literal["pretrain", "chat"]
    location: str
    """A path, a glob, `builtin:NAME`, an http(s), s3 or other fsspec address, or `hub:OWNER/NAME[:SPLIT]`."""
    format: Format = "minimind"
    """The shape of a row; `schemas/adapters.py` lists them."""
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
            raise ValueError(f"source name {self.name!r} is a kind or a metric; the two could not be told apart")


@dataclass(frozen=True, kw_only=True)
class ValidateConfig:
    """How much dirt is bearable."""

    __pydantic_config__ = STRICT

    max_bad_share: float = 0.05
    """Quarantined lines over all lines; above it the night stops before anything is trained."""
    max_bad_share_per_file: float = 0.5
    """The same for each file with at least `min_lines_to_judge` lines: one spoilt file cannot hide among good ones."""
    min_lines_to_judge: int = 100
    max_line_bytes: int = 1 << 20
    settle_seconds: float = 2.0
    """A file changed more recently than this is looked at twice; one that still grows is left for the next night."""
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
    """How alike is too alike. Exact copies, white space aside, are always left out."""

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
    """UTF-8 bytes of text in each frozen validation slice, a kind and domain; what is held out beyond it rests."""
    salt: str = "nightschool"
    """Another salt gives another validation side; keep it, or nights stop being comparable."""
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
    """How far tonight's data may be from the champion's."""

    __pydantic_config__ = STRICT

    max_drift_psi: float | None = None
    """Population stability index of any feature above which the night stops; null reports and goes on."""

    def __post_init__(self) -> None:
        if self.max_drift_psi is not None and self.max_drift_psi <= 0:
            raise ValueError(f"max_drift_psi ({self.max_drift_psi}) must be above 0, or null")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is asked of a model besides its score."""

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
class Recipe:
    """One night. The defaults are the small CPU recipe; prefect.yaml holds the named ones."""

    __pydantic_config__ = STRICT

    name: str
    sources: tuple[SourceConfig, ...]
    validate: ValidateConfig = field(default_factory=ValidateConfig)
    deduplicate: DeduplicateConfig = field(default_factory=DeduplicateConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    data: DataConfig = field(default_factory=DataConfig)
    inspect: InspectConfig = field(default_factory=InspectConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    pretrain: TrainConfig = field(default_factory=TrainConfig)
    sft: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    promote: PromoteConfig = field(default_factory=PromoteConfig)

    def __post_init__(self) -> None:
        problems = []
        kinds = {source.kind for source in self.sources}
        for kind in ("pretrain", "chat"):
            if kind not in kinds:
                problems.append(f"sources has none of kind {kind}; pretraining and SFT need one each")
        names = [source.name for source in self.sources]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            problems.append(f"source names must differ, {', '.join(repeated)} appears more than once")
        if self.data.sequence_length_tokens > self.model.max_position_embeddings:
            problems.append(
                f"data.sequence_length_tokens ({self.data.sequence_length_tokens}) is over "
                f"model.max_position_embeddings ({self.model.max_position_embeddings})"
            )
        problems += [f"model.{obstacle}" for obstacle in export_obstacles(self.model)]
        require(problems, f"recipe {self.name}")

    def with_overrides(self, overrides: Mapping[str, Any]) -> Recipe:
        """A copy with some values replaced: `{"pretrain.optim.peak_lr": 0.001}`.

        Raises NightStopped if a key does not exist or a value does not fit.
        """
        content = dataclasses.asdict(self)
        for dotted, value in overrides.items():
            set_dotted(content, dotted, value)
        return recipe_from(content)


def set_dotted(content: Any, dotted: str, value: Any) -> None:
    """Set `a.b.0.c` in nested dictionaries and lists. Raises NightStopped naming the keys there are."""
    *parents, last = dotted.split(".")
    here = content
    for step in parents:
        here = here[checked(dotted, here, step)]
    if not isinstance(here, dict):
        raise NightStopped(f"no setting {dotted!r}: name a field, not a whole list entry")
    here[checked(dotted, here, last)] = value


def checked(dotted: str, here: Any, step: str) -> str | int:
    """`step` as a key of `here`, or NightStopped."""
    keys = here if isinstance(here, dict) else map(str, range(len(here))) if isinstance(here, list | tuple) else ()
    choices = list(keys)
    if step not in choices:
        raise NightStopped(f"no setting {dotted!r}: {step!r} is none of {', '.join(choices) or 'nothing'}")
    return step if isinstance(here, dict) else int(step)


def recipe_from(content: Mapping[str, Any]) -> Recipe:
    """Build a recipe from plain values, reporting every problem at once."""
    try:
        return TypeAdapter(Recipe).validate_python(content)
    except ValidationError as error:
        problems = [f"  {'.'.join(str(p) for p in e['loc']) or 'recipe'}: {e['msg']}" for e in error.errors()]
        more = [f"  and {len(problems) - 10} more"] if len(problems) > 10 else []
        raise NightStopped("\n".join(["the recipe is not valid:", *problems[:10], *more])) from None


def recipe_names(path: Path = DEPLOYMENTS) -> list[str]:
    """Names of the deployments that run a night."""
    return [d["name"] for d in read_deployments(path) if d["entrypoint"] == ENTRYPOINT]


def read_deployments(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load(path.read_text(encoding="utf-8"))["deployments"])


def load_recipe(name: str, path: Path = DEPLOYMENTS) -> Recipe:
    """The recipe of deployment `name`. Raises NightStopped if there is none."""
    for deployment in read_deployments(path):
        if deployment["name"] == name and deployment["entrypoint"] == ENTRYPOINT:
            return recipe_from(deployment["parameters"]["recipe"])
    raise NightStopped(f"no recipe {name!r}; prefect.yaml has {', '.join(recipe_names(path))}")


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """`key.path=value` pairs, values as YAML. Raises NightStopped if one has no `=`."""
    overrides = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise NightStopped(f"--set takes key.path=value, not {pair!r}")
        try:
            overrides[key] = read_value(value)
        except yaml.YAMLError as error:
            raise NightStopped(f"--set {key}: {value!r} is no YAML value: {str(error).splitlines()[0]}") from None
    return overrides


def read_value(text: str) -> Any:
    """YAML, but 1e-3 is a number as everywhere else."""
    try:
        return float(text) if not text.lstrip("-").isdigit() else int(text)
    except ValueError:
        return yaml.safe_load(text)


def plain_recipe(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, as prefect.yaml writes it."""
    return dict(json.loads(json.dumps(dataclasses.asdict(recipe))))


def as_params(recipe: Recipe) -> dict[str, str]:
    """The recipe flattened to the parameters of a tracking run."""
    flat: dict[str, str] = {}

    def walk(prefix: str, value: object) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                walk(f"{prefix}.{key}" if prefix else key, item)
        else:
            flat[prefix] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    walk("", dataclasses.asdict(recipe))
    return flat
