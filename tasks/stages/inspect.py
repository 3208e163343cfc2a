"""Tonight's data in numbers and as a page, beside the champion's; too different, and the night stops untrained."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from prefect.artifacts import create_markdown_artifact

from data.duplicates.ledger import EXACT, FATES, KEPT
from data.rows.drift import drift
from data.rows.statistics import STATISTICS, Fates, NightStatistics, Overlap, Statistics, TokenCount
from data.sides.slices import read_slices
from data.tokens.contamination import CONTAMINATED_FROM
from data.tokens.overlap import contamination
from tasks.errors import NightStopped
from tasks.evaluation.audit import apart as parted
from tasks.evaluation.enough import why_too_few
from tasks.home.contents.deduplicated import open_ledger
from tasks.home.contents.inspected import losses_of, stop_if_too_much, write_losses
from tasks.home.contents.packed import FIGURES, read_answers, read_scored_text
from tasks.home.contents.registered import TRAINING_DATA
from tasks.home.contents.validated import REPORT, read_pieces
from tasks.home.records import StageRecord
from tasks.pages.data_report import DataReport
from tasks.pages.losses import Loss
from tasks.pages.text import artifact_key
from tasks.recipes.recipe import Recipe
from tasks.stage import Night, Outcome, StageRun, by_content, stage
from tasks.tracking.registry import ModelVersion

PAGE = "data-report.html"
log = logging.getLogger("nightschool")


def statistics_of(model: ModelVersion | None) -> NightStatistics | None:
    """Statistics of the data that a registered model was trained on, if it carries some that compare."""
    try:
        stored = (model.path / TRAINING_DATA).read_text(encoding="utf-8") if model else ""
        return NightStatistics.from_dict(json.loads(stored))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def count_everything(
    validated: StageRecord, distinct: StageRecord, rows: StageRecord, tokens: StageRecord
) -> NightStatistics:
    """What the stages counted, put together by source."""
    pieces, ledger = read_pieces(validated.path), open_ledger(distinct.path)
    sources: dict[str, Statistics] = {}
    fates: dict[str, Fates] = {}
    for part, piece in zip(ledger.parts, pieces, strict=True):
        found = np.bincount(ledger.fates_of(part), minlength=len(FATES)).tolist()
        scanned = piece.scanned
        of_piece = Fates(
            read=scanned.read, kept=found[KEPT], exact_duplicates=found[EXACT], near_duplicates=sum(found[EXACT + 1 :]),
            quarantined=scanned.quarantined, blank=scanned.blank,
            rules={rule: int(r["count"]) for rule, r in scanned.rules.items()},
        )  # fmt: skip
        fates[piece.source] = fates.get(piece.source, Fates()).merge(of_piece)
        before = sources.get(piece.source, Statistics())
        sources[piece.source] = before.merge(Statistics.from_dict(scanned.statistics))
    return with_tokens(sources, fates, rows.path, tokens.path)


def with_tokens(sources: dict[str, Statistics], fates: dict[str, Fates], rows: Path, tokens: Path) -> NightStatistics:
    """The rest of the statistics, from what the tokens stage noted."""
    figures: dict[str, Any] = json.loads((tokens / FIGURES).read_text())
    used = {d: np.unpackbits(np.frombuffer(bytes.fromhex(bits), dtype=np.uint8)) for d, bits in figures["used"].items()}
    vocabulary = figures["vocabulary"]
    coverage = {domain: float(bits.sum() / vocabulary) for domain, bits in used.items()}
    if used:
        coverage["all"] = float(np.bitwise_or.reduce(list(used.values())).sum() / vocabulary)
    documents = contamination(rows, tokens)
    overlaps: dict[str, Overlap] = {}
    for (kind, domain), part in sorted(documents.group_by("kind", "domain")):
        over = int((part["share"] >= CONTAMINATED_FROM).sum())
        overlaps[f"{kind}/{domain}"] = Overlap(documents=len(part), overlapping=over)
    return NightStatistics(
        sources=sources, fates=fates,
        tokens={
            source: {domain: TokenCount(tokens=t, bytes=b) for domain, (t, b) in by.items()}
            for source, by in figures["sizes"].items()
        },
        vocabulary_coverage=coverage,
        slots_filled=figures["slots_filled"],
        dispersion={domain: found / chance for domain, (found, chance) in figures["dispersion"].items() if chance},
        contamination=overlaps,
    )  # fmt: skip


def data_alone(night: Night, champion: ModelVersion | None, unknown: str, **records: StageRecord) -> dict[str, str]:
    """Digests of the data. Drift is from whoever is champion when it is looked at first: the same data again is found
    done, as the decision on it is. What was looked at without knowing the champion is looked at again."""
    return {**by_content(night, **records), **({"champion": "unknown"} if unknown else {})}


def looking(recipe: Recipe) -> dict[str, object]:
    """The settings that decide what is told, and what stops the night."""
    enough = {name: getattr(recipe.promote, name) for name in ("min_documents", "min_bytes")}
    return {"inspect": recipe.inspect, "promote": enough, "audit_share": recipe.evaluate.audit_share}


def why_too_little(rows: StageRecord, tokens: StageRecord, recipe: Recipe) -> str:
    """Why tonight's validation text will decide nothing, before anything is trained; empty if it is enough."""
    documents = contamination(rows.path, tokens.path).join(read_scored_text(tokens), on=["row_id", "kind"])
    deciding, _ = parted(documents, recipe.evaluate.audit_share)
    return why_too_few(len(deciding), int(deciding["num_bytes"].sum()), "tonight there are", recipe.promote)


