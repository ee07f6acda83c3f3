"""Lines that ask and lines that answer: what may stand in them, and how the pictures of a request are counted."""

import json

import pytest

from finetune.drawing.messages import DrawRequest, Failed, Progress, parse_answer, parse_line
from finetune.drawing.plan import plan_passes
from finetune.drawing.share import shared_steps
from finetune.errors import RecipeError
from finetune.recipe.preview import EnsembleRefiner, ImageToImageRefiner

_RUN = {"kind": "run", "run": "/runs/cat", "step": 10}
_FILE = {"kind": "file", "path": "/x.safetensors", "strength": 0.5}


def _asked(**settings):
    return {"kind": "draw", "id": "1", "folder": "/out", "source": "quickstart", "prompt": "a cat", **settings}


def test_a_request_comes_back_as_it_was_sent():
    request = DrawRequest(**_asked(loras=[_RUN, _FILE], columns=["base", "lora"], seeds=[1, 2], size=[64, 32]))
    assert parse_line(request.model_dump_json()) == request


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"version": 2}, "version"),
        ({"colour": "red"}, "colour"),
        ({"columns": ["lora"]}, "needs one: choose a LoRA"),
        ({"loras": [_FILE]}, "no picture with them"),
        ({"strengths": [1.0]}, "needs a LoRA"),
        ({"loras": [_FILE], "columns": ["lora"], "lora_steps": [1]}, "a file has one step only"),
        ({"seeds": list(range(64)), "columns": ["base", "lora"], "loras": [_RUN], "strengths": [0.1, 0.2, 0.3, 0.4]},
         "320 pictures; at most 256"),
        ({"seeds": [1, 1]}, "twice"),
        ({"loras": [{**_FILE, "strength": 1e9}], "columns": ["lora"]}, "strength"),
        ({"loras": [{**_FILE, "path": "https://example.com/x.safetensors"}], "columns": ["lora"]}, "path on this"),
        ({"size": [63, 64]}, "size"),
        ({"num_inference_steps": 2, "refiner": {"kind": "image_to_image", "strength": 0.3}}, "less than one step"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_drawn_is_refused_in_words(settings, words):
    with pytest.raises(RecipeError, match=words):
        parse_line(json.dumps(_asked(**settings)))


@pytest.mark.parametrize("line", ["", "{", "[]", '{"kind": "eval"}', '{"kind": "cancel"}', "\x00", '"draw"'])
def test_a_line_that_is_no_request_is_refused(line):
    with pytest.raises(RecipeError):
        parse_line(line)


def test_answers_are_read_back():
    for answer in (
        Progress(id="1", stage="drawing", picture=1, pictures=2),
        Failed(id=None, message="no", exit_code=2),
    ):
        assert parse_answer(answer.model_dump_json()) == answer


@pytest.mark.parametrize("columns", [["base"], ["base", "lora"], ["lora_refined"], ["base", "base_refined", "lora"]])
def test_the_plan_makes_as_many_pictures_as_were_counted(columns):
    loras = {"loras": [_RUN, _FILE], "lora_steps": [10, 20], "strengths": [0.5, 1.0, 0.0]}
    grid = loras if any("lora" in column for column in columns) else {}
    request = DrawRequest(**_asked(columns=columns, seeds=[1, 2], **grid))
    passes = plan_passes(request)
    made = [column for drawing in passes for column in (drawing.finished, drawing.refined) if column]
    assert len(made) == request.count()
    assert set(made) == set(columns)
    for drawing in passes:
        if drawing.loras:  # the grid varies the first one only
            first, second = drawing.loras
            assert (first.step, first.strength) == (drawing.lora_step, drawing.strength)
            assert second == request.loras[1]


@pytest.mark.parametrize("num_inference_steps", [1, 7, 20, 30, 50])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("switch_at", [0.25, 0.8, 0.95])
def test_steps_are_shared_as_the_schedule_shares_them(num_inference_steps, spacing, switch_at):
    from diffusers import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler(timestep_spacing=spacing, steps_offset=1)
    scheduler.set_timesteps(num_inference_steps)
    by_base = int((scheduler.timesteps >= round(1000 - switch_at * 1000)).sum())
    given = shared_steps(num_inference_steps, EnsembleRefiner(switch_at=switch_at), spacing, 1)
    assert given == (by_base, num_inference_steps - by_base)


def test_image_to_image_the_refiner_draws_some_steps_again():
    assert shared_steps(30, ImageToImageRefiner(strength=0.3)) == (30, 9)
