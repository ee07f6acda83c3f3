"""What the studio draws: what `atelier generate` draws, the same each time, and what its settings say."""

import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image

from finetune.drawing.messages import Drawn, DrawRequest, LoraFile, LoraOfRun, Progress
from finetune.drawing.places import find_lora, lora_places, parse_lora
from finetune.errors import AtelierError, OutOfMemoryError, RecipeError
from finetune.recipe import load_recipe
from finetune.run.folder import RunFolder

_COLUMNS = ("base", "lora", "lora_refined")


@pytest.fixture(scope="module")
def studio():
    from finetune.drawing.studio import Studio

    return Studio()


def _request(run, folder, **settings):
    given = {"id": "1", "folder": str(folder), "source": str(run), "prompt": "a red cat", "size": (32, 32)}
    return DrawRequest(**{**given, **settings})


def _draw(studio, request):
    said = []
    done = studio.draw(request, said.append, lambda: False)
    return done, [answer for answer in said if isinstance(answer, Drawn)], said


def _pixels(path):
    with Image.open(path) as image:
        return hashlib.sha256(image.tobytes()).hexdigest()


def test_pictures_are_those_of_atelier_generate_and_carry_their_settings(studio, run, tmp_path):
    from finetune.cli.main import main

    common = {"columns": _COLUMNS, "loras": (LoraOfRun(run=str(run), step=10, strength=0.7),), "seeds": (4,)}
    common |= {"original_size": (16, 16), "crop_top_left": (0, 8), "negative_prompt": "blue"}
    done, pictures, said = _draw(studio, _request(run, tmp_path / "drawn", **common))
    out = tmp_path / "typed"
    line = ["generate", str(run), "--prompt", "a red cat", "--negative", "blue", "--lora", f"{run}@10"]
    line += ["--strength", "0.7", "--seed", "4", "--size", "32x32", "--original-size", "16x16", "--crop", "0x8"]
    assert main([*line, "--out", str(out)]) == 0
    typed = [_pixels(out / f"01-{name}.png") for name in ("lora-off", "lora", "lora-refiner")]
    assert [_pixels(picture.path) for picture in pictures] == typed
    assert len(set(typed)) == 3
    assert [picture.title for picture in pictures] == ["base", "base + LoRA", "base + LoRA + refiner"]
    assert done.grid is not None
    assert Path(done.grid).is_file()
    with Image.open(pictures[2].path) as image:
        written = json.loads(image.text["atelier"])
    assert written == json.loads(json.dumps(pictures[2].settings))
    assert written["loras"] == [{"lora": "cat step 10", "strength": 0.7}]
    assert (written["seed"], written["original_size"], written["refiner"]["kind"]) == (4, [16, 16], "ensemble")
    assert str(run.parent) not in json.dumps(written), "a picture is given away: it tells no paths"
    steps = [answer for answer in said if isinstance(answer, Progress) and answer.stage == "drawing"]
    assert (steps[-1].step, steps[-1].steps, steps[-1].pictures) == (3, 3, 3)


def test_the_model_stays_open_and_the_same_request_gives_the_same_bits(studio, run, tmp_path):
    loras = (LoraFile(path=str(run / "exports/cat.safetensors"), strength=0.5), LoraOfRun(run=str(run), step=10))
    request = _request(run, tmp_path / "a", columns=("base", "lora"), loras=loras, seeds=(1,))
    _, first, _ = _draw(studio, request)
    model = studio._open
    _draw(studio, _request(run, tmp_path / "b", columns=("lora",), loras=loras[:1]))
    _, again, said = _draw(studio, request.model_copy(update={"folder": str(tmp_path / "c")}))
    assert studio._open is model
    assert not [answer for answer in said if isinstance(answer, Progress) and "opening" in answer.stage]
    assert [_pixels(one.path) for one in first] == [_pixels(one.path) for one in again]


