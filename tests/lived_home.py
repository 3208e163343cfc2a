"""A home in which the data of two nights was prepared, the second night's grown from the first's, and trained on."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import data.sides.deal
import data.tokens.folding
import tasks.stages.deduplicate
from benchmarks.data.ours import UntrackedNight, run_id_of
from data.duplicates.near import accepted_from
from data.lookup.exposure import TrainingInput, note_reading
from data.rows.keys import row_ids
from data.rows.sketch import similarity, sketches_of
from data.sides.rules import SideRules
from model.config.training import TrainConfig
from model.tokens.order import Reading, TextReplay
from tasks.home.contents.packed import digest_of_kind
from tasks.home.contents.pretrained import REPLAYED, Grown, write_reading, write_replayed
from tasks.home.contents.validated import read_pieces
from tasks.home.digests import digest_of, plain
from tasks.home.journal import Journal
from tasks.home.records import StageRecord, file_digests
from tasks.night.conclusion import note_made
from tasks.questions.history import History
from tasks.questions.lineage import find_model
from tasks.recipes.recipe import Recipe, recipe_from, side_rules
from tasks.sources.resolve import resolve
from tasks.stages.deduplicate import deduplicate
from tasks.stages.split import split
from tasks.stages.tokens import tokens
from tasks.stages.validate import validate

WORDS = [
    a + b + c for a in ("ba", "ko", "mi", "tu", "re", "so") for b in ("la", "ne", "di") for c in ("", "n", "st", "k")
]
BUCKET_BYTES = 8 << 10
"""So that few rows make many shards."""
LONG = 90
"""Words of a text that others are near to."""
STEPS = ((7, 9), (80, 25))
"""Of pretraining and SFT, in each night."""
REPLAY_SHARE = 0.25
"""Of the rows of the second night's SFT, text."""
TRAIN = {"batch_rows": 4, "micro_batch_rows": 2}
BAD = [
    b'{"text": "cut off',
    b"   ",
    b'{"txt": "a key that nobody knows"}',
    b'{"text": "\xff\xfe bad"}',
    b'{"text": "' + b"far too long " * 700 + b'"}',
    b'{"text": "brief"}',
    b'{"text": "bell \\u0007 and \\u4f60\\u597d, with a name"}',
]


def text(seed: int, words: int = LONG) -> str:
    chosen = random.Random(seed).choices(WORDS, k=words)
    return " ".join(word + ("\n" if i % 17 == 16 else "") for i, word in enumerate(chosen))


def changed(original: str, seed: int) -> str:
    """The same but for one word."""
    words = original.split(" ")
    words[random.Random(seed).randrange(len(words))] = f"word{seed}"
    return " ".join(words)


def chat(question: str, answer: str) -> dict[str, Any]:
    turns = (("user", question), ("assistant", answer))
    return {"conversations": [{"role": role, "content": content} for role, content in turns]}


def straddling(rules: SideRules, count: int) -> list[tuple[str, str, list[str]]]:
    """Texts for the train side, for the validation side, and the words of one that repeats both, found by trial."""
    found, seed = [], 10_000
    while len(found) < count:
        words, other = (text(of, 300).replace("\n", "").split(" ") for of in (seed, seed + 500_000))
        texts = [" ".join(w) for w in (other[:33] + words[33:], words[:271] + other[271:], words)]
        one, two, both = sketches_of(pl.Series(texts))[:, None]
        apart = similarity(one, two)[0] < accepted_from(0.8) <= min(similarity(one, both)[0], similarity(two, both)[0])
        if apart and rules.is_val(row_ids(texts[:2])).tolist() == [False, True]:
            found.append((texts[0], texts[1], words))
        seed += 1
    return found


def first_night(rules: SideRules) -> dict[str, list[bytes]]:
    texts = [text(seed, 10 + seed % 60) for seed in range(150)]
    texts += [text(seed) for seed in range(1_000, 1_015)] + [changed(text(1_000), n) for n in range(5)]
    texts += [texts[3], texts[3].replace(" ", "  "), *[texts[4]] * 8]
    texts += [t for one, other, _ in straddling(rules, 4) for t in (one, other)]
    talk = [chat(text(seed, 8), text(seed + 1, 10 + seed % 80)) for seed in range(2_000, 2_090)]
    talk += [talk[5], chat("long answer", text(2_500, 400)), chat(text(3_000), "yes")]
    rare = [text(seed, 20) for seed in range(4_000, 4_040)]
    named = {"text/text.jsonl": texts, "talk/talk.jsonl": talk, "rare/rare.jsonl": rare}
    return {label: shuffled([as_line(row) for row in rows], label) for label, rows in named.items()}


