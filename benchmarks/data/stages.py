"""The data stages beside the usual way: raw jsonl to packed rows, each step and the chain, in one run on this machine.

Corpora of several sizes are made on the spot (`benchmarks/data/corpora.py`), every measurement is a fresh process whose
whole tree is sampled (`benchmarks/memory.py`), and the sides take turns, so that drift of the machine hits all alike.
MB/s are bytes of raw jsonl, broken lines and all, over the seconds of the step: 1 MB is 1e6 bytes. Steps find their
input warm in the page cache. Small sizes are measured three times; the table shows medians of one run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.data import ours
from benchmarks.data.measurement import Measurement, raw_bytes
from benchmarks.data.report import report
from benchmarks.machine import machine_facts
from benchmarks.memory import ChildFailed, Usage, measure

if TYPE_CHECKING:
    from benchmarks.data.corpora import Census


# What is measured. A step reads `pretrain-*.jsonl`, `chat-*.jsonl` and `tokenizer.json` of the corpus folder and what
# the steps before it left in the work folder, and leaves its own output there. Counts it returns go into the JSON;
# "kept" of "validate" must be the number of good and distinct rows that were generated. The clock starts after this
# module's imports. "chain" starts from an empty work folder; "second night" finds the chain's, and 1 % new files.


STEPS: dict[str, Callable[[Path, Path], Mapping[str, int]]] = {
    "validate": ours.validate_and_deduplicate,
    "deduplicate": ours.near_duplicates,
    "shuffle": ours.shuffle,
    "tokens": ours.encode_and_pack,
    "chain": ours.night,
    "second night": ours.night,
}
# End of what is measured.

STAGED = ("validate", "deduplicate", "shuffle", "tokens")
STEPS_OF = {
    "ours": tuple(STEPS),
    "datasets": ("validate", "shuffle", "tokens", "chain", "second night"),
    "datatrove": ("tokens",),
}
"""What each side can do."""
MODULES = {"datasets": "benchmarks.data.with_datasets", "datatrove": "benchmarks.data.with_datatrove"}
"""Where the steps of the other sides are, each under its own name."""
SMALL_BYTES, SMALL_REPEATS = 100_000_000, 3
SPACE_FACTORS = {"ours": 5, "datasets": 12, "datatrove": 4}
"""Free bytes a byte of corpus needs: the usual way keeps copies of the rows for each of its steps."""
NEW_SHARE = 0.01
VOCAB_SIZE, TOKENIZER_ROWS = 6_400, 8_000


def run_step(step: str, corpus: str, work: str) -> Mapping[str, int] | None:
    """Our side of a measurement, in its own process."""
    return STEPS[step](Path(corpus), Path(work))


@dataclass(frozen=True)
class Bench:
    """One size, repeat and side."""

    side: str
    size_bytes: int
    repeat: int
    corpus: Path
    work: Path

    def call(self, step: str) -> Usage:
        """Run a step in a process of its own."""
        from tasks.settings import child_environment

        if self.side == "ours":
            target, leading = "benchmarks.data.stages:run_step", [step]
            values = {"NIGHTSCHOOL_HOME": str(self.work / "home")}
        else:
            module = MODULES["datasets" if step == "clean" else self.side]
            target, leading = f"{module}:{step.replace(' ', '_')}", []
            values = reference_environment(self.work)
        os.sync()  # what earlier steps left to be written is not this one's to wait for
        return measure(target, *leading, str(self.corpus), str(self.work), environment=child_environment(**values))

    def measurement(self, step: str) -> Measurement:
        facts = (self.side, step, self.size_bytes, raw_bytes(self.corpus), self.repeat)
        try:
            found = Measurement(*facts, usage=self.call(step))
        except ChildFailed as error:
            found = Measurement(*facts, error=str(error))
        print(progress(found), file=sys.stderr, flush=True)
        return found

    def fresh(self) -> None:
        """An empty work folder, with the cleaned copy of the corpus that the reference needs."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        if self.side != "ours":
            self.call("clean")

    def run(self, wanted: Sequence[str]) -> Iterator[Measurement]:
        """Measure the steps this side has; those that only lead up to one of them are run as well and left out."""
        steps = [step for step in STEPS_OF[self.side] if step in wanted]
        staged = [step for step in STAGED if step in steps]
        if staged:
            self.fresh()
            leading = [step for step in STAGED[: STAGED.index(staged[-1]) + 1] if step in STEPS_OF[self.side]]
            yield from (found for step in leading if (found := self.measurement(step)).step in steps)
        if "chain" in steps or "second night" in steps:
            self.fresh()
            yield from (found for found in [self.measurement("chain")] if "chain" in steps)
        if "second night" in steps:
            yield from self.grown("second night")
        shutil.rmtree(self.work, ignore_errors=True)

    def grown(self, step: str) -> Iterator[Measurement]:
        """The step on a corpus with some new files, which go away again."""
        from benchmarks.data.corpora import append

        before = set(self.corpus.iterdir())
        try:
            append(self.corpus, NEW_SHARE)
            if self.side != "ours":
                self.call("clean")
            yield self.measurement(step)
        finally:
            for path in set(self.corpus.iterdir()) - before:
                path.unlink()


