"""Quarantined lines, checked again with today's rules: how many of them would be kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from data.rows.scan import check_chunk
from schemas.files.blocks import COMPRESSED
from schemas.files.reader import read_chunks
from schemas.jsonl import FILE_RULES, KEPT_OF_BAD_LINE_BYTES, Chunk, Fault, excerpt
from tasks.errors import NightStopped
from tasks.home.contents.validated import ScannedPiece
from tasks.pages.text import plural
from tasks.questions.history import History
from tasks.questions.quarantine import BadLine, Validation, chosen_lines, chosen_pieces, newest_validation
from tasks.recipes.deployments import load_recipe
from tasks.recipes.overrides import parse_settings
from tasks.recipes.recipe import Recipe
from tasks.recipes.recipe_files import recipe_name
from tasks.recipes.stage_configs import SourceConfig
from tasks.sources.resolve import files_of
from tasks.sources.tables import as_jsonl

CUT_RULES = ("not_utf8", "line_too_long", *FILE_RULES)
"""What the quarantine keeps of such lines is never the line itself."""
CurrentLine = tuple[bytes, Fault | None]
"""A line as its file has it now, without its end, and the fault that reading it met, if any."""
LINES_AT_ONCE = 4_096
READ_BYTES = 1 << 20
EXAMPLES_SHOWN = 3


@dataclass
class RecheckCounts:
    """Lines by the rule that quarantined them; `read == admitted + still + gone`."""

    read: Counter[str] = field(default_factory=Counter)
    admitted: Counter[str] = field(default_factory=Counter)
    still: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By the rule that quarantined them and the one they break today."""
    gone: Counter[str] = field(default_factory=Counter)
    """Lines whose file is missing or has changed."""
    examples: list[str] = field(default_factory=list)

    def as_text(self) -> list[str]:
        lines = [
            f"{plural(self.read.total(), 'quarantined line')} checked again: {self.admitted.total():,} would be kept "
            f"now, {self.still.total():,} would not, {self.gone.total():,} not in their files any more"
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
                "The rules of these files have changed since they were validated: the next night validates them again "
                "and keeps these lines."
            )
        return lines


def recheck(validation: Validation, recipe: Recipe, home: Path, rule: str | None, file: str | None) -> RecheckCounts:
    """Apply a recipe to quarantined lines; those of which only the beginning was kept are read from their files.

    `validation`: whose lines; `recipe`: whose sources and rules; `home`: folder, for copies of remote files;
    `rule`, `file`: the lines of this rule and of the file with this label alone, of all if None. Raises NightStopped if
    no line has such a rule or file.
    """
    counts = RecheckCounts()
    sources = {source.name: source for source in recipe.sources}
    paths: dict[str, Path] = {}
    for piece in chosen_pieces(validation, rule, file):
        source, lines = sources.get(piece.source), chosen_lines(validation, [piece], rule)
        while batch := list(islice(lines, LINES_AT_ONCE)):
            counts.read.update(line.rule for line in batch)
            if source is None or source.kind != piece.kind:
                counts.gone.update(line.rule for line in batch)
                continue
            whole, cut = split_by(is_whole, batch)
            if cut and piece.label not in paths:
                paths |= paths_of(source, [p for p in validation.pieces if p.source == source.name], home)
            current = dict(current_lines(cut, piece, paths.get(piece.label), recipe.validate.max_line_bytes))
            counts.gone.update(line.rule for line in cut if line.line not in current)
            for line in whole:
                current[line.line] = current_from_raw(line, recipe.validate.max_line_bytes)
            count_outcomes([line for line in batch if line.line in current], current, source, recipe, counts)
    return counts


def split_by(test: Callable[[BadLine], bool], lines: Iterable[BadLine]) -> tuple[list[BadLine], list[BadLine]]:
    passed: list[BadLine] = []
    failed: list[BadLine] = []
    for line in lines:
        (passed if test(line) else failed).append(line)
    return passed, failed


def is_whole(line: BadLine) -> bool:
    """Whether the quarantine holds the line itself, not an excerpt."""
    return line.rule not in CUT_RULES and len(line.raw.encode()) < KEPT_OF_BAD_LINE_BYTES


def current_from_raw(line: BadLine, max_line_bytes: int) -> CurrentLine:
    content = line.raw.encode()
    too_long = Fault("line_too_long", f"{len(content)} bytes, the limit is {max_line_bytes} (validate.max_line_bytes)")
    return content, too_long if len(content) > max_line_bytes else None


def paths_of(source: SourceConfig, pieces: Iterable[ScannedPiece], home: Path) -> dict[str, Path]:
    """Paths of a source's files as jsonl, by label; files that cannot be reached or read are left out."""
    known = {piece.label: piece for piece in pieces}
    paths = {}
    with suppress(NightStopped):  # nothing is at the location any more
        for file in files_of(source, home):
            if piece := known.get(file.label):
                with suppress(OSError, ValueError):
                    paths[file.label] = as_jsonl(file, [piece.piece], home / "downloads")
    return paths


def current_lines(
    lines: Sequence[BadLine], piece: ScannedPiece, path: Path | None, max_line_bytes: int
) -> Iterator[tuple[int, CurrentLine]]:
    """Lines of a piece as its file has them now, by number; only those that begin as the quarantine has them.

    `lines`: quarantined lines of `piece`, in order; `path`: the file as jsonl, None if it cannot be reached;
    `max_line_bytes`: bytes of a line from which on it is too long.
    """
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


def count_outcomes(
    lines: Sequence[BadLine],
    current: Mapping[int, CurrentLine],
    source: SourceConfig,
    recipe: Recipe,
    counts: RecheckCounts,
) -> None:
    """Check lines of one source as a scan does, and count in `counts` which are kept and which rule the others break.

    `lines`: quarantined lines; `current`: the same lines as they are now, by number; `source`, `recipe`: whose format
    and rules hold today.
    """
    faults = {index: fault for index, line in enumerate(lines) if (fault := current[line.line][1])}
    chunk = Chunk(1, [line.byte_offset for line in lines], [current[line.line][0] for line in lines], faults)
    checked = check_chunk(chunk, source.kind, source.format, source.merge_turns, recipe.validate.filters)
    for index in checked.places.tolist():
        counts.admitted[lines[index].rule] += 1
        if len(counts.examples) < EXAMPLES_SHOWN:
            counts.examples.append(f"{lines[index].file}:{lines[index].line}")
    counts.still.update((lines[index].rule, fault.rule) for index, fault in checked.faults.items())


def recheck_quarantine(
    home: Path, recipe: str | None, rule: str | None, file: str | None, settings: Sequence[str] = ()
) -> list[str]:
    """The last validation's quarantined lines under a recipe, as lines of text.

    `home`: folder of the home; `recipe`: its name or file, None for the one that ran last; `rule`, `file`: as in
    `recheck`; `settings`: values of the recipe to replace, `key.path=value`. Raises NightStopped if one does not exist.
    """
    validation = newest_validation(History(home), recipe_name(recipe))
    name = recipe or validation.recipe
    if name is None:
        raise NightStopped(f"{validation.folder.name} does not record its recipe; name one with --recipe")
    today = load_recipe(name).with_overrides(parse_settings(settings))
    return recheck(validation, today, home, rule, file).as_text()
