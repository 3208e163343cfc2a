"""The built-in corpus: real text that installed packages carry, written as the raw jsonl a user would bring.

Everything is read as data: no code of the packages runs. The formats are MiniMind's, `{"text", "source"}` for
pretraining and `{"conversations": [{"role", "content"}, …]}` for chat.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import orjson
import yaml

from model.files import publish_folder
from tasks.home.code import code_version
from tasks.home.digests import digest_of

MIN_DOCSTRING_CHARACTERS = 200
CODE_PACKAGES = (
    "argparse", "asyncio", "bisect", "calendar", "collections", "concurrent", "configparser", "contextlib", "copy",
    "csv", "dataclasses", "difflib", "email", "enum", "fractions", "functools", "gzip", "heapq", "html", "http",
    "importlib", "inspect", "json", "logging", "mailbox", "multiprocessing", "pathlib", "pickle", "queue", "random",
    "sched", "shelve", "shutil", "socketserver", "statistics", "string", "tarfile", "tempfile", "textwrap",
    "threading", "timeit", "tokenize", "traceback", "typing", "unittest", "urllib", "uuid", "wsgiref", "xml", "zipfile",
)  # fmt: skip
Row = dict[str, Any]


def package_file(package: str, inner: str) -> Path:
    """A file inside an installed package, found without importing it."""
    return Path(str(importlib.metadata.distribution(package).locate_file(inner)))


def standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def library_sources() -> Iterator[Path]:
    """Source files of the standard library, tests excluded, in a fixed order."""
    root = standard_library()
    for path in sorted(root.rglob("*.py")):
        inner = path.relative_to(root).parts
        if not {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(inner):
            yield path


def human_conversations() -> Iterator[list[tuple[str, str]]]:
    """Conversations of chitchat-dataset as (role, content) turns; who speaks first is the user.

    A speaker's messages in a row are one turn. Conversations without an answer, 44 % of the data, and a last
    unanswered turn are left out: there is nothing to learn from them.
    """
    content = orjson.loads(package_file("chitchat-dataset", "chitchat_dataset/dataset.json").read_bytes())
    for conversation in content.values():
        turns: list[tuple[str, str]] = []
        speakers: list[str] = []
        for messages in conversation["messages"]:
            text = " ".join(m["text"].strip() for m in messages if m["text"].strip())
            if not text:
                continue
            speaker = messages[0]["sender"]
            if speaker not in speakers:
                speakers.append(speaker)
            role = "user" if speaker == speakers[0] else "assistant"
            if turns and turns[-1][0] == role:
                turns[-1] = (role, f"{turns[-1][1]} {text}")
            else:
                turns.append((role, text))
        if turns and turns[-1][0] == "user":
            turns.pop()
        if turns and len(speakers) == 2:
            yield turns


def chatterbot_conversations(languages: Callable[[str], bool]) -> Iterator[list[tuple[str, str]]]:
    """Exchanges of chatterbot-corpus in the languages asked for; sentences take turns, user first."""
    root = package_file("chatterbot-corpus", "chatterbot_corpus/data")
    for path in sorted(root.glob("*/*.yml")):
        if not languages(path.parent.name):
            continue
        for lines in yaml.safe_load(path.read_text(encoding="utf-8")).get("conversations") or []:
            texts = [str(line).strip() for line in lines if str(line).strip()] if isinstance(lines, list) else []
            texts = texts[: len(texts) // 2 * 2]
            if texts:
                yield [("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)]


def as_chat(conversations: Iterator[list[tuple[str, str]]]) -> Iterator[Row]:
    for turns in conversations:
        yield {"conversations": [{"role": role, "content": content} for role, content in turns]}


def as_text(source: str, texts: Iterator[str]) -> Iterator[Row]:
    for text in texts:
        yield {"text": text, "source": source}


def docstrings() -> Iterator[str]:
    for path in library_sources():
        try:
            tree = ast.parse(path.read_bytes())
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node) or ""
                if len(text) >= MIN_DOCSTRING_CHARACTERS:
                    yield text


def code_files() -> Iterator[str]:
    for path in library_sources():
        package = path.relative_to(standard_library()).parts[0].removesuffix(".py")
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        if package in CODE_PACKAGES and text:
            yield text


def spoken(conversations: Iterator[list[tuple[str, str]]]) -> Iterator[str]:
    """A conversation as plain text, a line a turn. Its content hash is that of the chat row, so both go to one side."""
    for turns in conversations:
        yield "\n".join(content for _, content in turns)


MAKERS: dict[str, Callable[[], Iterator[Row]]] = {
    "pretrain-conversations": lambda: as_text("conversations", spoken(human_conversations())),
    "pretrain-reference": lambda: as_text("reference", (topics[name] for name in sorted(topics))),
    "pretrain-docstrings": lambda: as_text("docstrings", docstrings()),
    "pretrain-code": lambda: as_text("code", code_files()),
    "chat-conversations": lambda: as_chat(human_conversations()),
    "chat-english": lambda: as_chat(chatterbot_conversations("english".__eq__)),
    "chat-chinese": lambda: as_chat(chatterbot_conversations("chinese".__eq__)),
    "chat-other-languages": lambda: as_chat(chatterbot_conversations(lambda name: name not in ("english", "chinese"))),
}
"""What `builtin:NAME` means."""

ORIGINS = {
    "conversations": ("chitchat-dataset", "MIT"),
    "english": ("chatterbot-corpus", "BSD-3-Clause"),
    "chinese": ("chatterbot-corpus", "BSD-3-Clause"),
    "other-languages": ("chatterbot-corpus", "BSD-3-Clause"),
    "reference": ("Python standard library, pydoc topics", "PSF-2.0"),
    "docstrings": ("Python standard library, docstrings", "PSF-2.0"),
    "code": ("Python standard library, sources", "PSF-2.0"),
}


def origin_of(location: str) -> tuple[str, str]:
    """What the text of a location `builtin:NAME` is taken from, and its licence; both empty for another location."""
    name = location.removeprefix("builtin:")
    return ORIGINS[name.partition("-")[2]] if name != location and name in MAKERS else ("", "")


def corpus_version() -> str:
    """Digest of what the corpus is made of: this module, the packages' versions, Python's version."""
    versions = {p: importlib.metadata.version(p) for p in ("chitchat-dataset", "chatterbot-corpus")}
    return digest_of({"code": code_version(__name__), "python": sysconfig.get_python_version(), **versions})[:12]


def build_corpus(home: Path) -> Path:
    """Write the corpus under the home, once per version; returns its folder."""
    folder = home / "corpus" / corpus_version()
    if folder.exists():
        return folder
    beside = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    counts = {name: write_rows(beside / f"{name}.jsonl", make()) for name, make in MAKERS.items()}
    (beside / "data-card.md").write_text(data_card(beside, counts), encoding="utf-8")
    publish_folder(beside, folder)
    return folder


def write_rows(path: Path, rows: Iterator[Row]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def data_card(folder: Path, counts: dict[str, int]) -> str:
    """Where each file comes from, its licence and size, as markdown."""
    lines = ["# The built-in corpus", "", "| file | rows | bytes | taken from | licence |", "|---|---:|---:|---|---|"]
    for name, count in counts.items():
        origin, licence = ORIGINS[name.partition("-")[2]]
        size = (folder / f"{name}.jsonl").stat().st_size
        lines.append(f"| {name}.jsonl | {count:,} | {size:,} | {origin} | {licence} |")
    note = (
        "The conversations are what people typed to strangers; nothing was filtered but the conversations that "
        "nobody answered. The texts are for trying the pipeline out, not for a model that others talk to."
    )
    return "\n".join([*lines, "", note, ""])
