"""The card of a registered model: what it is, how well it does, how it is used. Markdown, as hubs of models read it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tasks.pages.text import markdown_line

REASON_CHARACTERS = 500
FIGURES = {
    "val/bpb": "bits per byte of the validation side",
    "val/perplexity": "perplexity of the validation side",
    "export/logit_difference": "largest difference of logits between transformers and the trainer",
}
CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
tags: [nightschool, {quoted}]
---

# {model}

A chat model that recipe {shown} of Nightschool trained {night}: {size}.

- learnt from: {sources}
- reads and writes {max_tokens:,} tokens at most, prompt and reply together
{figures}- when it was registered: {decision}

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
`training-data.json` holds the statistics of what it was trained on.
"""


def model_card(
    *,
    recipe: str,
    day: str,
    size: str,
    max_tokens: int,
    sources: Sequence[str],
    figures: Mapping[str, float],
    decision: str,
) -> str:
    """The card. `day`: of the night, may be empty; `size`: a phrase; `figures`: by metric, those known are shown."""
    lines = [f"- {said}: {figures[name]:.4g}\n" for name, said in FIGURES.items() if name in figures]
    return CARD.format(
        quoted=json.dumps(recipe), model=f"nightschool-{recipe}", shown=markdown_line(recipe),
        night=f"in the night of {day}" if day else "in a night", size=size, max_tokens=max_tokens,
        sources=", ".join(markdown_line(source) for source in sources), figures="".join(lines),
        decision=markdown_line(decision, REASON_CHARACTERS),
    )  # fmt: skip
