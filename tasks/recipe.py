"""A recipe: everything that decides what a night does. Recipes live in prefect.yaml and nowhere else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from model.checks import STRICT, require
from model.config import DataConfig, ModelConfig, TrainConfig
from model.exportable import export_obstacles
from model.phases import phase_problems
from tasks.errors import NightStopped
from tasks.stage_configs import (
    DeduplicateConfig,
    EvaluateConfig,
    InspectConfig,
    PromoteConfig,
    SourceConfig,
    SplitConfig,
    ValidateConfig,
)

DEPLOYMENTS = Path(__file__).resolve().parent.parent / "prefect.yaml"
ENTRYPOINT = "flows.retrain_nightly:retrain_nightly"


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
    twin: bool = False
    """Whether the night also trains the model's dense twin, on the same tokens, to say what the experts are worth."""

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
        if self.twin and self.model.dense:
            problems.append(
                "twin (true) with model.dense (true): a dense model is its own twin; set one of them to false"
            )
        problems += [f"model.{obstacle}" for obstacle in export_obstacles(self.model)]
        steps = self.pretrain.num_steps(self.data.sequence_length_tokens)
        changes = phase_problems(self.model, self.pretrain.expert_changes, steps)
        problems += [f"pretrain.expert_changes.{problem}" for problem in changes]
        if self.sft.expert_changes:
            problems.append(
                f"sft.expert_changes ({len(self.sft.expert_changes)}): experts change in pretraining alone, whose last "
                "model SFT begins with; move them to pretrain.expert_changes, at_share: 1 is just before SFT"
            )
        require(problems, f"recipe {self.name}")

    def with_overrides(self, overrides: Mapping[str, Any]) -> Recipe:
        """A copy with some values replaced: `{"pretrain.optim.peak_lr": 0.001}`.

        Raises NightStopped if a key does not exist or a value does not fit.
        """
        content = dataclasses.asdict(self)
        for dotted, value in overrides.items():
            set_dotted(content, dotted, value)
        return recipe_from(content)

    def dense_twin(self) -> Recipe:
        """The same but for a model with one block as wide as what a token passes of the experts, and no router."""
        dense, unchanged = replace(self.model, dense=True), replace(self.pretrain, expert_changes=())
        return replace(self, model=dense, pretrain=unchanged, twin=False)


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
