"""A recipe: everything that decides what a night does. Named ones are in prefect.yaml; a user's own, in files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from data.sides.rules import SideRules
from model.config.checks import STRICT, require
from model.config.exportable import export_obstacles
from model.config.network import ModelConfig
from model.config.phases import phase_problems
from tasks.errors import NightStopped
from tasks.recipes.alarm_config import AlarmConfig
from tasks.recipes.data_identity import DataIdentity, identity_from
from tasks.recipes.overrides import GONE, gone, set_dotted
from tasks.recipes.pretrain_config import PretrainConfig
from tasks.recipes.retention_config import RetentionConfig
from tasks.recipes.sft_config import SftConfig
from tasks.recipes.stage_configs import (
    DataConfig,
    DeduplicateConfig,
    EvaluateConfig,
    InspectConfig,
    PromoteConfig,
    SourceConfig,
    SplitConfig,
    ValidateConfig,
)

NAME_CHARACTERS = 100


def side_rules(recipe: Recipe) -> SideRules:
    """The part of a recipe that decides on which side, train or validation, a row is."""
    split = recipe.split
    return SideRules(
        val_share=split.val_share, salt=split.salt, shuffle_seed=split.shuffle_seed,
        val_bytes_per_slice=split.val_bytes_per_slice, weights={s.name: s.weight for s in recipe.sources},
    )  # fmt: skip


def data_identity(recipe: Recipe) -> DataIdentity:
    """The part of a recipe that decides whether its models can be compared with others."""
    split = {
        "split.val_share": recipe.split.val_share,
        "split.salt": recipe.split.salt,
        "deduplicate.near_threshold": recipe.deduplicate.near_threshold,
    }
    return identity_from(recipe.name, split, [dataclasses.asdict(source) for source in recipe.sources])


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One night. The defaults are the small CPU recipe; prefect.yaml holds the named ones."""

    __pydantic_config__ = STRICT

    name: str
    """What nights, files and the registered model are called by."""
    sources: tuple[SourceConfig, ...]
    """Raw rows; at least one source of each kind."""
    validate: ValidateConfig = field(default_factory=ValidateConfig)
    """How many bad lines the night accepts."""
    deduplicate: DeduplicateConfig = field(default_factory=DeduplicateConfig)
    """From which similarity rows are duplicates."""
    split: SplitConfig = field(default_factory=SplitConfig)
    """Which rows are never trained on."""
    data: DataConfig = field(default_factory=DataConfig)
    """How text becomes rows of tokens."""
    inspect: InspectConfig = field(default_factory=InspectConfig)
    """How far tonight's data may drift from the champion's."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The model at the end of the night."""
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    """Training on text, and how it goes on from night to night."""
    sft: SftConfig = field(default_factory=SftConfig)
    """Training on conversations, from the weights of pretraining."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """What is generated for people to read."""
    promote: PromoteConfig = field(default_factory=PromoteConfig)
    """When the new model takes the place of the champion."""
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    """How long nights' folders, runs and notes are kept; no other model."""
    alarms: AlarmConfig = field(default_factory=AlarmConfig)
    """When a person is told of the outcome."""
    twin: bool = False
    """Whether the night also trains the model's dense twin, on the same tokens, to measure what the experts gain."""

    def __post_init__(self) -> None:
        problems = []
        letters = self.name.replace("-", "").replace("_", "").replace(".", "")
        if not letters.isalnum() or len(self.name) > NAME_CHARACTERS:
            problems.append(
                f"name ({self.name!r:.80}) may hold letters, digits, -, _ and . alone, {NAME_CHARACTERS} at most: "
                "files and a registered model are called after it"
            )
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
        if self.evaluate.max_new_tokens >= self.model.max_position_embeddings:
            problems.append(
                f"evaluate.max_new_tokens ({self.evaluate.max_new_tokens}) must be below "
                f"model.max_position_embeddings ({self.model.max_position_embeddings}), to leave room for a prompt"
            )
        if self.twin and self.model.dense:
            problems.append(
                "twin (true) with model.dense (true): a dense model is its own twin; set one of them to false"
            )
        problems += [f"model.{obstacle}" for obstacle in export_obstacles(self.model)]
        steps = self.pretrain.num_steps(self.data.sequence_length_tokens)
        changes = phase_problems(self.model, self.pretrain.expert_changes, steps)
        problems += [f"pretrain.expert_changes.{problem}" for problem in changes]
        problems += [f"pretrain.{problem}" for problem in self.pretrain.trunk_problems()]
        if self.sft.expert_changes:
            problems.append(
                f"sft.expert_changes ({len(self.sft.expert_changes)}): experts change in pretraining alone, whose last "
                "model SFT begins with; move them to pretrain.expert_changes, at_share: 1 is just before SFT"
            )
        require(problems, f"recipe {self.name}")

    def with_overrides(self, overrides: Mapping[str, Any]) -> Recipe:
        """A copy with some values replaced: `{"pretrain.optim.peak_lr": 0.001}`.

        A model of other settings is a trial until somebody says otherwise: it is promoted by itself only if the
        overrides name the mode. A twin beside it, what is kept afterwards, or who is told, makes no other model.
        Raises NightStopped if a key does not exist or a value does not fit.
        """
        content = dataclasses.asdict(self)
        for dotted, value in overrides.items():
            set_dotted(content, dotted, value)
        changed = recipe_from(content)
        same_model = replace(changed, twin=self.twin, retention=self.retention, alarms=self.alarms) == self
        if same_model or changed.promote.mode != "auto" or names_mode(overrides):
            return changed
        return replace(changed, promote=replace(changed.promote, mode="ask"))

    def dense_twin(self) -> Recipe:
        """The same recipe for a dense model: one block as wide as the experts a token passes, and no router."""
        dense, unchanged = replace(self.model, dense=True), replace(self.pretrain, expert_changes=())
        return replace(self, model=dense, pretrain=unchanged, twin=False)


