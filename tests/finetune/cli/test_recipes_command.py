"""`atelier recipes list|show|copy|schema`: what it prints, and that it overwrites nothing."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.cli.recipes import add_parser
from finetune.errors import RecipeError
from finetune.recipe import json_schema, load_recipe, shipped_profiles, shipped_recipes


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["recipes", *words])
    return int(arguments.run(arguments))


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_list_names_everything_that_ships(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    printed = capsys.readouterr().out
    for shipped in [*shipped_recipes(), *shipped_profiles()]:
        assert any(line.split()[:1] == [shipped.name] and shipped.purpose in line for line in printed.split("\n"))
    assert run("list", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    stages = [
        f"miniature/{name}"
        for name in ("base-1", "base-2", "base-3", "base-4", "decoder", "decoder-2", "refiner", "vae")
    ]
    assert [entry["name"] for entry in data["recipes"]] == ["character", *stages, "object", "quickstart", "style"]
    assert [entry["name"] for entry in data["profiles"]] == [f"hardware/{size}gb" for size in (8, 12, 16, 24)]


def test_list_is_a_table_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run("list") == 0
    assert "│ quickstart" in capsys.readouterr().out


def test_show_prints_the_file_with_its_advice(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "style") == 0
    assert capsys.readouterr().out == Path(shipped_recipes()[-1].path).read_text("utf-8")
    assert run("show", "hardware/8gb", "--json") == 0
    assert "768" in json.loads(capsys.readouterr().out)["text"]


def test_show_resolved_is_a_recipe_that_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "style", "training.steps=7", "--resolved") == 0
    Path("style.yaml").write_text(capsys.readouterr().out, "utf-8")
    assert load_recipe("style.yaml") == load_recipe("style", ["training.steps=7"])
    assert run("show", "style", "training.steps=7", "--resolved", "--json") == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["training"]["steps"] == 7
    with pytest.raises(RecipeError, match="add --resolved"):
        run("show", "style", "training.steps=7")
    with pytest.raises(RecipeError, match="Did you mean 'style'"):
        run("show", "stlye")


def test_copy_writes_a_recipe_and_overwrites_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("copy", "style") == 0
    assert capsys.readouterr().out == "style.yaml written. Run it: atelier train style.yaml\n"
    assert load_recipe("style.yaml") == load_recipe("style")
    Path("style.yaml").write_text("mine")
    with pytest.raises(RecipeError, match=r"style\.yaml exists and is left as it is"):
        run("copy", "style")
    assert Path("style.yaml").read_text() == "mine"
    Path("folder").mkdir()
    assert run("copy", "quickstart", "folder", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"recipe": "quickstart", "path": "folder/quickstart.yaml"}
    assert load_recipe("folder/quickstart.yaml") == load_recipe("quickstart")
    assert run("copy", "hardware/12gb", "card.yaml") == 0
    assert "extends: [style, card.yaml]" in capsys.readouterr().out
    with pytest.raises(RecipeError, match=r"no recipe 'stlye' ships. Did you mean 'style'\?"):
        run("copy", "stlye")


def test_schema_prints_the_schema_or_explains_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("schema") == 0
    assert json.loads(capsys.readouterr().out) == json_schema()
    assert run("schema", "training.optimizer.betas") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("training.optimizer.betas (kind: auto, adamw, adamw8bit, paged_adamw8bit, prodigy)\n")
    assert "default [0.9, 0.999]" in printed
    assert run("schema", "data.sources.*.mask.ending") == 0
    assert "(kind: files)" in capsys.readouterr().out, "once, though every kind of source has it"
    assert run("schema", "adapter.unet.rank", "--json") == 0
    [field] = json.loads(capsys.readouterr().out)["fields"]
    assert (field["key"], field["default"]) == ("adapter.unet.rank", "16")
    with pytest.raises(RecipeError, match=r"no setting 'trainin.steps'. Did you mean 'training.steps'\?"):
        run("schema", "trainin.steps")


def test_making_the_parser_imports_nothing_heavy() -> None:
    code = (
        "import argparse, sys; from finetune.cli.recipes import add_parser; "
        "add_parser(argparse.ArgumentParser().add_subparsers()); "
        "print([name for name in ('torch', 'pydantic', 'ruamel', 'rich', 'PIL') if name in sys.modules])"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
