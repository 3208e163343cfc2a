"""What a training stage reads, noted for questions about rows and steps, and for a later night that goes on: the order
at its beginning, as it follows from seed, steps and rows alone, and the rows that were read at its end."""

from __future__ import annotations

from data.lookup.exposure import TrainingInput, note_reading
from model.tokens.order import Reading, TextReplay, TrunkReplay
from tasks.home.contents.packed import REPLAYED_KIND, digest_of_kind
from tasks.home.contents.pretrained import (
    REPLAYED,
    Grown,
    digest_of_rows,
    reading_of,
    write_reading,
    write_replayed,
)
from tasks.training.training_run import TrainingRun


def note_order(training: TrainingRun) -> None:
    """Note in the stage's folder how it reads its rows, and in a folder therein how it reads text beside them."""
    run, start = training.run, training.start
    own, text = readings(training)
    grown = Grown(
        branch_step=training.branch_step, nights=training.nights, earlier_positions=training.earlier_positions,
        rows_digest=digest_of_rows(training.tokens, own.num_rows), tokenizer=start.tokens.files["tokenizer.json"],
    )  # fmt: skip
    write_reading(run.folder, own, grown)
    if text:
        (run.folder / REPLAYED).mkdir(exist_ok=True)
        write_replayed(run.folder / REPLAYED, text, digest_of_kind(start.tokens, REPLAYED_KIND))


def note_what_was_read(training: TrainingRun) -> None:
    """Note beside the orders which rows were read; of text those of pretraining count, too, as they are the same."""
    folder, start = training.run.folder, training.start
    own, text = readings(training)
    note_reading(folder, TrainingInput(start.kind, start.tokens.path, own))
    if text:
        before = [reading_of(training.pretrained, text.num_rows)] if training.pretrained else []
        again, *earlier = (TrainingInput(REPLAYED_KIND, start.tokens.path, reading) for reading in (text, *before))
        note_reading(folder / REPLAYED, again, *earlier)


def readings(training: TrainingRun) -> tuple[Reading, Reading | None]:
    """What the stage reads of its own rows, and of text beside them if it replays some."""
    config, replay = training.start.config, training.start.replay
    if isinstance(replay, TextReplay):
        return replay.readings(config.batch_rows, config.seed, training.num_steps)
    trunk = replay if isinstance(replay, TrunkReplay) else None
    return Reading(training.tokens.num_rows, config.batch_rows, config.seed, training.num_steps, trunk), None