def test_a_grid_varies_the_first_lora_alone_and_strength_zero_is_the_base(studio, run, tmp_path):
    request = _request(
        run,
        tmp_path,
        columns=("base", "lora"),
        loras=(LoraOfRun(run=str(run)),),
        lora_steps=(10, 20),
        strengths=(0.0, 1.0),
        seeds=(1, 2),
    )
    done, pictures, _ = _draw(studio, request)
    assert len(pictures) == request.count() == 10
    drawn = {(one.lora_step, one.strength, one.seed): _pixels(one.path) for one in pictures}
    for seed in (1, 2):
        assert drawn[10, 0.0, seed] == drawn[20, 0.0, seed] == drawn[None, None, seed]
        assert len({drawn[10, 1.0, seed], drawn[20, 1.0, seed], drawn[None, None, seed]}) == 3
    with Image.open(done.grid) as grid:
        assert grid.width > 5 * 192  # five columns
        assert grid.height > 2 * 192


def test_a_runs_step_is_its_checkpoint_and_else_its_file(run, tmp_path):
    folder = RunFolder(run)
    places = lora_places(folder, load_recipe(str(folder.recipe)))
    assert places == {10: folder.checkpoint(10), 20: folder.checkpoint(20)}
    assert find_lora(LoraOfRun(run=str(run))) == (folder.checkpoint(20), 20)
    with pytest.raises(RecipeError, match="has kept the steps 10, 20"):
        find_lora(LoraOfRun(run=str(run), step=15))
    assert parse_lora(f"{run}@10", 1.0) == LoraOfRun(run=str(run), step=10)
    assert parse_lora(str(run), 0.5) == LoraOfRun(run=str(run), strength=0.5)
    assert parse_lora("x.safetensors", 1.0) == LoraFile(path="x.safetensors")
    with pytest.raises(RecipeError, match="less than or equal to 10"):
        parse_lora("x.safetensors", 99.0)
    other = RunFolder.create(tmp_path / "cat")
    other.recipe.write_bytes(folder.recipe.read_bytes())
    with pytest.raises(RecipeError, match="has saved no step yet"):
        find_lora(LoraOfRun(run=str(other.path)))
    (other.exports / "cat-step-000010.safetensors").write_bytes(b"")
    (other.exports / "cat.safetensors").write_bytes(b"")
    assert list(lora_places(other, load_recipe(str(other.recipe)))) == [10, 20]


def test_cancelling_stops_between_steps_and_keeps_what_is_written(studio, run, tmp_path):
    from finetune.drawing.studio import DrawingCancelledError

    said = []
    asked = _request(run, tmp_path, seeds=(1, 2, 3))
    with pytest.raises(DrawingCancelledError):
        studio.draw(asked, said.append, lambda: sum(isinstance(one, Progress) for one in said) >= 6)
    assert len([one for one in said if isinstance(one, Drawn)]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["001-base.png"]
    _, pictures, _ = _draw(studio, _request(run, tmp_path / "after"))
    assert len(pictures) == 1


def test_too_little_memory_is_said_in_words_and_the_next_request_is_drawn(studio, run, tmp_path, monkeypatch):
    import torch

    from finetune.preview.sampling import Sampler

    def full(*_given, **_named):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(Sampler, "base_latents", full)
        with pytest.raises(OutOfMemoryError, match="Make them smaller"):
            _draw(studio, _request(run, tmp_path))
    assert studio._open is None
    assert len(_draw(studio, _request(run, tmp_path))[1]) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"source": "no-such-recipe"}, "no-such-recipe"),
        ({"size": (40, 32)}, "multiples of 16"),
        ({"loras": (LoraFile(path="/no.safetensors"),), "columns": ("lora",)}, "does not exist"),
        ({"num_inference_steps": 1, "columns": ("base_refined",),
          "refiner": {"kind": "image_to_image", "strength": 0.5}}, "less than one step"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(studio, run, tmp_path, settings, words):
    with pytest.raises((AtelierError, ValueError), match=words):
        _draw(studio, _request(run, tmp_path, **settings))
