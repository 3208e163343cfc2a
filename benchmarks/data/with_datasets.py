"""The usual way to do the same work: `datasets` 5 with `tokenizers`, batched, in two processes.

Where there is a choice the faster one is taken: batched maps, hashes in the workers, one copy to disk after the
shuffle instead of flattened indices and a copy, no offsets, labels left to the collator. It does less than our stages:
the JSON reader fails at a broken line, so the input is cleaned beforehand, outside the timing; nothing is quarantined,
split or reported; near duplicates stay; conversations get no loss mask; documents are concatenated and cut. A second
night is the whole chain again.

Each step takes the corpus and a work folder that holds what the steps before it left: `clean/` (from `clean`), then
`validated/`, `shuffled/`, `tokens/`. The library's caches belong there too, by its environment variables.
"""

from __future__ import annotations

import hashlib
import shutil
import unicodedata
from itertools import chain as chained
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value, load_dataset, load_from_disk
from tokenizers import Tokenizer

from benchmarks.data.row_rules import is_conversation, is_text, readable

KINDS = ("pretrain", "chat")
PROCESSES = 2
SEED = 0
SEQUENCE_LENGTH_TOKENS = 512
END_OF_TEXT = "<|endoftext|>"
FEATURES = {
    "pretrain": Features({"text": Value("string"), "source": Value("string")}),
    "chat": Features({"conversations": List({"role": Value("string"), "content": Value("string")})}),
}
Batch = dict[str, list[Any]]
Counts = dict[str, int]


def clean(corpus: str, work: str) -> Counts:
    """Copy the lines that the JSON reader can take to `clean/`. Not part of any timing."""
    folder = Path(work, "clean")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    counts = {"readable": 0, "unreadable": 0}
    for path in sorted(Path(corpus).glob("*.jsonl")):
        kind = path.name.partition("-")[0]
        with path.open("rb") as lines, (folder / path.name).open("wb") as sink:
            for line in lines:
                good = readable(line, kind)
                counts["readable" if good else "unreadable"] += 1
                if good:
                    sink.write(line)
    return counts


def texts_of(batch: Batch) -> list[str]:
    """One text a row; a conversation's is its turns, a line each."""
    if "text" in batch:
        return batch["text"]
    return ["\n".join(turn["content"] for turn in turns) for turns in batch["conversations"]]


def keeps_rules(batch: Batch) -> list[bool]:
    if "text" in batch:
        return [is_text(text) for text in batch["text"]]
    return [is_conversation(turns) for turns in batch["conversations"]]


def with_hash(batch: Batch) -> Batch:
    texts = (" ".join(unicodedata.normalize("NFC", text).split()) for text in texts_of(batch))
    return {"hash": [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]}


def first_of_each(rows: Dataset) -> Dataset:
    """Rows whose hash was not seen before; one process, as the set is one."""
    seen: set[bytes] = set()
    kept = []
    for index, identity in enumerate(rows.with_format("arrow")["hash"][:].to_pylist()):
        if identity not in seen:
            seen.add(identity)
            kept.append(index)
    return rows.select(kept).remove_columns("hash")


def validate(corpus: str, work: str) -> Counts:
    """Row rules and exact duplicates: `clean/` to `validated/`."""
    counts = {}
    for kind in KINDS:
        files = [str(path) for path in sorted(Path(work, "clean").glob(f"{kind}-*.jsonl"))]
        rows = load_dataset(
            "json", data_files=files, features=FEATURES[kind], split="train", num_proc=min(PROCESSES, len(files))
        )
        rows = rows.filter(keeps_rules, batched=True, num_proc=PROCESSES)
        rows = first_of_each(rows.map(with_hash, batched=True, num_proc=PROCESSES))
        rows.save_to_disk(Path(work, "validated", kind), num_proc=PROCESSES)
        counts[kind] = len(rows)
    return {"kept": sum(counts.values())}


def shuffle(corpus: str, work: str) -> Counts:
    """A seeded shuffle on disk: `validated/` to `shuffled/`."""
    counts = {}
    for kind in KINDS:
        rows = load_from_disk(Path(work, "validated", kind)).shuffle(seed=SEED)
        rows.save_to_disk(Path(work, "shuffled", kind), num_proc=PROCESSES)
        counts[kind] = len(rows)
    return {"kept": sum(counts.values())}


def rendered(batch: Batch) -> list[str]:
    if "text" in batch:
        return batch["text"]
    return [
        "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns)
        for turns in batch["conversations"]
    ]


def encode(batch: Batch, tokenizer: Tokenizer) -> Batch:
    end = tokenizer.token_to_id(END_OF_TEXT)
    return {
        "input_ids": [[*e.ids, end] for e in tokenizer.encode_batch_fast(rendered(batch), add_special_tokens=False)]
    }


def pack(batch: Batch) -> Batch:
    """Documents one after another, cut into rows; what does not fill the last row of a batch is lost."""
    stream = list(chained.from_iterable(batch["input_ids"]))
    starts = range(0, len(stream) - SEQUENCE_LENGTH_TOKENS + 1, SEQUENCE_LENGTH_TOKENS)
    return {"input_ids": [stream[start : start + SEQUENCE_LENGTH_TOKENS] for start in starts]}


def tokens(corpus: str, work: str) -> Counts:
    """Encode with the corpus's `tokenizer.json` and pack: `shuffled/` to `tokens/`."""
    tokenizer = Tokenizer.from_file(str(Path(corpus, "tokenizer.json")))
    counts = {}
    for kind in KINDS:
        rows = load_from_disk(Path(work, "shuffled", kind))
        encoded = rows.map(
            encode, batched=True, num_proc=PROCESSES, remove_columns=rows.column_names,
            fn_kwargs={"tokenizer": tokenizer},
        )  # fmt: skip
        packed = encoded.map(pack, batched=True, num_proc=PROCESSES)
        packed.save_to_disk(Path(work, "tokens", kind), num_proc=PROCESSES)
        counts[kind] = len(packed) * SEQUENCE_LENGTH_TOKENS
    return {"tokens": sum(counts.values())}


def chain(corpus: str, work: str) -> Counts:
    """All of it."""
    counts = validate(corpus, work)
    shuffle(corpus, work)
    return counts | tokens(corpus, work)


def second_night(corpus: str, work: str) -> Counts:
    """All of it again, over what the first night left."""
    for name in ("validated", "shuffled", "tokens"):
        shutil.rmtree(Path(work, name), ignore_errors=True)
    return chain(corpus, work)
