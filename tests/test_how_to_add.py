"""The stage that docs/architecture.md adds in three files is planned, trained, tracked, scored, reused, asked about."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("flows", "tasks", "data", "schemas", "model", "tests")
NIGHT = """
import sys
from pathlib import Path
from flows.retrain_nightly import retrain_nightly
from tasks.planning.plan import plan_text
from tasks.questions.answers import who_ate
from tests.tiny_recipe import tiny_recipe

recipe = tiny_recipe(Path(sys.argv[1]) / "raw")
sft = recipe.sft
recipe = recipe.with_overrides({"polish.num_tokens": sft.num_tokens, "polish.batch_rows": sft.batch_rows,
    "polish.micro_batch_rows": sft.micro_batch_rows, "polish.eval_rows": sft.eval_rows, "twin": True})
print(plan_text(recipe))
report = retrain_nightly(recipe=recipe)
print("\\n".join(f"STAGE {record.name}" for record in report.records))
again = retrain_nightly(recipe=recipe, again=True)
print("REUSED", sum(record.reused for record in again.records), "of", len(again.records))
print("\\n".join(who_ate(Path(sys.argv[1]) / "home", report.run_id)[:2]))
[polish] = [record for record in report.records if record.name == "polish"]
print("INPUTS", sorted(polish.inputs), (polish.path / "logs" / "loss.png").exists())
"""


def documented_diff() -> str:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    [diff] = re.findall(r"^```diff\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return str(diff)


def test_a_training_stage_is_its_own_file_the_table_and_the_recipe() -> None:
    changed = re.findall(r"^\+\+\+ b/(.*)$", documented_diff(), re.MULTILINE)
    assert changed == ["tasks/stages/polish.py", "tasks/home/stage_table.py", "tasks/recipes/recipe.py"]


@pytest.mark.slow
def test_the_documented_stage_takes_part_in_a_night(tmp_path: Path) -> None:
    copy = tmp_path / "tree"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "prefect.yaml", copy)
    subprocess.run(["git", "apply", "--unidiff-zero", "-"], cwd=copy, input=documented_diff(), text=True, check=True)
    environment = os.environ | {"NIGHTSCHOOL_HOME": str(tmp_path / "home"), "PREFECT_HOME": str(tmp_path / "prefect")}
    done = subprocess.run(
        [sys.executable, "-c", NIGHT, str(tmp_path)], cwd=copy, env=environment, capture_output=True, text=True,
        check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3_000:]
    said = done.stdout
    assert re.search(r"^polish +\d+ steps of", said, re.MULTILINE), "in the plan"
    assert re.search(r"^twin-polish +\d+ steps of", said, re.MULTILINE)
    stages = re.findall(r"^STAGE (\S+)$", said, re.MULTILINE)
    assert stages[5:10] == ["pretrain", "sft", "polish", "evaluate", "register"]
    assert stages[10:] == ["twin-pretrain", "twin-sft", "twin-polish", "twin-evaluate"]
    assert "REUSED 14 of 14" in said
    assert "polish@" in said, "who-ate knows it"
    assert "INPUTS ['tokens', 'tuned'] True" in said