def reference_environment(work: Path) -> dict[str, str]:
    """Offline, quiet, caches in the work folder, no thread pools inside the worker processes."""
    return {
        "HF_HOME": str(work / "hf"), "HF_DATASETS_CACHE": str(work / "hf" / "datasets"), "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip


def progress(found: Measurement) -> str:
    figures = found.error.splitlines()[-1] if found.error else ""
    if found.usage:
        figures = f"{found.mb_per_s:8.1f} MB/s, {found.usage.peak_anonymous_bytes / 1e6:6.0f} MB"
    return f"{found.size_bytes / 1e6:7,.0f} MB  {found.repeat + 1}  {found.side:10} {found.step:13} {figures}"


def make_corpus(folder: Path, size_bytes: int, tokenizer: Path) -> Census:
    """Generate a corpus and lay the tokenizer beside it, which is trained on the first one."""
    from benchmarks.data.corpora import KINDS, generate, good_lines
    from model.tokens.tokenizer import train_tokenizer

    census = generate(folder, size_bytes)
    if not tokenizer.exists():
        lines = (line for kind in KINDS for line in good_lines(folder / f"{kind}-000.jsonl", kind, TOKENIZER_ROWS))
        texts = (text for line in lines for text in strings_of(json.loads(line)))
        train_tokenizer(texts, VOCAB_SIZE).save(str(tokenizer))
    shutil.copy(tokenizer, folder / "tokenizer.json")
    return census


def strings_of(row: Mapping[str, Any]) -> list[str]:
    return [row["text"]] if "text" in row else [turn["content"] for turn in row["conversations"]]


def size_of(text: str) -> int:
    """Bytes of "10MB" or "1GB". Raises ArgumentTypeError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(k|M|G)B", text.strip())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write it like 10MB or 1GB")
    return int(float(match[1]) * {"k": 1e3, "M": 1e6, "G": 1e9}[match[2]])


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=lambda t: [size_of(s) for s in t.split(",")], default="10MB,100MB,1GB")
    parser.add_argument("--steps", type=lambda t: t.split(","), default=list(STEPS), help=", ".join(STEPS))
    parser.add_argument("--sides", type=lambda t: t.split(","), default=list(STEPS_OF), help=", ".join(STEPS_OF))
    parser.add_argument("--repeats", type=int, help=f"else {SMALL_REPEATS} up to {SMALL_BYTES / 1e6:.0f} MB, 1 beyond")
    parser.add_argument("--folder", type=Path, help="where corpora and outputs go for the time being")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    given = parser.parse_args(argv)
    for name, known in (("steps", STEPS), ("sides", STEPS_OF)):
        if unknown := set(getattr(given, name)) - set(known):
            parser.error(f"--{name}: no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return given


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments(argv)
    from benchmarks.data.with_datatrove import is_installed

    sides = [side for side in given.sides if side != "datatrove" or is_installed()]
    with tempfile.TemporaryDirectory(prefix="bench-data-", dir=given.folder) as temporary:
        folder = Path(temporary)
        needed = max(SPACE_FACTORS[side] for side in given.sides) * max(given.sizes)
        free = shutil.disk_usage(folder).free
        if free < needed:
            print(f"{needed / 1e9:.0f} GB are needed under {folder.parent}, {free / 1e9:.0f} GB are free; "
                  "name another --folder or smaller --sizes", file=sys.stderr)  # fmt: skip
            return 2
        facts = machine_facts(folder)
        found: list[Measurement] = []
        censuses: dict[int, Census] = {}
        for size in sorted(given.sizes):
            corpus = folder / f"corpus-{size}"
            censuses[size] = make_corpus(corpus, size, folder / "tokenizer.json")
            for repeat in range(given.repeats or (SMALL_REPEATS if size <= SMALL_BYTES else 1)):
                for side in sides:
                    found += Bench(side, size, repeat, corpus, folder / "work").run(given.steps)
            shutil.rmtree(corpus)
    text, good = report(found, censuses, facts)
    print(text)
    if given.json:
        rows = [asdict(one) | {"mb_per_s": one.mb_per_s if one.usage else None} for one in found]
        corpora = {str(size): asdict(census) for size, census in censuses.items()}
        content = {"machine": facts, "corpora": corpora, "measurements": rows, "report": text.splitlines()}
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
