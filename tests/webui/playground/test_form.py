"""What stands on the page becomes a request, and a line that argparse takes apart into the same."""

import shlex
from pathlib import Path

import pytest

from finetune.cli.main import parse_line
from finetune.drawing.messages import Drawn, DrawRequest, LoraOfRun
from finetune.errors import RecipeError
from webui.places import PlaceError, Places
from webui.playground.form import (
    command_of,
    comparisons,
    even_size,
    look_at_source,
    lora_choices,
    parse_strengths,
    refiner_settings,
    resolve_lora,
    resolve_source,
    seeds_from,
    settings_in_words,
    share_in_words,
    source_choices,
    steps_of_run,
    told_size,
)

_RECIPE = """\
schema_version: 1
name: cat
model: {kind: miniature}
data: {sources: [{kind: folder, path: "sample:shapes"}]}
"""


@pytest.fixture
def places(tmp_path: Path) -> Places:
    run = tmp_path / "runs" / "cat"
    (run / "exports").mkdir(parents=True)
    (run / "recipe.yaml").write_text(_RECIPE, encoding="utf-8")
    for step in (10, 20):
        folder = run / "checkpoints" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}", encoding="utf-8")
    return Places.at([tmp_path / "runs"], [], recipes=tmp_path, queue=tmp_path / "queue", scratch=tmp_path / "scratch")


def test_runs_and_recipes_are_offered_and_nothing_else_is_taken(places):
    run = places.runs[0] / "cat"
    values = [value for _, value in source_choices(places, [run])]
    assert values[0] == "run:cat"
    assert "recipe:quickstart" in values
    assert resolve_source(places, "run:cat") == str(run)
    for value in ("run:../cat", "run:nothing", "recipe:/etc/passwd", "recipe:nothing", "saved:../x", "", "cat"):
        with pytest.raises(PlaceError):
            resolve_source(places, value)
    facts = look_at_source(places, "run:cat")
    assert (facts.model, facts.side, facts.size_multiple, facts.is_run) == ("miniature", 64, 16, True)


def test_loras_are_offered_by_step_the_newest_first(places):
    run = places.runs[0] / "cat"
    assert [value for _, value in lora_choices(places, [run])] == ["", "cat@20", "cat@10"]
    assert lora_choices(places, []) == [("none yet: train a run first", "")]
    assert resolve_lora(places, "cat@10", 0.5) == LoraOfRun(run=str(run), step=10, strength=0.5)
    assert steps_of_run(places, "cat@20") == [10, 20]
    for value in ("cat", "cat@x", "../cat@10", "@10", "cat@-1"):
        with pytest.raises(PlaceError):
            resolve_lora(places, value, 1.0)


def test_numbers_are_read_from_text_and_refused_in_words():
    assert parse_strengths(" 0, 0.5;1  1 ") == (0.0, 0.5, 1.0)
    assert parse_strengths("") == ()
    for text in ("a", "1, nan", "inf", "10.5", "-9999"):
        with pytest.raises(RecipeError, match="needs numbers"):
            parse_strengths(text)
    assert seeds_from(5, 3) == (5, 6, 7)
    for first, count in ((-1, 1), (None, 1), (0, 0), (0, 99), (1.5, 1), (float("nan"), 1), ("1", 1), (True, 1)):
        with pytest.raises(RecipeError):
            seeds_from(first, count)
    assert even_size(70, 41, 16) == (64, 48)
    for height in (0, 10**9, None, float("nan"), "64"):
        with pytest.raises(RecipeError, match="Height"):
            even_size(height, 64, 16)
    assert told_size(0, 8, "Crop", low=0) == (0, 8)
    with pytest.raises(RecipeError, match="Original size"):
        told_size(0, 8, "Original size")
    with pytest.raises(RecipeError):
        refiner_settings("other", 0.5)
    with pytest.raises(RecipeError):
        refiner_settings("ensemble", 1.0)


def test_the_sharing_of_the_steps_is_said_in_words():
    assert share_in_words(30, "ensemble", 0.2) == "The base draws 23 steps, the refiner the last 7."
    assert share_in_words(30, "image_to_image", 0.3).endswith("the refiner draws 9 steps.")


def test_the_line_means_what_was_asked_for(places):
    run = str(places.runs[0] / "cat")
    request = DrawRequest(
        id="1",
        folder="/out",
        source=run,
        columns=("base", "lora_refined"),
        loras=(LoraOfRun(run=run, step=20, strength=0.5), LoraOfRun(run=run, step=10, strength=-1.0)),
        prompt="--a 'cat'; rm",
        negative_prompt="-blue",
        seeds=(1, 2),
        strengths=(0.25,),
        lora_steps=(10,),
        size=(32, 48),
        crop_top_left=(0, 8),
        num_inference_steps=5,
        refiner={"kind": "ensemble", "switch_at": 0.75},
    )
    cell = {"id": "1", "path": "/1.png", "title": "", "settings": {}, "seed": 2}
    picture = Drawn(**cell, column="lora_refined", strength=0.25, lora_step=10)
    line = parse_line(shlex.split(command_of(request, picture))[1:])
    assert (line.source, line.prompt, line.negative, line.seed) == (run, ["--a 'cat'; rm"], "-blue", [2])
    assert (line.lora, line.strength) == ([f"{run}@10", f"{run}@10"], [0.25, -1.0])
    assert (line.size, line.crop, line.steps, line.switch_at) == ((32, 48), (0, 8), 5, 0.75)
    assert not line.no_refiner
    base = parse_line(shlex.split(command_of(request, Drawn(**cell, column="base")))[1:])
    assert (base.source, base.lora, base.no_refiner) == (f"{run}/recipe.yaml", None, True)


def test_a_picture_is_compared_with_its_own_cell():
    def drawn(path, column, seed=0, strength=None):
        return Drawn(id="1", path=path, title="", column=column, seed=seed, strength=strength, settings={})

    pictures = [
        drawn("b0", "base"), drawn("b1", "base", 1), drawn("l0", "lora", 0, 0.5), drawn("r0", "lora_refined", 0, 0.5),
        drawn("l1", "lora", 1, 0.5), drawn("m0", "lora", 0, 1.0), drawn("s0", "lora_refined", 0, 1.0),
    ]  # fmt: skip
    assert comparisons(pictures, pictures[2]) == (("b0", "l0"), ("l0", "r0"))
    assert comparisons(pictures, pictures[0]) == (("b0", "m0"), ("m0", "s0")), "of the last strength"
    assert comparisons(pictures, pictures[4]) == (("b1", "l1"), None)
    assert comparisons(pictures[:1], pictures[0]) == (None, None)


def test_settings_are_told_in_words():
    settings = {
        "prompt": "a cat", "negative_prompt": "", "size": [64, 32], "crop_top_left": (0, 8), "guidance_scale": 3.0,
        "negative_crop_top_left": (0, 8), "loras": [{"lora": "cat step 10", "strength": 0.5}],
        "refiner": {"kind": "ensemble", "switch_at": 0.8},
    }  # fmt: skip
    assert settings_in_words(settings) == [
        ("prompt", "a cat"), ("size", "64 x 32"), ("crop top left", "0, 8"), ("guidance scale", "3"),
        ("loras", "cat step 10 at 0.5"), ("refiner", "switch at 0.8"),
    ]  # fmt: skip