@stage(config=looking, inputs=data_alone)
def inspect(
    run: StageRun,
    validated: StageRecord,
    distinct: StageRecord,
    rows: StageRecord,
    tokens: StageRecord,
    champion: ModelVersion | None,
    unknown: str,
) -> Outcome:
    """Write the data report; raise NightStopped if data drifted further, or a source lost more, than the recipe allows.

    validated, distinct, rows, tokens: records of validate, deduplicate, split and tokens.
    champion: the version in use, with whose data tonight's is compared; None if there is none.
    unknown: why nobody knows the champion, empty if it is known.
    """
    reference, limit = statistics_of(champion), run.recipe.inspect.max_drift_psi
    statistics = count_everything(validated, distinct, rows, tokens)
    apart = drift(statistics, reference) if reference else None
    report = json.loads((validated.path / REPORT).read_text(encoding="utf-8"))
    title = f"Data of {run.recipe.name}"
    answers = read_answers(tokens)
    losses = losses_of(dict(statistics.fates), open_ledger(distinct.path), answers, run.recipe)
    write_losses(run.folder, losses)
    too_little, slices = why_too_little(rows, tokens, run.recipe), read_slices(rows.path)
    for warning in filter(None, [too_little, *(loss.sentence for loss in losses)]):
        log.warning("%s", warning)
    (run.folder / STATISTICS).write_text(json.dumps(statistics.as_dict(), ensure_ascii=False), encoding="utf-8")
    page = DataReport(
        statistics, apart, report["set_aside"], title, report["rules"], losses, too_little, slices, answers
    )
    (run.folder / PAGE).write_text(page.as_html(), encoding="utf-8")
    for name in (STATISTICS, PAGE):
        run.tracker.artifact(run.folder / name, "data")
    key = artifact_key(run.recipe.name, "data-report")
    create_markdown_artifact(page.as_markdown(), key=key, description="Tonight's data")
    stop_if_too_much(losses, run.recipe.inspect, run.folder / PAGE)
    if apart and limit is not None and (messages := apart.over(limit)):
        raise NightStopped(
            "tonight's data is too far from the champion's (inspect.max_drift_psi):\n  " + "\n  ".join(messages[:6])
            + f"\nNothing was trained; look at {run.folder / PAGE}"
        )  # fmt: skip
    return outcome(statistics, apart.worst.psi if apart else None, unknown, losses, too_little)


def outcome(
    statistics: NightStatistics, worst_psi: float | None, unknown: str, losses: Sequence[Loss], too_little: str
) -> Outcome:
    """The stage's headline numbers."""
    domains: Counter[str] = Counter()
    for name, profile in statistics.by_domain.domains.items():
        domains[name] += profile.bytes
    whole = max(1, sum(domains.values()))
    shares = ", ".join(f"{name} {size / whole:.0%}" for name, size in domains.most_common(4))
    overlaps = (statistics.contamination or {}).values()
    contaminated = sum(o.overlapping for o in overlaps) / max(1, sum(o.documents for o in overlaps))
    figures = {"data/contaminated_share": contaminated}
    if statistics.dispersion:
        figures["data/dispersion_max"] = max(statistics.dispersion.values())
    if worst_psi is not None:
        figures["data/drift_psi_max"] = worst_psi
    compared = f", drift {worst_psi:.2f}" if worst_psi is not None else ""
    compared += ", drift unknown: the champion's data could not be read" if unknown else ""
    compared += ", too little validation text to promote by" if too_little else ""
    if losses:
        compared += f", {', '.join(sorted({loss.source for loss in losses}))} lost more than the recipe's share"
    return Outcome(
        counts={"sources": len(statistics.names), "domains": len(domains), "losses": len(losses)},
        headline=f"{shares}; {contaminated:.1%} of validation documents share a passage with train{compared}",
        figures=figures,
    )
