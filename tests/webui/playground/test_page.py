"""The page's handlers, without a browser: what is asked for becomes a job, what is wrong is told, a job is shown."""

from pathlib import Path

import gradio as gr
import pytest

from finetune.drawing.messages import Drawn, LoraOfRun, Progress
from webui.desk import Desk
from webui.pages.playground import _NUM_RESULTS, _Page, _shown, _state
from webui.places import Places
from webui.playground.jobs import Job, Playground

_RECIPE = """\
schema_version: 1
name: cat
model: {kind: miniature}
refiner: {kind: miniature}
data: {sources: [{kind: folder, path: "sample:shapes"}]}
preview: {prompts: ["a <b>cat</b>"]}
"""

_FORM = {
    "source": "run:cat", "prompt": "a cat", "negative": "", "columns": ["lora_refined", "base"], "seed": 3, "steps": 8,
    "guidance": 3, "height": 64, "width": 70, "lora_0": "cat@10", "strength_0": 0.5, "lora_1": "", "strength_1": 1,
    "lora_2": "", "strength_2": 1, "lora_3": "", "strength_3": 1, "refiner": "ensemble", "share": 0.25, "told": True,
    "original_height": 32, "original_width": 32, "crop_top": 0, "crop_left": 8, "target_height": 64,
    "target_width": 64, "num_seeds": 2, "strengths": "0, 1", "lora_steps": [10],
}  # fmt: skip


class _Silent(Playground):
    """Keeps jobs and has none drawn."""

    def _go_on(self) -> None:
        pass


@pytest.fixture
def page(tmp_path: Path) -> _Page:
    run = tmp_path / "runs" / "cat"
    (run / "checkpoints" / "step-000010").mkdir(parents=True)
    (run / "checkpoints" / "step-000010" / "manifest.json").write_text("{}", encoding="utf-8")
    (run / "recipe.yaml").write_text(_RECIPE, encoding="utf-8")
    places = Places.at([tmp_path / "runs"], [], recipes=tmp_path, queue=tmp_path / "q", scratch=tmp_path / "scratch")
    page = _Page(Desk.at(places), _Silent(tmp_path / "jobs"))
    page.names = list(_FORM)
    return page


def _draw(page: _Page, **changes):
    return page.draw(*{**_FORM, **changes}.values())


def test_what_stands_on_the_page_is_asked_for(page):
    request = page.playground.look(_draw(page)).request
    run = str(page.places.run("cat").path)
    assert (request.source, request.columns, request.seeds) == (run, ("base", "lora_refined"), (3, 4))
    assert request.loras == (LoraOfRun(run=run, step=10, strength=0.5),)
    assert (request.strengths, request.lora_steps, request.size) == ((0.0, 1.0), (10,), (64, 64))
    assert (request.original_size, request.crop_top_left, request.target_size) == ((32, 32), (0, 8), (64, 64))
    assert request.refiner.switch_at == 0.75
    plain = page.playground.look(_draw(page, columns=["base"], told=False)).request
    assert (plain.loras, plain.strengths, plain.refiner, plain.original_size) == ((), (), None, None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": " "}, "no prompt"),
        ({"columns": []}, "Nothing is to be drawn"),
        ({"lora_0": ""}, "choose a LoRA"),
        ({"lora_0": "../cat@10"}, "no such run"),
        ({"source": "run:/etc"}, "no such run"),
        ({"strength_0": 99}, "Strength"),
        ({"steps": None}, "Steps"),
        ({"seed": "x"}, "Seed"),
        ({"strengths": "<b>"}, "&lt;b&gt;"),
        ({"num_seeds": 16, "strengths": "0, .1, .2, .3, .4, .5, .6, .7, .8, .9, 1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6"},
         "at most 256"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_told_as_text(page, changes, words):
    with pytest.raises(gr.Error, match=words):
        _draw(page, **changes)
    assert page.playground.newest() is None


def test_a_job_fills_every_part_and_its_words_are_text(page):
    name = _draw(page)
    request = page.playground.look(name).request
    picture = Drawn(
        id=name,
        path="/x/001.png",
        title="base",
        column="base",
        seed=3,
        settings={"prompt": "<script>alert(1)</script>"},
    )
    for job in (
        Job(request),
        Job(request, "drawing", Progress(id=name, stage="drawing", picture=1, pictures=6, step=2, steps=8), (picture,)),
        Job(request, "failed", words="<script>no</script>"),
        Job(request, "cancelled", pictures=(picture,)),
        Job(request, "done", pictures=(picture, picture), grid="/x/grid.png", words="<i>long</i>"),
    ):
        shown = _shown(job)
        assert len(shown) == _NUM_RESULTS
        html = _state(job, 0) + "".join(part for part in shown if isinstance(part, str))
        assert "<script>" not in html
        assert "<i>" not in html
    now = Progress(id=name, stage="drawing", picture=2, pictures=6, step=2, steps=8)
    assert 'max="48" value="10"' in _state(Job(request, "drawing", now), 0)
