"""What the card of a model says, gathered from what a night made."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import psutil
import torch

from data.rows.statistics import STATISTICS, NightStatistics
from schemas.domain import DOMAINS
from tasks.home.records import StageRecord
from tasks.home.stage_table import entry_of
from tasks.pages.model_card import ModelFacts, SourceOnCard, TrainingOnCard, model_card
from tasks.pages.text import plural
from tasks.recipes.recipe import Recipe
from tasks.recipes.stage_configs import SourceConfig
from tasks.sources.builtin import origin_of

LANGUAGES = {"en": "en", "zh": "zh"}
"""Codes of ISO 639 by domain."""
LEAST_SHARE = 0.01
"""Of the rows, from which a model is said to know a language."""
NIGHTS_SHOWN = 12


def card_of(
    recipe: Recipe,
    day: str,
    trained: StageRecord,
    data: StageRecord,
    figures: Mapping[str, float],
    reason: str,
    evidence: Mapping[str, float | bool],
    nights: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The model's card.

    day: of the night. trained: the last training stage. data: tonight's data report. figures: by metric.
    reason, evidence: of the decision. nights: that the weights went through, as the night's note has them.
    """  # fmt: skip
    model = recipe.model
    statistics = NightStatistics.from_dict(json.loads((data.path / STATISTICS).read_text(encoding="utf-8")))
    stages = training_stages(trained)
    kind = "dense" if model.dense else "mixture of experts"
    return model_card(
        ModelFacts(
            recipe=recipe.name, day=day,
            size=f"{model.total_parameters:,} parameters, {model.active_parameters:,} active, {kind}",
            architecture="qwen3" if model.dense else "qwen3_moe", max_tokens=model.max_position_embeddings,
            languages=languages_of(statistics), sources=[on_card(source, statistics) for source in recipe.sources],
            trainings=[training_of(record) for record in stages], hardware=hardware(), figures=figures, decision=reason,
            evidence=evidence, lineage=lineage_lines(nights),
        )
    )  # fmt: skip


def on_card(source: SourceConfig, statistics: NightStatistics) -> SourceOnCard:
    """What a card says of a source: its own licence, or that of the built-in text. No path of this machine, and nothing
    of an address that lets one in."""
    origin, licence = origin_of(source.location)
    known = statistics.fates.get(source.name)
    if not origin:
        elsewhere = "://" in source.location or source.location.startswith("hub:")
        origin = without_access(source.location) if elsewhere else "a file"
    return SourceOnCard(
        name=source.name, kind=source.kind, rows=known.kept if known else None, origin=origin,
        licence=source.licence or licence,
    )  # fmt: skip


def without_access(address: str) -> str:
    """An address without user and password, and one of the web without its query, which may be a signature. Elsewhere a
    question mark stands for any character."""
    scheme, mark, rest = address.partition("://")
    if not mark:
        return address
    host, slash, path = rest.partition("/")
    if scheme in ("http", "https"):
        path = path.partition("?")[0].partition("#")[0]
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def languages_of(statistics: NightStatistics) -> list[str]:
    """Languages of at least LEAST_SHARE of the rows, the commonest first."""
    rows = {domain: profile.rows for domain, profile in statistics.by_domain.domains.items()}
    least = LEAST_SHARE * sum(rows.values())
    common = sorted((name for name in DOMAINS if rows.get(name, 0) > least), key=lambda name: -rows[name])
    return [LANGUAGES[name] for name in common if name in LANGUAGES]


def training_stages(trained: StageRecord) -> list[StageRecord]:
    """The training stage that ended with the model, and before it those that it started from, as far as they are
    there."""
    stages = [trained]
    while start := entry_of(stages[0].stage).starts_from:
        wanted = set(stages[0].inputs.values())
        folders = sorted(trained.path.parent.glob(f"{start}@*"))
        found = (record for folder in folders if (record := StageRecord.read(folder)) and record.digest in wanted)
        before = next(found, None)
        if before is None:
            return stages
        stages.insert(0, before)
    return stages


def training_of(record: StageRecord) -> TrainingOnCard:
    optim = record.config["train"]["optim"]
    shares = f"{optim['warmup_share']:.0%} warm-up, {optim['stable_share']:.0%} constant"
    return TrainingOnCard(
        stage=record.name, tokens=record.counts.get("tokens_seen", 0), steps=record.last_step,
        peak_lr=float(optim["peak_lr"]), schedule=f"{shares}, then {optim['decay']} decay",
        seconds=record.seconds,
    )  # fmt: skip


def hardware() -> str:
    """What the model was trained on, if it was trained on this machine."""
    if torch.cuda.is_available():
        return f"{plural(torch.cuda.device_count(), 'GPU')} ({torch.cuda.get_device_name()})"
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    return f"{plural(cores, 'core')} of a CPU ({platform.machine()}), no GPU"


def lineage_lines(nights: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each night, the oldest first."""
    left_out = len(nights) - NIGHTS_SHOWN
    lines = [night_line(night) for night in nights[-NIGHTS_SHOWN:]]
    return [f"{plural(left_out, 'earlier night')}", *lines] if left_out > 0 else lines


def night_line(night: Mapping[str, Any]) -> str:
    """A night in words, of what is known of it."""
    parts = [f"night of {night.get('day') or 'an unknown day'}"]
    if night.get("version"):
        parts.append(f"version {night['version']}")
    if night.get("began"):
        parts.append(str(night["began"]))
    for name in ("night", "data", "tokenizer", "code"):
        if value := night.get(name):
            parts.append(f"{name} {str(value)[:12]}")
    return ", ".join(parts)
