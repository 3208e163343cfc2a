"""Quarantined lines, looked at again by today's rules: how many of them would be kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from data.rows.scan import check_chunk
from schemas.jsonl import KEPT_OF_BAD_LINE_BYTES, Chunk, Fault, excerpt, read_chunks
from tasks.errors import NightStopped
from tasks.home.contents.validated import ScannedPiece
from tasks.questions.history import History
from tasks.questions.quarantine import Line, Validation, chosen_lines, chosen_pieces, newest_validation
from tasks.recipes.deployments import load_recipe
from tasks.recipes.overrides import parse_settings
from tasks.recipes.recipe import Recipe
from tasks.recipes.stage_configs import SourceConfig
from tasks.sources.pieces import COMPRESSED
from tasks.sources.resolve import files_of
from tasks.sources.tables import as_jsonl

FILE_RULES = ("file_unreadable", "file_not_jsonl")
"""Such a line stands for all that could not be read."""
CUT_RULES = ("not_utf8", "line_too_long", *FILE_RULES)
"""What the quarantine keeps of such lines is never the line itself."""
Again = tuple[bytes, Fault | None]
"""A line as it is now, and what reading it found wrong."""
LINES_AT_ONCE = 4_096
READ_BYTES = 1 << 20
EXAMPLES_SHOWN = 3


@dataclass
class Rechecked:
    """Lines by the rule that quarantined them; `read == admitted + still + gone`."""

    read: Counter[str] = field(default_factory=Counter)
    admitted: Counter[str] = field(default_factory=Counter)
    still: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By the old rule and today's."""
    gone: Counter[str] = field(default_factory=Counter)
    """Their file is not there any more, or has changed."""
    examples: list[str] = field(default_factory=list)

    def as_text(self) -> list[str]:
        lines = [
            f"{self.read.total():,} quarantined lines looked at again: {self.admitted.total():,} would be kept now, "
            f"{self.still.total():,} would not, {self.gone.total():,} are not in their files any more"
        ]
        for rule, count in self.read.most_common():
            now = Counter({new: n for (old, new), n in self.still.items() if old == rule}).most_common(4)
            others = ", ".join(f"{n:,} {new}" for new, n in now)
            lines.append(
                f"{count:>9,}  {rule}: {self.admitted[rule]:,} kept now" + (f"; still {others}" if now else "")
            )
        if self.admitted:
            lines.append(f"e.g. {', '.join(self.examples)}")
            lines.append(
                "What decides over these files has changed since they were validated, so the next night validates them "
                "anew and takes these lines in."
            )
        return lines


def recheck(validation: Validation, recipe: Recipe, home: Path, rule: str | None, file: str | None) -> Rechecked:
    """Apply a recipe to quarantined lines; those of which only the beginning was kept are read from their files."""
    found = Rechecked()
    sources = {source.name: source for source in recipe.sources}
    paths: dict[str, Path] = {}
    for piece in chosen_pieces(validation, rule, file):
        source, lines = sources.get(piece.source), chosen_lines(validation, [piece], rule)
        while some := list(islice(lines, LINES_AT_ONCE)):
            found.read.update(line.rule for line in some)
            if source is None or source.kind != piece.kind:
                found.gone.update(line.rule for line in some)
                continue
            whole, cut = split_by(is_whole, some)
            if cut and piece.label not in paths:
                paths |= paths_of(source, [p for p in validation.pieces if p.source == source.name], home)
            again = dict(lines_again(cut, piece, paths.get(piece.label), recipe.validate.max_line_bytes))
            found.gone.update(line.rule for line in cut if line.line not in again)
            for line in whole:
                again[line.line] = again_from_raw(line, recipe.validate.max_line_bytes)
            judge([line for line in some if line.line in again], again, source, recipe, found)
    return found


def split_by(test: Callable[[Line], bool], lines: Iterable[Line]) -> tuple[list[Line], list[Line]]:
    passed: list[Line] = []
    failed: list[Line] = []
    for line in lines:
        (passed if test(line) else failed).append(line)
    return passed, failed


def is_whole(line: Line) -> bool:
    """Whether the quarantine holds the line itself, not an excerpt."""
    return line.rule not in CUT_RULES and len(line.raw.encode()) < KEPT_OF_BAD_LINE_BYTES


def again_from_raw(line: Line, max_line_bytes: int) -> Again:
    content = line.raw.encode()
    too_long = Fault("line_too_long", f"{len(content)} bytes, the limit is {max_line_bytes} (validate.max_line_bytes)")
    return content, too_long if len(content) > max_line_bytes else None


def paths_of(source: SourceConfig, pieces: Iterable[ScannedPiece], home: Path) -> dict[str, Path]:
    """Where the files of a source are, by label; those that are not to be had are left out."""
    known = {piece.label: piece for piece in pieces}
    found = {}
    with suppress(NightStopped):  # nothing is at the location any more
        for file in files_of(source, home):
            if piece := known.get(file.label):
                with suppress(OSError, ValueError):
                    found[file.label] = as_jsonl(file, [piece.piece], home / "downloads")
    return found


def lines_again(
    lines: Sequence[Line], piece: ScannedPiece, path: Path | None, max_line_bytes: int
) -> Iterator[tuple[int, Again]]:
    """Lines of a piece as its file has them, by number; only those that are still what they were."""
    if not lines or path is None or not path.exists():
        return
    wanted = {line.line: line for line in lines}
    start, first_line = piece.piece.start, piece.piece.first_line
    if path.suffix not in COMPRESSED:
        start, first_line = lines[0].byte_offset, lines[0].line
    for chunk in read_chunks(path, max_line_bytes, start, piece.piece.end, first_line, READ_BYTES):
        for index, content in enumerate(chunk.lines):
            before = wanted.get(chunk.first_line + index)
            if before and (before.rule in FILE_RULES or excerpt(content).startswith(before.raw)):
                yield before.line, (content, chunk.faults.get(index))
        if chunk.first_line + len(chunk.lines) > lines[-1].line:
            return


def judge(
    lines: Sequence[Line], again: Mapping[int, Again], source: SourceConfig, recipe: Recipe, found: Rechecked
) -> None:
    """Check lines of one source as a scan does, and count what becomes of them."""
    faults = {index: fault for index, line in enumerate(lines) if (fault := again[line.line][1])}
    chunk = Chunk(1, [line.byte_offset for line in lines], [again[line.line][0] for line in lines], faults)
    _, kept, broken = check_chunk(chunk, source.kind, source.format, recipe.validate.filters)
    for index in kept.tolist():
        found.admitted[lines[index].rule] += 1
        if len(found.examples) < EXAMPLES_SHOWN:
            found.examples.append(f"{lines[index].file}:{lines[index].line}")
    found.still.update((lines[index].rule, fault.rule) for index, fault in broken.items())


def recheck_quarantine(
    home: Path, recipe: str | None, rule: str | None, file: str | None, settings: Sequence[str] = ()
) -> list[str]:
    """The last validation's quarantined lines under a recipe of prefect.yaml with some settings (`key.path=value`)."""
    validation = newest_validation(History(home), recipe)
    name = recipe or validation.recipe
    if name is None:
        raise NightStopped(f"nothing says which recipe {validation.folder.name} was of; name one with --recipe")
    today = load_recipe(name).with_overrides(parse_settings(settings))
    return recheck(validation, today, home, rule, file).as_text()
