"""What MLflow runs to serve a model: this file is copied into the model's folder, and imports nothing of ours.

A request is OpenAI's: `messages`, and if wanted `max_tokens`, `temperature`, `top_p`, `top_k`, `stop` and `tools`.
So is the answer, a `chat.completion`; several rows get a list of them.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel
from transformers import AutoModelForCausalLM, AutoTokenizer

NEW_TOKENS = 256
"""Of a reply at most, where a request says nothing and the model has room."""
READ = frozenset({"messages", "max_tokens", "temperature", "top_p", "top_k", "stop", "tools"})


class Chat(PythonModel):
    """The model of the folder that this file lies in, read by transformers."""

    def load_context(self, context: object) -> None:
        folder = str(Path(__file__).parent)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        self.model.eval().to(device)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def predict(
        self, context: object, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """One completion, or one for each row if there are several. Raises MlflowException for a bad request."""
        rows = model_input.to_dict(orient="records") if isinstance(model_input, pd.DataFrame) else [model_input]
        answers = [self.answer({k: v for k, v in row.items() if is_given(v)} | (params or {})) for row in rows]
        return answers[0] if len(answers) == 1 else answers

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        check(request)
        messages = list(request["messages"])
        prompt = self.tokenizer.apply_chat_template(
            messages, tools=request.get("tools"), add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(self.model.device)
        read, most = prompt["input_ids"].shape[1], self.model.config.max_position_embeddings
        wanted = int(request.get("max_tokens") or min(NEW_TOKENS, max(most - read, 1)))
        if read + wanted > most:
            refuse(f"the messages have {read} tokens and max_tokens is {wanted}; the model holds {most} in all")
        stop = [request["stop"]] if isinstance(request.get("stop"), str) else list(request.get("stop") or ())
        with torch.inference_mode():
            (ids,) = self.model.generate(
                **prompt, max_new_tokens=wanted, **choice_of(request),
                **({"stop_strings": stop, "tokenizer": self.tokenizer} if stop else {}),
            )  # fmt: skip
        new = ids[read:].tolist()
        text = self.tokenizer.decode(new, skip_special_tokens=True)
        ends = self.model.generation_config.eos_token_id
        ended = new[-1] in (ends if isinstance(ends, list) else [ends]) or any(word in text for word in stop)
        for word in stop:
            text = text.partition(word)[0]
        return {
            "id": uuid.uuid4().hex,
            "object": "chat.completion",
            "created": int(time.time()),
            "model": "nightschool",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop" if ended else "length",
                    "message": {"role": "assistant", "content": text.strip()},
                }
            ],
            "usage": {"prompt_tokens": read, "completion_tokens": len(new), "total_tokens": read + len(new)},
        }


def is_given(value: object) -> bool:
    """Whether a request has a value: MLflow fills in None, and pandas makes it a NaN in a column of numbers."""
    return value is not None and value == value


def check(request: Mapping[str, Any]) -> None:
    """Refuse what would otherwise be ignored."""
    harmless = {"n": 1, "stream": False, "frequency_penalty": 0, "presence_penalty": 0}
    other = {name: value for name, value in request.items() if name not in READ and harmless.get(name, ...) != value}
    if other:
        refuse(f"{', '.join(sorted(other))} cannot be used here; a request may have {', '.join(sorted(READ))}")
    if not len(request.get("messages", ())):
        refuse("there are no messages")
    if not 0 <= float(request.get("temperature", 1)) <= 1_000:
        refuse(f"temperature is {request['temperature']}; it must be from 0, always the best token, to 1000")
    if not 0 < float(request.get("top_p", 1)) <= 1:
        refuse(f"top_p is {request['top_p']}; it must be above 0 and at most 1")
    if int(request.get("top_k", 0)) < 0 or int(request.get("max_tokens", 1)) < 1:
        refuse("top_k must be 0 or more, and max_tokens 1 or more")


def choice_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """How the next token is chosen, as transformers names it; what is not said is as the folder's settings say."""
    if request.get("temperature") == 0:
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    said = {name: float(request[name]) for name in ("temperature", "top_p") if name in request}
    return {"do_sample": True, "top_k": int(request.get("top_k", 0)), **said}


def refuse(reason: str) -> None:
    raise MlflowException.invalid_parameter_value(reason)


set_model(Chat())