def names_mode(overrides: Mapping[str, Any]) -> bool:
    """Whether overrides say who promotes."""
    block = overrides.get("promote")
    return "promote.mode" in overrides or (isinstance(block, Mapping) and "mode" in block)


@cache
def type_of_recipes() -> TypeAdapter[Recipe]:
    """Made once, as it takes longer than all else that a recipe needs; not at import, for those who need none."""
    return TypeAdapter(Recipe)


def recipe_from(content: Mapping[str, Any]) -> Recipe:
    """Build a recipe from plain values. Raises NightStopped with all problems in one message, ten at most in full."""
    try:
        recipe = type_of_recipes().validate_python(content)
        problems = [f"  {name}: {why}" for name, why in mistaken_booleans(content, recipe)]
    except ValidationError as error:
        named = [(".".join(str(p) for p in e["loc"]) or "recipe", e) for e in error.errors()]
        problems = [f"  {gone(name)}" if name in GONE else f"  {name}: {in_words(e)}" for name, e in named]
    if problems:
        more = [f"  and {len(problems) - 10} more"] if len(problems) > 10 else []
        raise NightStopped("\n".join(["the recipe is not valid:", *problems[:10], *more]))
    return recipe


def in_words(problem: ErrorDetails) -> str:
    """What is wrong with a value: what our own checks say, or what pydantic does, with the value."""
    if problem["type"] in ("value_error", "assertion_error"):
        return problem["msg"].partition(", ")[2]
    return problem["msg"] if problem["type"] == "missing" else f"{problem['msg']}, not {problem['input']!r:.80}"


def mistaken_booleans(content: object, built: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Values that are true or false where a number is meant: Python takes them for 1 and 0."""
    if isinstance(content, Mapping):
        of = built if isinstance(built, Mapping) else vars(built)
        for key, value in content.items():
            yield from mistaken_booleans(value, of[key], f"{name}.{key}".lstrip("."))
    elif isinstance(content, list | tuple) and isinstance(built, list | tuple):
        for number, (value, entry) in enumerate(zip(content, built, strict=True)):
            yield from mistaken_booleans(value, entry, f"{name}.{number}")
    elif isinstance(content, bool) and not isinstance(built, bool):
        yield name, f"must not be {str(content).lower()}, which is no number"


def plain_recipe(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, as prefect.yaml writes it."""
    return dict(json.loads(json.dumps(dataclasses.asdict(recipe))))


def as_params(recipe: Recipe) -> dict[str, str]:
    """The recipe flattened to the parameters of a tracking run."""
    return flattened(dataclasses.asdict(recipe))


def params_of_stage(stage: str, config: object) -> dict[str, str]:
    """What decides a stage's work, as plain values, under the names that its night's parameters have.

    Fields of a recipe keep their names; everything else is the stage's own.
    """
    fields = {field.name for field in dataclasses.fields(Recipe)}
    flat: dict[str, str] = {}
    for name, value in config.items() if isinstance(config, dict) else ():
        own = stage if name == "train" else f"{stage}.{name}"
        flat |= flattened(value, name if name in fields else own)
    return flat


def flattened(value: object, prefix: str = "") -> dict[str, str]:
    """Plain values by dotted name; a list is one value, as JSON."""
    if isinstance(value, dict):
        items = (flattened(item, f"{prefix}.{key}" if prefix else key) for key, item in value.items())
        return {name: text for flat in items for name, text in flat.items()}
    return {prefix: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}