def second_night(rules: SideRules) -> dict[str, list[bytes]]:
    texts = [text(seed, 10 + seed % 60) for seed in range(5_000, 5_060)]
    texts += [text(3, 13), changed(text(1_001), 77), changed(text(1_001), 78), text(1_002).replace(" ", "\t")]
    talk = [chat(text(seed, 8), text(seed + 1, 20)) for seed in range(6_000, 6_040)]
    talk += [chat(f"q{n}", changed(text(seed), n)) for seed in (1_003, 1_004, 1_005) for n in range(4)]
    talk += [chat(" ".join(words[:5]), " ".join(words[5:])) for _, _, words in straddling(rules, 4)]
    for seed in (1_003, 1_004):  # the same text in another shape
        words = text(seed).split(" ")
        talk.append(chat(" ".join(words[:5]), " ".join(words[5:])))
    named = {"text/text-2.jsonl": texts, "talk/talk-2.jsonl": talk}
    return {label: shuffled([as_line(row) for row in rows], label) for label, rows in named.items()}


def as_line(row: str | dict[str, Any]) -> bytes:
    return json.dumps({"text": row} if isinstance(row, str) else row, ensure_ascii=False).encode()


def shuffled(lines: list[bytes], label: str) -> list[bytes]:
    """Good lines among bad ones."""
    mixed = lines + BAD
    random.Random(label).shuffle(mixed)
    return mixed


@dataclass(frozen=True)
class LivedHome:
    home: Path
    raw: Path
    recipe: Recipe
    written: dict[str, list[bytes]]
    """Lines by the label of their file."""
    nights: list[list[StageRecord]]
    """validate, deduplicate, split and tokens of each."""


def small_recipe(raw: Path, pattern: str = "*.jsonl") -> Recipe:
    kinds = {"text": "pretrain", "talk": "chat", "rare": "pretrain"}
    weights = {"text": 1.5, "talk": 2.0, "rare": 0.5}
    return recipe_from(
        {
            "name": "tiny",
            "sources": [
                {"name": name, "kind": kind, "location": str(raw / f"{name}{pattern}"), "weight": weights[name]}
                for name, kind in kinds.items()
            ],
            "validate": {
                "max_bad_share": 0.9, "max_bad_share_per_file": 0.9, "max_line_bytes": 5_000, "settle_seconds": 0,
                "filters": {"min_characters": 8},
            },
            "split": {"val_share": 0.3, "val_bytes_per_slice": 4_000},
            "data": {"sequence_length_tokens": 64},
            "model": {
                "vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                "num_key_value_heads": 1, "head_dim": 16, "num_experts": 4, "moe_intermediate_size": 32,
            },
            "pretrain": TRAIN | {"start": "scratch"}, "sft": TRAIN,
        }
    )  # fmt: skip


def prepare(home: Path, recipe: Recipe) -> list[StageRecord]:
    """A night as far as the tokens."""
    night = UntrackedNight(recipe, "k", home, "", run_id_of("night"), 0, None)
    newest = night.journal.newest("validate", recipe.name)
    known = [scanned.piece for scanned in read_pieces(newest.path)] if newest else []
    night = replace(night, raw=resolve(recipe.sources, home, known))
    validated = validate.fn(night)
    distinct = deduplicate.fn(night, validated)
    sides = split.fn(night, distinct)
    return [validated, distinct, sides, tokens.fn(night, sides)]


def publish(
    home: Path,
    stage: str,
    inputs: dict[str, str],
    counts: dict[str, int],
    config: object = None,
    run: str = "",
    note: Callable[[Path], None] = lambda folder: None,
) -> StageRecord:
    """A finished stage that did nothing but to leave its record, and what `note` writes into its folder."""
    journal = Journal(home)
    key = digest_of([stage, inputs, counts, plain(config)])
    working = journal.working_folder(stage, key, resumable=False)
    (working / "output").write_text(key)
    note(working)
    record = StageRecord(
        stage=stage, key=key, path=journal.stage_folder(stage, key), digest=digest_of(file_digests(working)),
        config=plain(config), inputs=inputs, code_version="", counts=counts, figures={}, headline="", seconds=0.0,
        run_id=run or run_id_of(key),
    )  # fmt: skip
    journal.publish(working, record, 0)
    return record


