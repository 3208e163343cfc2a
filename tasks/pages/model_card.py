"""The card of a registered model: what it is, where it comes from, how well it does, what it is not for and how it is
used. Markdown with a head of YAML, as hubs of models read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import yaml

from tasks.pages.text import markdown_line

REASON_CHARACTERS = 500
FIGURES = {
    "val/bpb": "bits per byte of the validation side",
    "val/perplexity": "perplexity of the validation side",
    "export/logit_difference": "largest difference of logits between transformers and the trainer",
}
LICENCES_OF_HUBS = {
    "afl-3.0", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-3.0",
    "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "gpl-2.0", "gpl-3.0", "agpl-3.0", "lgpl-3.0", "mit", "mpl-2.0",
    "odc-by", "odbl", "openrail", "pddl", "unlicense", "wtfpl", "isc",
}  # fmt: skip
"""What Hugging Face's hub knows as a licence, in its spelling; any other is `other` there, with a name."""
NOT_STATED = "not stated"
CARD = """\
# {model}

A chat model that recipe {shown} of Nightschool trained {night}: {size}.
It reads and writes {max_tokens:,} tokens at most, prompt and reply together.

## Data

| source | for | rows | taken from | licence |
|---|---|---:|---|---|
{sources}
Rows are those left after quarantine and deduplication, both sides together. `training-data.json` holds their
statistics.{unstated}

## Training

| stage | tokens | optimizer steps | peak learning rate | schedule | time |
|---|---:|---:|---:|---|---:|
{trainings}
Hardware: {hardware}.

## How well it does

{figures}- when it was registered: {decision}
{evidence}
## Lineage

{lineage}
## What it is not for

A model of this size, trained on this little text, makes up what it says: nothing of it is to be relied on, and nobody
is to be advised, judged or decided about by it. No harmful, personal or copied text was filtered from its replies, and
it was not tested for bias or safety. It knows no more languages than its data. The figures above are on held-out text
of the same sources, and say nothing about other text.

## Use

This folder is a model of Hugging Face and of MLflow at once. In Python:

    pipeline = transformers.pipeline("text-generation", model="this folder")
    model = mlflow.pyfunc.load_model("models:/{model}@champion")
    model.predict({{"messages": [{{"role": "user", "content": "Hello!"}}], "max_tokens": 32, "temperature": 0.0}})

As a server, with an engine of your choice:

    mlflow models serve -m "this folder" --env-manager local
    transformers serve "this folder"
    vllm serve "this folder"

A marker that someone types into a message, such as `<|im_end|>`, stays text, as in training.
"""


@dataclass(frozen=True, kw_only=True)
class SourceOnCard:
    """What a model learnt from."""

    name: str
    kind: str
    rows: int | None
    """None where the statistics do not know the source."""
    origin: str
    licence: str
    """As the recipe or the built-in text states it; empty if nothing does."""


@dataclass(frozen=True, kw_only=True)
class TrainingOnCard:
    """One training stage of a model."""

    stage: str
    tokens: int
    steps: int
    peak_lr: float
    schedule: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """All that a card says."""

    recipe: str
    day: str
    """Of the night; may be empty."""
    size: str
    """A phrase."""
    architecture: str
    """transformers' `model_type`."""
    max_tokens: int
    languages: Sequence[str]
    """Codes of ISO 639."""
    sources: Sequence[SourceOnCard]
    trainings: Sequence[TrainingOnCard]
    """In order."""
    hardware: str
    figures: Mapping[str, float]
    """By metric; those that are known here are shown."""
    decision: str
    evidence: Mapping[str, float | bool]
    """Numbers of the decision."""
    lineage: Sequence[str]
    """The nights that its weights went through, a line each, the oldest first."""


def model_card(facts: ModelFacts) -> str:
    """The card."""
    unstated = [source.name for source in facts.sources if not source.licence]
    known = [f"- {said}: {facts.figures[name]:.4g}\n" for name, said in FIGURES.items() if name in facts.figures]
    body = CARD.format(
        model=f"nightschool-{facts.recipe}", shown=markdown_line(facts.recipe),
        night=f"in the night of {facts.day}" if facts.day else "in a night", size=facts.size,
        max_tokens=facts.max_tokens, sources="".join(map(source_row, facts.sources)),
        unstated=unstated_note(unstated), trainings="".join(map(training_row, facts.trainings)),
        hardware=markdown_line(facts.hardware), figures="".join(known),
        decision=markdown_line(facts.decision, REASON_CHARACTERS), evidence="".join(evidence_lines(facts.evidence)),
        lineage="".join(f"- {markdown_line(line, REASON_CHARACTERS)}\n" for line in facts.lineage)
        or "Its weights come from this one night, from random ones.\n",
    )  # fmt: skip
    return f"---\n{head(facts)}---\n\n{body}"


def head(facts: ModelFacts) -> str:
    """The YAML that hubs of models read."""
    content: dict[str, object] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        **({"language": list(facts.languages)} if facts.languages else {}),
        **licence_of([source.licence for source in facts.sources]),
        "tags": ["nightschool", facts.architecture, facts.recipe],
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def licence_of(licences: Sequence[str]) -> dict[str, str]:
    """How a hub names the licences of the data together: the one that all have, `other`, or `unknown` if any is."""
    different = sorted({licence.lower() for licence in licences})
    if not different or "" in different:
        return {"license": "unknown"}
    if len(different) == 1 and different[0] in LICENCES_OF_HUBS:
        return {"license": different[0]}
    return {"license": "other", "license_name": "those-of-the-data", "license_link": "README.md"}


def unstated_note(names: Sequence[str]) -> str:
    """A sentence that names the sources without a licence; empty if there is none."""
    if not names:
        return ""
    return f" No licence is stated of {', '.join(map(markdown_line, names))}: find out before you pass the model on."


def source_row(source: SourceOnCard) -> str:
    rows = "" if source.rows is None else f"{source.rows:,}"
    cells = (source.name, source.kind, rows, source.origin, source.licence or NOT_STATED)
    return f"| {' | '.join(map(markdown_line, cells))} |\n"


def training_row(training: TrainingOnCard) -> str:
    minutes, seconds = divmod(round(training.seconds), 60)
    cells = (
        training.stage, f"{training.tokens:,}", f"{training.steps:,}", f"{training.peak_lr:g}", training.schedule,
        f"{minutes} min {seconds} s",
    )  # fmt: skip
    return f"| {' | '.join(map(markdown_line, cells))} |\n"


def evidence_lines(evidence: Mapping[str, float | bool]) -> Iterator[str]:
    """The numbers of a decision, those that are no yes or no."""
    for name, value in evidence.items():
        if not isinstance(value, bool):
            yield f"- {markdown_line(name)}: {value:+.4g}\n"
