"""Latency of the questions about rows on ten million rows: inside the process, and as whole commands.

The home is written in the form that the stages leave: parts with random names, sketches and facts, the ledger by the
code of deduplication itself, segments and shards of short packed rows, records and journal. It holds no text, as no
answer reads any. Queries run in a warm page cache, each kind 20 times with other rows; caches of the process are
cleared between queries, and a first round is not counted.

    .venv/bin/python -m benchmarks.data.lookup --home /big/disk/lookup     # the home is made once, some 6 GB
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from data.duplicates.decide import NearDuplicateRules, add_generation
from data.duplicates.ledger import Ledger
from data.files import arrow_writer, to_arrow
from data.lookup.exposure import TrainingInput, note_reading
from data.lookup.fates import TRAIN, WHATS, fate_of
from data.rows.keys import ID_DTYPE, names_of
from data.rows.parts import FACTS_DTYPE, Part, PartRows
from data.rows.sketch import SKETCH_BYTES
from data.sides.deal import num_buckets
from data.sides.read import val_path
from data.sides.rules import SideRules
from data.sides.slices import added_by, chosen_rows, grown, read_slices, write_slices
from data.tokens.shards import segments_frame, write_shard
from model.tokens.order import Reading, permutation
from model.tokens.packing import PackedTokens
from schemas.domain import DOMAINS
from tasks.home.contents.packed import digest_of_kind
from tasks.home.digests import digest_of
from tasks.home.journal import Journal
from tasks.home.records import StageRecord
from tasks.questions.answers import who_ate, who_ate_rows, why_row
from tasks.questions.history import History

ROOT = Path(__file__).resolve().parent.parent.parent
RECIPE, SOURCE, BYTES_PER_ROW, SLOTS = "big", "web", 1_000, 16
EXACT_SHARE, NEAR_SHARE, BAD_PER_PART = 0.04, 0.03, 10_000
DOCUMENTS_PER_PACKED_ROW = 4
QUERIES = 20
RULES = SideRules(val_share=0.02, salt="night", shuffle_seed=1, val_bytes_per_slice=1_000_000, weights={SOURCE: 1.0})


def write_part(part: Part, count: int, seed: int) -> None:
    """Random rows; some repeat the name of an earlier row, some its sketch."""
    rng = np.random.default_rng(seed)
    ids = np.frombuffer(rng.bytes(16 * count), dtype=ID_DTYPE).copy()
    sketches = np.frombuffer(rng.bytes(SKETCH_BYTES * count), dtype=np.uint8).reshape(count, -1).copy()
    for share, array in ((EXACT_SHARE, ids), (NEAR_SHARE, sketches)):
        chosen = rng.choice(count // 2, int(share * count), replace=False)
        array[chosen + count // 2] = array[chosen]
    facts = np.zeros(count, dtype=FACTS_DTYPE)
    facts["line"] = np.delete(np.arange(count + BAD_PER_PART), bad_lines(count)) + 1
    facts["byte_offset"], facts["num_bytes"] = facts["line"].astype(np.uint64) * BYTES_PER_ROW, BYTES_PER_ROW
    facts["domain"] = rng.integers(0, len(DOMAINS), count)
    for array, suffix in ((ids, "ids"), (sketches, "sketches"), (facts, "facts")):
        array.tofile(part.path(suffix))
    with part.path("quarantine.jsonl").open("w", encoding="utf-8") as stream:
        for line in (bad_lines(count) + 1).tolist():
            raw = json.dumps({"text": f"{bad_text(part.number, line)} {rng.bytes(120).hex(' ', 3)}"})
            row = {"file": label(part), "line": line, "byte_offset": line * BYTES_PER_ROW, "rule": "filter_symbols"}
            stream.write(json.dumps(row | {"detail": "", "raw": raw}) + "\n")


def bad_text(number: int, line: int) -> str:
    return f"of part {number} the line {line} that nobody wants"


def label(part: Part) -> str:
    return f"{SOURCE}/{part.number:02d}.jsonl"


def bad_lines(count: int) -> np.ndarray:
    return np.arange(BAD_PER_PART) * (count // BAD_PER_PART)


def write_pieces(folder: Path, parts: list[PartRows]) -> None:
    rules = {"filter_symbols": {"count": BAD_PER_PART, "examples": [""]}}
    pieces = [
        {
            "piece": {
                "source": SOURCE, "label": label(p.part), "start": 0, "end": None, "first_line": 1, "num_lines": 0,
                "digest": "",
            },
            "number": p.part.number, "kind": "pretrain", "scan_key": "",
            "scanned": {
                "read": p.count + BAD_PER_PART, "valid": p.count, "quarantined": BAD_PER_PART,
                "num_bytes": p.count * BYTES_PER_ROW, "rules": rules, "statistics": {},
            },
        }
        for p in parts
    ]  # fmt: skip
    (folder / "pieces.json").write_text(json.dumps(pieces))


def write_sides(ledger: Ledger, generation: int, parts: list[PartRows], sides: Path, shards: Path) -> int:
    """The validation rows and the packed train rows of a generation; returns how many of the latter there are."""
    slices = read_slices(sides)
    added, _ = added_by(ledger, parts, RULES, slices)
    chosen, names = chosen_rows(added)
    rows, orders, held = [], [], []
    for p in parts:
        ids, train = p.part.ids, (ledger.fates_of(p) == 0) & ~RULES.is_val(ledger.clusters_of(p))
        rows.append(np.flatnonzero(train) + p.base)
        orders.append(RULES.order(ids[train]))
        here = (chosen >= p.base) & (chosen < p.base + p.count)
        columns = names_of(ids[chosen[here] - p.base]), chosen[here].astype(np.uint32), names[here].tolist()
        held.append(pl.DataFrame(columns, schema={"row_id": pl.String, "row": pl.UInt32, "slice": pl.String}))
    table = pl.concat(held).sort("row_id")
    with arrow_writer(val_path(sides, "pretrain", generation), to_arrow(table).schema) as writer:
        writer.write_table(to_arrow(table))
    members = {str(name): part["row_id"].to_list() for (name,), part in table.group_by("slice")}
    write_slices(sides, grown(slices, added, members, generation))
    row, order = np.concatenate(rows), np.concatenate(orders)
    buckets = num_buckets(sum(p.count for p in parts) * BYTES_PER_ROW)
    bucket = (order >> np.uint64(64 - (buckets - 1).bit_length())).astype(np.int64)
    by_bucket = np.argsort(bucket, kind="stable")
    packed = 0
    dealt = np.split(row[by_bucket], np.searchsorted(bucket[by_bucket], np.arange(1, buckets)))
    for number, numbers in enumerate(dealt):
        packed += write_bucket(shards / f"pretrain.train.g{generation:04d}.b{number:04d}", numbers)
    return packed


def write_bucket(path: Path, rows: np.ndarray) -> int:
    place = np.arange(len(rows))
    width = SLOTS // DOCUMENTS_PER_PACKED_ROW
    where = segments_frame(
        place // DOCUMENTS_PER_PACKED_ROW, place % DOCUMENTS_PER_PACKED_ROW * width, np.full(len(rows), width), rows,
        *(pl.Series([name]).gather(np.zeros(len(rows), dtype=np.int64)) for name in (SOURCE, "en")),
    )  # fmt: skip
    count = int(where["row"][-1]) + 1 if len(where) else 0
    empty = np.zeros((count, SLOTS), dtype=np.uint16)
    write_shard(path, PackedTokens(empty, empty.astype(np.int32), empty, ""), where)
    return count


def publish(
    journal: Journal, stage: str, fill: Callable[[Path], dict[str, int]], inputs: dict[str, str], config: object
) -> StageRecord:
    key = digest_of([stage, inputs])
    working = journal.working_folder(stage, key, resumable=False)
    counts = fill(working)
    record = StageRecord(
        stage=stage, key=key, path=journal.stage_folder(stage, key), digest=key, config=config, inputs=inputs,
        code_version="", counts=counts, figures={}, headline="", seconds=0.0, run_id=key[:32],
    )  # fmt: skip
    journal.publish(working, record, journal.read_token())
    journal.remember(record, RECIPE)
    return record


def make_home(home: Path, num_rows: int, num_parts: int) -> None:
    """A home whose first night added all parts but the last, and whose second night added the last."""
    journal, count = Journal(home), num_rows // num_parts

    def scan(folder: Path) -> dict[str, int]:
        (folder / "parts").mkdir()
        parts = [Part(folder / "parts", number) for number in range(num_parts)]
        for part in parts:
            write_part(part, count, part.number)
        write_pieces(folder, [PartRows(p, p.number * count, count, "pretrain", SOURCE) for p in parts])
        return {}

    validated = publish(journal, "validate", scan, {}, {})

    def deduplicate(folder: Path) -> dict[str, int]:
        (folder / "parts").symlink_to(validated.path / "parts")
        rows = [PartRows(Part(folder / "parts", n), n * count, count, "pretrain", SOURCE) for n in range(num_parts)]
        ledger = Ledger((), ())
        for fresh in (rows[:-1], rows[-1:]):
            ledger = add_generation(ledger, fresh, folder, NearDuplicateRules(threshold=0.8, drop=True), RULES.is_val)
        fates = np.sum([np.bincount(ledger.fates_of(p), minlength=4) for p in ledger.parts], axis=0)
        return {
            "read": num_rows + BAD_PER_PART * num_parts, "quarantined": BAD_PER_PART * num_parts, "kept": int(fates[0]),
            "exact_duplicate": int(fates[1]), "near_duplicate": int(fates[2] + fates[3]),
        }  # fmt: skip

    config: Any = {"deduplicate": {"near_threshold": 0.8}, "data": {"sequence_length_tokens": SLOTS}}
    distinct = publish(journal, "deduplicate", deduplicate, {"rows": validated.digest, "base": ""}, config)
    ledger = Ledger.read(distinct.path, distinct.path / "parts")
    shards = home / "shards"
    shards.mkdir()
    packed = 0

    def split(folder: Path) -> dict[str, int]:
        nonlocal packed
        for generation in ledger.generations:
            fresh = [p for p in ledger.parts if generation.base <= p.base < generation.base + generation.count]
            packed += write_sides(ledger, generation.number, fresh, folder, shards)
        return {"pretrain_val": 0, "chat_val": 0, "held_out_unused": 0}

    sides = publish(journal, "split", split, {"rows": distinct.digest, "base": ""}, RULES.__dict__)

    def tokenise(folder: Path) -> dict[str, int]:
        for path in shards.iterdir():
            path.rename(folder / path.name)
        return {"pretrain_train_rows": packed, "chat_train_rows": 0}

    tokens = publish(journal, "tokens", tokenise, {"rows": sides.digest, "base": ""}, config)
    steps = packed * 3 // 2 // 64
    train = {"train": {"batch_rows": 64, "seed": 1}}

    def pretrain(folder: Path) -> dict[str, int]:
        note_reading(folder, TrainingInput("pretrain", tokens.path, Reading(packed, 64, 1, steps)))
        return {"steps": steps}

    publish(journal, "pretrain", pretrain, {"tokens": digest_of_kind(tokens, "pretrain")}, train)


def questions(home: Path) -> Iterator[tuple[str, list[str]]]:
    """Queries by kind, 20 each: rows of every fate by name, train rows and quarantined lines by line or text."""
    data = History(home).newest_data(RECIPE)
    rng = np.random.default_rng(7)
    by_fate: dict[str, list[Any]] = {what: [] for what in WHATS}
    for row in rng.integers(0, data.corpus.ledger.next_row, 3_000).tolist():
        fate = fate_of(data.corpus, row)
        by_fate[fate.what].append(fate)
    for what, fates in by_fate.items():
        if len(fates) >= QUERIES:
            yield f"by name: {what}", [fate.place.name for fate in fates[:QUERIES]]
    lines = by_fate[TRAIN][-QUERIES:]
    yield "by line: train", [f"{label(fate.place.part.part)}:{fate.place.line}" for fate in lines]
    bad = bad_lines(data.corpus.ledger.parts[0].count)[rng.integers(0, BAD_PER_PART, QUERIES)] + 1
    yield "by line: quarantined", [f"{label(Part(home, 3))}:{line}" for line in bad]
    yield "by text: quarantined", [bad_text(9, line) for line in bad]


def timed(asks: Iterable[Callable[[], object]]) -> dict[str, float]:
    """Milliseconds of wall-clock and of CPU time: on a busy machine the two are far apart."""
    clock, work = [], []
    for ask in asks:
        permutation.cache_clear()
        started, worked = time.perf_counter(), time.process_time()
        ask()
        clock.append((time.perf_counter() - started) * 1e3)
        work.append((time.process_time() - worked) * 1e3)
    return {
        "queries": len(clock),
        "median_ms": round(statistics.median(clock), 1),
        "worst_ms": round(max(clock), 1),
        "best_ms": round(min(clock), 1),
        "median_cpu_ms": round(statistics.median(work), 1),
    }


def measure(home: Path) -> dict[str, Any]:
    """Times of each kind of question, and of whole commands, whose CPU time is not in this process."""
    asked = dict(questions(home))
    figures: dict[str, Any] = {
        kind: timed(partial(why_row, home, question, RECIPE) for question in some) for kind, some in asked.items()
    }
    run = next(History(home).published("pretrain"))["run_id"]
    figures["who-ate"] = timed([partial(who_ate, home, run)] * 3)
    figures["who-ate --all"] = timed([lambda: deque(who_ate_rows(home, run), maxlen=0)])
    first = next(iter(asked.values()))[0]
    for arguments in (["why-row", first], ["quarantine"], ["who-ate", run]):
        figures[f"command {arguments[0]}"] = timed([partial(command, home, arguments)] * 5)
    return figures


def command(home: Path, arguments: list[str]) -> None:
    environment = os.environ | {"NIGHTSCHOOL_HOME": str(home)}
    called = [sys.executable, "-m", "flows", *arguments]
    subprocess.run(called, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--parts", type=int, default=10)
    args = parser.parse_args()
    if not (args.home / "journal.jsonl").exists():
        args.home.mkdir(parents=True, exist_ok=True)
        make_home(args.home.absolute(), args.rows, args.parts)
    measure(args.home.absolute())
    figures = {"load_average": os.getloadavg()[0]} | measure(args.home.absolute())
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
