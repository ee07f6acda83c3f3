"""What is started is what a person would type, once, and where this page can show it."""

from pathlib import Path

import pytest

from finetune.errors import RecipeError
from webui.desk import Desk
from webui.places import Places
from webui.recipe_form.launching import check, enqueue, start
from webui.recipe_form.presets import starting_text
from webui.recipe_form.saving import save_recipe
from webui.starting import Started, Starter


class Unstarted(Starter):
    """Remembers what it was asked for, and starts nothing."""

    def start(self, words: object, log_name: str, *, run: str = "") -> Started:
        assert isinstance(words, list)
        started = Started(tuple(words), _Endless(), self.folder / log_name, 0.0, 0, run)  # type: ignore[arg-type]
        self.started = [started, *self.started]
        return started


class _Endless:
    def poll(self) -> None:
        return None


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    places = Places.at([tmp_path / "runs"], [], recipes=tmp_path, queue=tmp_path / "queue", scratch=tmp_path)
    whole = Desk.at(places)
    return Desk(places, Unstarted(places.runs[0]), whole.watcher, whole.runs, whole.queue)


def saved(desk: Desk, more: str = "") -> Path:
    return desk.places.recipe_file(save_recipe(desk.places, "my", starting_text("quickstart", "") + more, "").name)


def test_a_recipe_is_started_once(desk: Desk) -> None:
    path = saved(desk)
    begun = start(desk, path)
    assert begun.line == "atelier train my.yaml"
    assert begun.run == "my-quickstart"
    for again in (start, enqueue):
        with pytest.raises(RecipeError, match="was started here"):
            again(desk, path)


def test_a_queued_recipe_waits_and_its_name_is_taken(desk: Desk) -> None:
    path = saved(desk)
    desk.queue.pause()
    begun, place = enqueue(desk, path)
    assert (begun.run, place) == ("my-quickstart", 1)
    assert begun.line == "atelier queue add my.yaml --queue queue"
    assert not desk.queue.has_runner()
    with pytest.raises(RecipeError, match="item 1 of the queue"):
        start(desk, path)


def test_a_run_that_this_page_could_not_show_is_refused(desk: Desk, tmp_path: Path) -> None:
    path = saved(desk, f"output_dir: {tmp_path}/elsewhere\n")
    for begin in (start, enqueue):
        with pytest.raises(RecipeError, match="below none of this page's folders"):
            begin(desk, path)
    assert not (tmp_path / "elsewhere").exists()
    assert not desk.starter.started


def test_a_wrong_recipe_is_not_started(desk: Desk) -> None:
    with pytest.raises(RecipeError, match=r"training.steps: got 0"):
        start(desk, saved(desk, "training: {steps: 0}\n"))


def test_a_check_says_what_the_command_says(desk: Desk) -> None:
    found = check(saved(desk))
    assert found["pictures"] == 10
    assert found["stops"] == []
    with pytest.raises(RecipeError, match=r"^my.yaml:5: training.steps: got 0"):
        check(
            desk.places.recipe_file(
                save_recipe(
                    desk.places, "my", starting_text("quickstart", "") + "training: {steps: 0}\n", "", replace=True
                ).name
            )
        )
