"""How a run begins beside another, and when there is nothing left to train."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from finetune.errors import RecipeError
from finetune.recipe import Recipe
from finetune.run.events import read_events
from finetune.run.folder import RunFolder
from finetune.training.data import plan_pictures, scan_pictures
from finetune.training.trainer import TrainResult, train


def trained(recipe: Recipe, *, resume: bool = False) -> TrainResult:
    return train(recipe, plan_pictures(recipe, scan_pictures(recipe)), resume=resume)


def test_a_run_that_ended_while_another_waited_for_its_lock_is_not_trained_over(
    make_recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe({"name": "one", "training.steps": 1})
    lock = RunFolder.lock

    @contextmanager
    def lock_when_the_other_has_ended(run: RunFolder) -> Iterator[None]:
        monkeypatch.setattr(RunFolder, "lock", lock)
        trained(recipe)
        with lock(run):
            yield

    monkeypatch.setattr(RunFolder, "lock", lock_when_the_other_has_ended)
    with pytest.raises(RecipeError, match="already holds a run"):
        trained(recipe)
    run = RunFolder.open(f"{recipe.output_dir}/one")
    events, _ = read_events(run.events)
    assert [event["kind"] for event in events].count("run_started") == 1
    assert events[-1]["status"] == "finished"


def test_a_resume_with_no_more_steps_says_that_nothing_is_trained(make_recipe) -> None:
    trained(make_recipe({"name": "one", "training.steps": 2}))
    for steps, says in ((1, True), (2, True), (3, False)):
        run = trained(make_recipe({"name": "one", "training.steps": steps}), resume=True).run
        events, _ = read_events(run.events)
        last = max(place for place, event in enumerate(events) if event["kind"] == "run_started")
        warned = [event["message"] for event in events[last:] if event["kind"] == "warning"]
        assert any(line.startswith("nothing is trained: the run stands at step 2") for line in warned) == says
        assert any(event["kind"] == "step" for event in events[last:]) != says