def train(
    home: Path, packed: StageRecord, steps: tuple[int, int], seed: int = 1, replay_share: float = 0.0
) -> tuple[StageRecord, StageRecord]:
    """The records of pretraining and SFT for so many steps; with a share of SFT's rows text of pretraining."""
    config = {"model": {}, "train": TrainConfig(**TRAIN, seed=seed)}
    text_rows, chat_rows = (packed.counts[f"{kind}_train_rows"] for kind in ("pretrain", "chat"))
    first_steps, last_steps = steps
    batch_rows = TRAIN["batch_rows"]
    read = TrainingInput("pretrain", packed.path, Reading(text_rows, batch_rows, seed, first_steps))

    def note_sft(folder: Path) -> None:
        own = Reading(chat_rows, batch_rows, seed, last_steps)
        if replay_share:
            own, text = TextReplay(chat_rows, text_rows, replay_share).readings(batch_rows, seed, last_steps)
            (folder / REPLAYED).mkdir()
            write_replayed(folder / REPLAYED, text, digest_of_kind(packed, "pretrain"))
            note_reading(folder / REPLAYED, TrainingInput("pretrain", packed.path, text), read)
            write_reading(folder, own, Grown(branch_step=None, rows_digest="", tokenizer=""))
        note_reading(folder, TrainingInput("chat", packed.path, own))

    inputs = {"tokens": digest_of_kind(packed, "pretrain")}
    first = publish(
        home, "pretrain", inputs, {"steps": first_steps}, config, note=lambda folder: note_reading(folder, read)
    )
    inputs = {"tokens": digest_of_kind(packed, "chat"), "pretrained": first.digest}
    return first, publish(home, "sft", inputs, {"steps": last_steps}, config, note=note_sft)


def live(folder: Path) -> LivedHome:
    """Two nights, the second with more files."""
    home, raw = folder / "home", folder / "raw"
    raw.mkdir(parents=True)
    recipe = small_recipe(raw)
    written: dict[str, list[bytes]] = {}
    nights = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.stages.deduplicate, "create_table_artifact", lambda *args, **named: None)
        patch.setattr(data.sides.deal, "BUCKET_BYTES", BUCKET_BYTES)
        patch.setattr(data.tokens.folding, "FULL_BYTES", BUCKET_BYTES)
        for lines_of in (first_night, second_night):
            for label, lines in lines_of(side_rules(recipe)).items():
                (raw / Path(label).name).write_bytes(b"\n".join(lines) + b"\n")
                written[label] = lines
            nights.append(prepare(home, recipe))
    return LivedHome(home, raw, recipe, written, nights)


def live_and_train(folder: Path) -> LivedHome:
    """Two nights, trained and registered. The first model was promoted; the second night's note tells its stages, and
    its SFT read text of pretraining, too."""
    lived = live(folder)
    journal = Journal(lived.home)
    for version, (records, steps) in enumerate(zip(lived.nights, STEPS, strict=True), start=1):
        share = REPLAY_SHARE if version == 2 else 0.0
        pretrained, tuned = train(lived.home, records[3], steps, seed=version, replay_share=share)
        journal.note(event="decided", recipe="tiny", version=version, promoted=version == 1, reason="")
        registered = publish(
            lived.home, "register", {"trained": tuned.digest}, {"version": version}, {"recipe": "tiny"}
        )
        note = lived.home / "nights" / f"tiny@{version}.json"
        note.parent.mkdir(exist_ok=True)
        note.write_text(json.dumps({"run_id": run_id_of(f"night {version}"), "key": str(version)}))
        if version == 2:
            note_made(note, [*records, pretrained, tuned, registered], {"version": version, "promoted": False}, None)
    return lived


def trained_stage(lived: LivedHome, stage: str, version: int) -> StageRecord:
    model = find_model(History(lived.home), str(version))
    return next(t.record for t in model.trainings if t.record.stage == stage)


def copy_of(home: Path, copied: Path) -> Path:
    """A home with the same past, and a future of its own."""
    for name in ("nights", "newest"):
        shutil.copytree(home / name, copied / name)
    shutil.copy(home / "journal.jsonl", copied)
    (copied / "data").mkdir()
    for folder in (home / "data").iterdir():
        (copied / "data" / folder.name).symlink_to(folder)
    return copied
