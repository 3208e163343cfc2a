"""The folder of `inspect`: the data report, its statistics, and what each source lost in the data stages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from data.duplicates.ledger import KEPT, Ledger
from data.rows.statistics import Fates
from data.sides.rules import SideRules
from data.tokens.answers import ENOUGH, HeldAnswers
from tasks.errors import NightStopped
from tasks.pages.losses import Loss
from tasks.pages.text import plural
from tasks.recipes.recipe import Recipe, side_rules
from tasks.recipes.stage_configs import MAX_ROW_TOKENS, InspectConfig

LOSSES = "losses.json"
FEWEST_ROWS = 10
"""Of a source, to speak of most of them."""
EXPECTED_HELD_OUT = 5
"""Rows that must be expected on the validation side for none of them to be strange."""
SENTENCES = 5
"""At most, in the message of a night that stops."""


def losses_of(
    fates: Mapping[str, Fates], ledger: Ledger, answers: Mapping[str, HeldAnswers], recipe: Recipe
) -> list[Loss]:
    """Where sources lost more than the recipe's share: in validate, deduplicate, split or tokens."""
    row_length, longest = recipe.data.sequence_length_tokens, recipe.model.max_position_embeddings
    every = [
        *lost_lines(fates), *lost_sides(ledger, side_rules(recipe)), *lost_answers(answers, row_length, longest)
    ]  # fmt: skip
    return worth_naming(every, recipe.inspect)


def worth_naming(every: Sequence[Loss], config: InspectConfig) -> list[Loss]:
    """Those above the share that is worth a warning, most rows first. A few lost answers are worth one, as rows of
    another length hold them."""
    limits = {"rows": config.warn_lost_share_per_source, "answers": config.warn_lost_answers_share}
    named = [loss for loss in every if loss.of >= FEWEST_ROWS and loss.share > limits[loss.unit]]
    return sorted(named, key=lambda loss: (-loss.lost, loss.source, loss.stage))


def lost_lines(fates: Mapping[str, Fates]) -> Iterator[Loss]:
    """Quarantined lines, exact and near duplicates."""
    for source, f in sorted(fates.items()):
        worst = max(f.rules, key=lambda rule: f.rules[rule], default="")
        yield Loss(
            source=source, stage="validate", lost=f.quarantined, of=f.read - f.blank,
            what=f"are quarantined, most by {worst}", cure="`python -m flows quarantine` lists them",
        )  # fmt: skip
        valid = f.read - f.blank - f.quarantined
        yield Loss(
            source=source, stage="deduplicate", lost=f.exact_duplicates, of=valid, what="are exact copies of others",
            cure="they are kept once", may_stop=False,
        )  # fmt: skip
        yield Loss(
            source=source, stage="deduplicate", lost=f.near_duplicates, of=valid - f.exact_duplicates,
            what="are near duplicates of others",
            cure="`python -m flows why-row` says of which; deduplicate.near_threshold nearer to 1, or "
            "deduplicate.near: keep, keeps more",
        )  # fmt: skip


def lost_sides(ledger: Ledger, rules: SideRules) -> Iterator[Loss]:
    """Sources that lie wholly on one side."""
    by_source: dict[str, list[np.ndarray]] = {}
    for p in ledger.parts:
        by_source.setdefault(p.source, []).append(ledger.clusters_of(p)[ledger.fates_of(p) == KEPT])
    for source, parts in sorted(by_source.items()):
        clusters = np.concatenate(parts)
        held_out = int(rules.is_val(clusters).sum())
        sizes = np.unique(clusters, return_counts=True)[1]
        if held_out not in (0, len(clusters)) or not len(clusters):
            continue
        if held_out or len(clusters) * rules.val_share >= EXPECTED_HELD_OUT:
            crowd = f"{plural(len(sizes), 'cluster')}, the largest of {plural(sizes.max(), 'row')}"
            side = "validation side, none is trained on" if held_out else "train side, none is held out"
            yield Loss(
                source=source, stage="split", lost=len(clusters), of=len(clusters), may_stop=bool(held_out),
                what=f"lie on the {side}, in {crowd}",
                cure="deduplicate.near_threshold nearer to 1 makes smaller clusters",
            )  # fmt: skip


def lost_answers(answers: Mapping[str, HeldAnswers], row_length_tokens: int, longest: int) -> Iterator[Loss]:
    """Answers of conversations that are in no packed row, both sides together.

    `longest`: slots of the longest row that the recipe's model takes.
    """
    for source, held in answers.items():
        rows = f"{held.unpacked:,} of {plural(held.conversations, 'conversation')}"
        yield Loss(
            source=source, stage="tokens", lost=held.lost, of=held.answers, unit="answers",
            what=f"are too long for a packed row of {row_length_tokens:,} slots, {rows} are in none",
            cure=longer_rows(held, longest),
        )  # fmt: skip


def longer_rows(held: HeldAnswers, longest: int) -> str:
    """The setting that would hold almost all answers, or all where the rows there are hold almost all."""
    share = ENOUGH if held.row_length_for(ENOUGH) else 1.0
    wanted = held.row_length_for(share)
    if wanted > MAX_ROW_TOKENS:
        return (
            f"{share:.0%} of them need {wanted:,} slots, more than rows can have; "
            f"data.sequence_length_tokens: {MAX_ROW_TOKENS} would hold {held.share_held_by(MAX_ROW_TOKENS):.1%}"
        )
    more = f" (model.max_position_embeddings, {longest}, must be as large)" if wanted > longest else ""
    return f"data.sequence_length_tokens: {wanted} would hold {share:.0%} of the source's answers{more}"


def stop_if_too_much(losses: Sequence[Loss], config: InspectConfig, page: Path) -> None:
    """Raise NightStopped if a source lost more than the recipe allows."""
    over = [
        loss
        for loss in losses
        if loss.may_stop and loss.of >= config.min_rows_to_judge and loss.share > config.max_lost_share_per_source
    ]
    if over:
        raise NightStopped(
            f"a source lost more than {config.max_lost_share_per_source:.0%} of its rows or answers "
            "(inspect.max_lost_share_per_source):\n  "
            + "\n  ".join(loss.sentence for loss in over[:SENTENCES])
            + f"\nNothing was trained; leave the source out, raise the limit, or look at {page}"
        )  # fmt: skip


def write_losses(folder: Path, losses: Sequence[Loss]) -> None:
    (folder / LOSSES).write_text(json.dumps([asdict(loss) for loss in losses], indent=1), encoding="utf-8")


def read_losses(folder: Path) -> list[Loss]:
    """What the sources of a night lost, where it was more than the recipe's share."""
    return [Loss(**loss) for loss in json.loads((folder / LOSSES).read_text(encoding="utf-8"))]
