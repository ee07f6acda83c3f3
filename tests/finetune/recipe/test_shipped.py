"""Every recipe that ships is valid, says what it is for, and names a command that works."""

import re
import shlex
from pathlib import Path

import pytest

import finetune.recipe.shipped as shipped_module
from finetune.errors import RecipeError
from finetune.recipe import (
    Recipe,
    load_recipe,
    recipe_warnings,
    resolve_data_path,
    shipped_profiles,
    shipped_recipes,
    shipped_root,
)
from finetune.recipe.schema import HubModel

FILES = sorted((shipped_root() / "recipes").rglob("*.yaml"))
RECIPES = [path for path in FILES if path.parent.name == "recipes"]
STAGES = [path for path in FILES if path.parent.name == "miniature"]
PROFILES = [path for path in FILES if path.parent.name == "hardware"]


def head_of(path: Path) -> str:
    """The comment a file begins with."""
    lines = path.read_text("utf-8").split("\n")
    return "\n".join(line.lstrip("#") for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")])


def test_the_glob_finds_what_ships() -> None:
    assert [path.stem for path in RECIPES] == ["character", "object", "quickstart", "style"]
    assert {path.stem for path in PROFILES} == {"8gb", "12gb", "16gb", "24gb"}
    bases = ["base-1", "base-2", "base-3", "base-4"]
    assert sorted(path.stem for path in STAGES) == [*bases, "decoder", "decoder-2", "refiner", "vae"]
    assert {shipped.path for shipped in shipped_recipes()} == {*RECIPES, *STAGES}
    assert {shipped.path for shipped in shipped_profiles()} == set(PROFILES)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_valid_and_every_setting_has_an_effect(path: Path) -> None:
    recipe = load_recipe(path.stem)
    assert load_recipe(str(path)) == recipe
    assert recipe.name == path.stem
    assert recipe.purpose.endswith(".")
    assert recipe.preview.prompts
    assert recipe.refiner is not None
    assert recipe_warnings(recipe) == []


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.stem)
def test_a_stage_of_the_miniature_is_valid_and_stands_for_itself(path: Path) -> None:
    recipe = load_recipe(f"miniature/{path.stem}")
    assert recipe.name == path.stem
    assert recipe.purpose.endswith(".")
    assert recipe.adapter.kind == ("vae" if path.stem in {"vae", "decoder", "decoder-2"} else "full")
    assert recipe_warnings(recipe) == []
    assert "atelier miniature build" in head_of(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_head_names_purpose_and_a_command_that_parses(path: Path) -> None:
    head = head_of(path)
    assert head.lower().startswith(f" {path.stem}: ")
    [command] = re.findall(r"Run it: +(.*)", head)
    program, verb, name, *overrides = shlex.split(command)
    assert (program, verb, name) == ("atelier", "train", path.stem)
    assert isinstance(load_recipe(name, overrides), Recipe)
    for line in re.findall(r"Change it: +(.*)", head):
        assert isinstance(load_recipe(path.stem, shlex.split(line)[3:]), Recipe)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_advice_to_extend_works(path: Path, tmp_path: Path) -> None:
    found = re.findall(r"extends: \[.*\]", head_of(path))
    assert len(found) == (0 if path.stem == "quickstart" else 1)
    for line in found:
        (tmp_path / "own.yaml").write_text(line)
        assert isinstance(load_recipe(str(tmp_path / "own.yaml"), ["data.sources.0.path=x"]), Recipe)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("task", ["style", "character", "object"])
def test_a_profile_fits_every_task(task: str, profile: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(f"extends: [{task}, hardware/{profile.stem}]\n")
    recipe = load_recipe(str(tmp_path / "own.yaml"))
    assert recipe_warnings(recipe) == []
    plain = load_recipe(task)
    assert recipe.training.steps == plain.training.steps
    assert recipe.data.sources == plain.data.sources
    assert recipe.training.gradient_checkpointing
    assert (recipe.refiner is None) == (profile.stem == "8gb")


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_a_profiles_head_shows_how_to_use_it(profile: Path, tmp_path: Path) -> None:
    head = head_of(profile)
    assert head.startswith(f" Cards with {profile.stem.removesuffix('gb')} GB: ")
    [line] = re.findall(r"Use it: +(extends: .*)", head)
    assert f"hardware/{profile.stem}" in line
    (tmp_path / "my-recipe.yaml").write_text(line)
    [command] = re.findall(r"Run it: +(.*)", head)
    assert command == "atelier train my-recipe.yaml"
    assert isinstance(load_recipe(str(tmp_path / "my-recipe.yaml")), Recipe)


def test_larger_cards_take_more_pictures_at_once(tmp_path: Path) -> None:
    at_once = []
    for size in ("8gb", "12gb", "16gb", "24gb"):
        (tmp_path / "own.yaml").write_text(f"extends: [style, hardware/{size}]\n")
        at_once.append(load_recipe(str(tmp_path / "own.yaml")).training.micro_batch_size)
    assert at_once == sorted(at_once)
    assert at_once[0] == 1 < at_once[-1]


def test_real_recipes_use_the_real_model_and_refiner() -> None:
    for name in ("style", "character", "object"):
        recipe = load_recipe(name)
        assert isinstance(recipe.model, HubModel)
        assert isinstance(recipe.refiner, HubModel)
        assert recipe.model.id == "stabilityai/stable-diffusion-xl-base-1.0"
        assert recipe.refiner.id == "stabilityai/stable-diffusion-xl-refiner-1.0"


def test_quickstart_fits_the_miniature() -> None:
    recipe = load_recipe("quickstart")
    assert recipe.model.kind == "miniature"
    assert recipe.data.buckets.model_dump() == {"kind": "generated", "resolution": 64, "step": 16, "max_aspect": 2.0}
    assert all(prompt.size in (None, (64, 64)) for prompt in recipe.preview.prompts)
    assert recipe.training.precision == "fp32"


class TestPaths:
    def test_plain_paths(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert resolve_data_path("pictures") == tmp_path / "pictures"
        assert resolve_data_path("/somewhere/else") == Path("/somewhere/else")
        assert resolve_data_path("~/pictures") == tmp_path / "home" / "pictures"
        assert resolve_data_path("$HOME/x") == tmp_path / "$HOME" / "x"  # the environment is never read

    def test_samples(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "quickstart").mkdir()
        monkeypatch.setattr(shipped_module, "samples_folder", lambda: tmp_path)
        assert resolve_data_path("sample:quickstart") == tmp_path / "quickstart"
        with pytest.raises(RecipeError, match=r"Did you mean 'quickstart'\? Known: sample:quickstart"):
            resolve_data_path("sample:quikstart")
        for climbing in ("sample:../x", "sample:", "sample:/etc"):
            with pytest.raises(RecipeError, match="no sample pictures"):
                resolve_data_path(climbing)

    def test_a_wheel_holds_both_inside_the_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        package = tmp_path / "finetune"
        monkeypatch.setattr(shipped_module, "_PACKAGE", package)
        (tmp_path / "datasets" / "samples").mkdir(parents=True)
        assert shipped_module.recipes_folder() == tmp_path / "recipes"
        assert shipped_module.samples_folder() == tmp_path / "datasets" / "samples"
        (package / "shipped" / "recipes" / "hardware").mkdir(parents=True)
        (package / "shipped" / "recipes" / "hardware" / "8gb.yaml").write_text("# Small.\nseed: 1\n")
        (package / "shipped" / "recipes" / "a.yaml").write_text("purpose: An a.\n")
        assert shipped_module.shipped_root() == package / "shipped"
        assert shipped_module.samples_folder() == package / "shipped" / "samples"
        assert [(s.name, s.purpose) for s in shipped_recipes()] == [("a", "An a.")]
        assert [(s.name, s.purpose) for s in shipped_profiles()] == [("hardware/8gb", "Small.")]
