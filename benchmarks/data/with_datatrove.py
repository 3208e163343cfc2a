"""datatrove's own way from cleaned jsonl to shuffled tokens, measured where the package is installed.

Its near-duplicate steps need a word splitter per language with packages of their own and are left out.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

PROCESSES = 2
SEED = 0


def is_installed() -> bool:
    return find_spec("datatrove") is not None


def as_document(self: Any, row: dict[str, Any], path: str, number: int) -> dict[str, Any]:
    """A row as the reader wants it."""
    turns = row.get("conversations", ())
    text = row.get("text") or "".join(f"<|im_start|>{t['role']}\n{t['content']}<|im_end|>\n" for t in turns)
    return {"text": text, "id": f"{path}/{number}", "metadata": {}}


def tokens(corpus: str, work: str) -> None:
    """Read `clean/`, encode with the corpus's `tokenizer.json`, shuffle documents, write token files."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    for kind in ("pretrain", "chat"):
        out = Path(work, "datatrove", kind)
        tokenize = DocumentTokenizer(
            str(out), str(Path(corpus, "tokenizer.json")), local_working_dir=str(out / "local"), seed=SEED,
            eos_token="<|endoftext|>",
        )  # fmt: skip
        read = JsonlReader(str(Path(work, "clean")), glob_pattern=f"{kind}-*.jsonl", adapter=as_document)
        LocalPipelineExecutor(
            [read, tokenize], tasks=PROCESSES, workers=PROCESSES, logging_dir=str(out / "logs"), start_method="fork"
        ).run()
