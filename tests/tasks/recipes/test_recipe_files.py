"""Recipes in files: what one may say, where its relative locations start, and every way in which one can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.__main__ import main
from tasks.errors import MESSAGE_LIMIT, NightStopped
from tasks.recipes.deployments import load_recipe, load_recipe_file
from tasks.recipes.recipe import plain_recipe
from tasks.recipes.recipe_files import read_recipe_file, recipe_name
from tasks.sources.resolve import locate
from tests.tiny_recipe import tiny_content, write_sources


@pytest.fixture
def folder(tmp_path: Path, home: Path) -> Path:
    """Sources beside which recipes are written."""
    write_sources(tmp_path / "mine [1]" / "raw", rows=20)
    return tmp_path / "mine [1]"


def content(**changes: Any) -> dict[str, Any]:
    relative = {"text": Path("raw/text.jsonl"), "chat": Path("raw/c*t.jsonl")}
    return tiny_content(relative) | {"name": "mine"} | changes


def written(path: Path, **changes: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content(**changes)), encoding="utf-8")
    return path


def test_relative_locations_start_at_the_folder_of_the_file(folder: Path, home: Path) -> None:
    data = {"sequence_length_tokens": 64, "tokenizer": "tokens"}
    evaluate = {"harness_tasks": ["toy"], "harness_folder": "tasks"}
    recipe = load_recipe(str(written(folder / "a.yaml", data=data, evaluate=evaluate)))
    files = [locate(source, home) for source in recipe.sources]
    assert [path for [(_, path)] in files] == [folder / "raw" / "text.jsonl", folder / "raw" / "chat.jsonl"]
    assert recipe.data.tokenizer == str(folder / "tokens")
    assert recipe.evaluate.harness_folder == str(folder / "tasks")


@pytest.mark.parametrize("location", ["/data/*.jsonl", "~/x.jsonl", "hub:owner/name", "https://example.org/x.jsonl"])
def test_other_locations_stay(folder: Path, location: str) -> None:
    sources = content()["sources"]
    sources[0]["location"] = location
    assert load_recipe(str(written(folder / "a.yaml", sources=sources))).sources[0].location == location


def test_what_a_dry_run_prints_is_a_recipe_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "printed.yaml"
    path.write_text(yaml.safe_dump(plain_recipe(load_recipe("demo"))))
    assert load_recipe(str(path)) == load_recipe("demo"), "the same content may have the same name"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pretrian": {}}, "pretrian: Unexpected keyword argument"),
        ({"name": "demo"}, "prefect.yaml has another recipe 'demo'; give this one another name"),
        ({"sources": []}, "sources has none of kind pretrain"),
        ({"name": 3}, "is no recipe: it must be a mapping with `name`"),
        ({"schedules": "nightly"}, "schedules must be a list such as"),
        ({"schedules": [{"cron": "0 4 * * *", "active": True}]}, "unknown: active. `make arm` turns one on"),
    ],
)
def test_a_wrong_recipe_is_one_message(
    folder: Path, changes: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(folder / "wrong.yaml", **changes)
    for words in (["--recipe", str(path), "--dry-run"], ["find-lr", "--recipe", str(path), "--dry-run"]):
        assert main(words) == 2
        told = capsys.readouterr().err
        assert said in told and str(path) in told
        assert len(told) < MESSAGE_LIMIT + 10


@pytest.mark.parametrize("raw", [b"a: [", b"\xff\xfe", b"", b"- 1", b"just text", b"deployments: []"])
def test_a_file_that_is_something_else_is_one_message(folder: Path, raw: bytes) -> None:
    path = folder / "other.yaml"
    path.write_bytes(raw)
    for given in (path, folder / "missing.yaml", folder):
        with pytest.raises(NightStopped, match=r"is no YAML|is no recipe|cannot be read: (No such|Is a dir)"):
            load_recipe(str(given))


def test_a_recipe_of_the_home_goes_by_its_name(folder: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = written(home / "recipes" / "mine.yaml", description="my own text")
    assert load_recipe("mine") == load_recipe(str(own))
    assert recipe_name(str(own)) == recipe_name("mine") == "mine"
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "run this recipe: my own text" in " ".join(capsys.readouterr().out.split())
    assert main(["mien"]) == 2
    assert "did you mean mine?" in capsys.readouterr().err


def test_the_home_s_file_is_called_as_its_recipe_and_another_cannot_be(folder: Path, home: Path) -> None:
    with pytest.raises(NightStopped, match=r"holds the recipe 'mine'; call the file mine\.yaml"):
        load_recipe_file(written(home / "recipes" / "other.yaml"))
    written(home / "recipes" / "mine.yaml")
    with pytest.raises(NightStopped, match="has another recipe 'mine'"):
        load_recipe_file(written(folder / "a.yaml"))


def test_a_broken_file_of_the_home_hides_no_other_recipe(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "recipes").mkdir(parents=True)
    (home / "recipes" / "torn.yaml").write_text("a: [")
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "torn.yaml is no YAML" in " ".join(capsys.readouterr().out.split())
    assert load_recipe("demo").name == "demo"
    assert main(["torn", "--dry-run"]) == 2
    assert "is no YAML" in capsys.readouterr().err


def test_a_name_of_a_command_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(home / "recipes" / "sweep.yaml", name="sweep")
    assert main(["demo", "--dry-run"]) == 2
    assert "has a recipe 'sweep', which is the name of a command" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["find-lr"], ["sweep", "--over", "pretrain.optim.peak_lr=1"]])
def test_a_trial_takes_a_name_or_a_file_and_not_both(
    words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = ["--recipe", str(written(folder / "a.yaml"))]
    for given in (words, [*words, "demo", *file]):
        assert main([*given, "--dry-run"]) == 2
        assert "give a recipe: its name, or a file with --recipe FILE; not both" in capsys.readouterr().err


def test_a_file_says_when_its_recipe_runs(folder: Path) -> None:
    file = read_recipe_file(written(folder / "a.yaml", schedules=[{"cron": "0 4 * * *", "timezone": "UTC"}]))
    assert file.schedules == ({"cron": "0 4 * * *", "timezone": "UTC"},)
    assert "schedules" not in json.dumps(file.content)
