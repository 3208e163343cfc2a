"""The summary of a night, for the terminal and as markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.evaluation.twin import TwinComparison
from tasks.home.records import StageRecord
from tasks.pages.markdown import cell, one_line


@dataclass(frozen=True, kw_only=True)
class NightReport:
    """What a person wants to know in the morning."""

    recipe: str
    key: str
    records: Sequence[StageRecord]
    decision: Mapping[str, object]
    chats: Sequence[Mapping[str, str]]
    home: Path
    export: Path
    tracking_uri: str
    tracking_ui: str
    """Where the tracking runs can be looked at."""
    run_id: str
    experiment_id: str
    twin: TwinComparison | str | None = None
    """The comparison with the model's dense twin, why there is none, or nothing if none was asked for."""

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """(stage, time, key figure) of each stage."""
        return [(r.name, "reused" if r.reused else f"{r.seconds:.1f} s", r.headline) for r in self.records]

    def as_text(self) -> str:
        """For a terminal."""
        width = max(10, *(len(record.name) for record in self.records))
        lines = [f"Night {self.recipe} {self.key}", "", f"{'stage':<{width}} {'time':>9}   key figure"]
        lines += [f"{stage:<{width}} {time:>9}   {headline}" for stage, time, headline in self.rows]
        lines += [
            "",
            f"{'PROMOTED' if self.decision['promoted'] else 'NOT PROMOTED'}  version {self.decision['version']}",
        ]
        lines += [f"  {self.decision['reason']}", ""]
        if self.twin:
            lines += ["BESIDE THE DENSE TWIN", *(f"  {sentence}" for sentence in self.twin_sentences), ""]
        for chat in self.chats:
            lines += [
                f"  user       {one_line(chat['prompt'])}",
                f"  assistant  {one_line(chat['reply']) or '(silence)'}",
                "",
            ]
        lines += [
            "Where to look",
            f"  model      {self.export}  (loads with transformers' AutoModelForCausalLM)",
            f"  tracking   {self.tracking_uri}  (run {self.run_id})",
            "  both UIs   make up",
        ]
        return "\n".join(lines)

    def as_markdown(self) -> str:
        """For Prefect and MLflow, with links to the tracking runs."""
        lines = [
            f"# Night {self.recipe} {self.key}",
            "",
            f"**{'Promoted' if self.decision['promoted'] else 'Not promoted'}**, version {self.decision['version']}: "
            f"{self.decision['reason']}",
            "",
            "| stage | time | key figure | tracking run |",
            "|---|---:|---|---|",
        ]
        lines += [
            f"| {stage} | {time} | {headline} | {self.link(record.run_id)} |"
            for (stage, time, headline), record in zip(self.rows, self.records, strict=True)
        ]
        if self.twin:
            lines += ["", "**Beside the dense twin**", "", *(f"- {one_line(said)}" for said in self.twin_sentences)]
        lines += ["", f"Night: {self.link(self.run_id)}", "", "| user | assistant |", "|---|---|"]
        lines += [f"| {cell(chat['prompt'])} | {cell(chat['reply'])} |" for chat in self.chats]
        return "\n".join([*lines, ""])

    @property
    def twin_sentences(self) -> list[str]:
        """Are the experts worth it: at equal tokens, in time, and how closely the two match."""
        if isinstance(self.twin, TwinComparison):
            return [self.twin.verdict, self.twin.price, self.twin.sizes]
        return [f"there is nothing to compare with: {self.twin}"]

    def link(self, run_id: str) -> str:
        return f"[{run_id[:8]}]({self.tracking_ui}/#/experiments/{self.experiment_id}/runs/{run_id})"
