"""The page Runs' handlers, without a browser: what is offered of the queue."""

from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the page's packages are not installed: requirements-page.txt")

from finetune.queue.items import Item, QueueContent
from webui.desk import Desk
from webui.pages.runs import _Page
from webui.places import Places


@pytest.mark.parametrize(
    ("waits", "is_held", "may_pause", "may_go_on"),
    [(False, False, True, False), (True, False, True, True), (True, True, False, True), (False, True, False, True)],
)
def test_the_queue_is_held_or_goes_on_where_that_changes_something(
    tmp_path: Path, waits: bool, is_held: bool, may_pause: bool, may_go_on: bool
) -> None:
    places = Places.at([tmp_path / "runs"], [], recipes=tmp_path, queue=tmp_path / "q", scratch=tmp_path / "scratch")
    item = Item(id=1, recipe="cat.yaml", cwd="/", run="runs/cat", added_at=1.0)
    content = QueueContent(items=(item,) if waits else (), paused=is_held)
    pause, go_on = _Page(Desk.at(places)).show_queue_buttons(content.model_dump_json())
    assert (pause.interactive, go_on.interactive) == (may_pause, may_go_on)
    assert (go_on.variant == "primary") == is_held
