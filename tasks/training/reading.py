"""What a training stage read, noted at its end: for questions about rows, and for a later night that goes on."""

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


def note_what_was_read(training: TrainingRun) -> None:
    """Write it into the stage's folder; text that was read beside the stage's own rows into a folder therein."""
    run, start, config, replay = training.run, training.start, training.start.config, training.start.replay
    steps, packed = training.state.step, start.tokens.path
    if isinstance(replay, TextReplay):
        own, text = replay.readings(config.batch_rows, config.seed, steps)
        note_replayed(training, text)
    else:
        trunk = replay if isinstance(replay, TrunkReplay) else None
        own = Reading(training.tokens.num_rows, config.batch_rows, config.seed, steps, trunk)
    grown = Grown(
        branch_step=training.branch_step, nights=training.nights, earlier_positions=training.earlier_positions,
        rows_digest=digest_of_rows(training.tokens, own.num_rows), tokenizer=start.tokens.files["tokenizer.json"],
    )  # fmt: skip
    write_reading(run.folder, own, grown)
    note_reading(run.folder, TrainingInput(start.kind, packed, own))


def note_replayed(training: TrainingRun, text: Reading) -> None:
    """The same of text; rows that pretraining read count there, as they are the same rows."""
    folder, packed = training.run.folder / REPLAYED, training.start.tokens
    folder.mkdir(exist_ok=True)
    before = [reading_of(training.pretrained, text.num_rows)] if training.pretrained else []
    again, *earlier = (TrainingInput(REPLAYED_KIND, packed.path, reading) for reading in (text, *before))
    write_replayed(folder, text, digest_of_kind(packed, REPLAYED_KIND))
    note_reading(folder, again, *earlier)
