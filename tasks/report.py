"""The summary of a night, for the terminal and as markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.artifacts import StageRecord


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

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """(stage, time, key figure) of each stage."""
        return [(r.stage, "reused" if r.reused else f"{r.seconds:.1f} s", r.headline) for r in self.records]

    def as_text(self) -> str:
        """For a terminal."""
        lines = [f"Night {self.recipe} {self.key}", "", f"{'stage':<10} {'time':>9}   key figure"]
        lines += [f"{stage:<10} {time:>9}   {headline}" for stage, time, headline in self.rows]
        lines += [
            "",
            f"{'PROMOTED' if self.decision['promoted'] else 'NOT PROMOTED'}  version {self.decision['version']}",
        ]
        lines += [f"  {self.decision['reason']}", ""]
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
        lines += ["", f"Night: {self.link(self.run_id)}", "", "| user | assistant |", "|---|---|"]
        lines += [f"| {cell(chat['prompt'])} | {cell(chat['reply'])} |" for chat in self.chats]
        return "\n".join([*lines, ""])

    def link(self, run_id: str) -> str:
        return f"[{run_id[:8]}]({self.tracking_ui}/#/experiments/{self.experiment_id}/runs/{run_id})"


def one_line(text: str) -> str:
    return " ".join(text.split())


def cell(text: str) -> str:
    return one_line(text).replace("|", "\\|")
