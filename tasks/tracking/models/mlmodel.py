"""An exported folder as an MLflow model: the files that MLflow reads are put beside those of Hugging Face.

`mlflow.pyfunc` and `mlflow models serve` run `mlflow_chat.py` of the folder, `mlflow.transformers` makes a pipeline,
and engines that load a folder of Hugging Face load this one. Nothing is pickled, and nothing of ours is imported.
"""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow.pyfunc
from mlflow.models import Model, ModelSignature
from mlflow.types.llm import CHAT_MODEL_INPUT_SCHEMA, CHAT_MODEL_OUTPUT_SCHEMA
from packaging.version import Version

MLMODEL, CARD = "MLmodel", "README.md"
CODE = Path(__file__).with_name("mlflow_chat.py")
NEEDED = ("jinja2", "mlflow", "pandas", "safetensors", "tokenizers", "torch", "transformers")
"""Packages that a process needs to serve the model."""
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
COPY_OF_TOKENIZER = Path("components") / "tokenizer"
"""Where `mlflow.transformers` looks for it, and nowhere else."""
EXAMPLE = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 32}


def make_mlflow_model(folder: Path, card: str) -> None:
    """Add what MLflow reads to an exported folder, and its card, which is markdown."""
    (architecture,) = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"]
    size = sum(path.stat().st_size for path in folder.iterdir())
    model = Model()
    with TemporaryDirectory(dir=folder.parent, prefix=".mlflow-") as temporary:
        made = Path(temporary) / "model"
        mlflow.pyfunc.save_model(
            made,
            python_model=str(CODE),
            mlflow_model=model,
            signature=ModelSignature(CHAT_MODEL_INPUT_SCHEMA, CHAT_MODEL_OUTPUT_SCHEMA),
            input_example=EXAMPLE,
            pip_requirements=[f"{name}=={Version(version(name)).public}" for name in NEEDED],
            metadata={"task": "llm/v1/chat"},
        )
        model.flavors["python_function"]["model_code_path"] = CODE.name  # its own copy; here it has a folder of ours
        add_pipeline(model, architecture)
        model.model_size_bytes = size
        model.save(str(made / MLMODEL))
        for path in made.iterdir():
            path.rename(folder / path.name)
    (folder / COPY_OF_TOKENIZER).mkdir(parents=True)
    for name in TOKENIZER:
        shutil.copy(folder / name, folder / COPY_OF_TOKENIZER / name)
    (folder / CARD).write_text(card, encoding="utf-8")


def add_pipeline(model: Model, architecture: str) -> None:
    """What `mlflow.transformers` reads: the weights lie in the folder itself."""
    model.add_flavor(
        "transformers",
        transformers_version=version("transformers"),
        code=None,
        components=["tokenizer"],
        tokenizer_type="PreTrainedTokenizerFast",
        instance_type="TextGenerationPipeline",
        model_binary=".",
        pipeline_model_type=architecture,
        task="text-generation",
        torch_dtype="torch.float32",
    )


def is_mlflow_model(folder: Path) -> bool:
    """Whether MLflow can load a registered version's folder; earlier releases registered a folder of weights alone."""
    return (folder / MLMODEL).exists()
