"""The page's handlers, called as the page calls them: without a browser."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from webui.desk import Desk
from webui.pages import recipe
from webui.pages.recipe import _Page
from webui.pages.recipe.tab import TabForm
from webui.places import Places
from webui.recipe_form.saving import open_recipe, save_recipe
from webui.recipe_form.view import ALL_TABS, contents

START = "extends: [character, hardware/12gb]\nschema_version: 1\nname: me\n"
SHARED = 6  # text, problems, differences, settings that differ, what is known, the draft; then one number a tab


@pytest.fixture
def page(tmp_path: Path) -> _Page:
    places = Places.at([tmp_path / "runs"], [], recipes=tmp_path, queue=tmp_path / "queue", scratch=tmp_path)
    return _Page(Desk.at(places))


def in_a_loop(make: Callable[[], Any]) -> Any:
    """Build something of Gradio's inside a loop: outside of one it makes its own, and leaves it open."""

    async def inside() -> Any:
        return make()

    return asyncio.run(inside())


def is_skipped(value: Any) -> bool:
    return isinstance(value, dict) and value.get("__type__") == "update" and len(value) == 1


def form(page: _Page, tab: str, text: str) -> tuple[TabForm, gr.Blocks]:
    def make() -> tuple[TabForm, gr.Blocks]:
        with gr.Blocks(analytics_enabled=False) as app:
            inputs = [gr.Textbox(), gr.Textbox(), gr.State()]
            made = TabForm(tab, page._look, page.react, inputs, inputs, ["character"])
            made.add(text, "me")
        return made, app

    made: tuple[TabForm, gr.Blocks] = in_a_loop(make)
    return made


def known(page: _Page, text: str) -> dict[str, str]:
    return contents(page._look(text, "me")[0])


@pytest.mark.parametrize("tab", ALL_TABS)
def test_a_forms_handlers_are_nobody_elses(page: _Page, tab: str) -> None:
    _, app = form(page, tab, START)
    assert app.fns
    assert {function.api_visibility for function in app.fns.values()} == {"private"}


def answers(made: TabForm, **changed: Any) -> list[Any]:
    values = [part.value for part in made.parts]
    for key, value in changed.items():
        values[made.keys.index(key.replace("__", "."))] = value
    return values


def test_typing_leaves_its_own_tab_alone_and_makes_others_anew(page: _Page) -> None:
    made, _ = form(page, "Training", START)
    shown = made._edit(START, "me", known(page, START), *answers(made, training__steps="9x"))
    assert 'steps: "9x"' in shown[0]
    turns = dict(zip(ALL_TABS, shown[SHARED : SHARED + len(ALL_TABS)], strict=True))
    assert {tab for tab, turn in turns.items() if not is_skipped(turn)} == {"Essentials"}
    slot = shown[SHARED + len(ALL_TABS) :][made.keys.index("training.steps")]
    assert slot.visible
    assert "needs a whole number" in slot.value


def test_another_kind_makes_its_tab_anew(page: _Page) -> None:
    made, _ = form(page, "Training", START)
    shown = made._edit(START, "me", known(page, START), *answers(made, training__optimizer__kind="prodigy"))
    turns = dict(zip(ALL_TABS, shown[SHARED : SHARED + len(ALL_TABS)], strict=True))
    assert not is_skipped(turns["Training"])


def test_what_is_shown_already_changes_nothing(page: _Page) -> None:
    made, _ = form(page, "Previews", START)
    assert all(is_skipped(each) for each in made._edit(START, "me", known(page, START), *answers(made)))


def test_a_text_that_cannot_be_read_leaves_the_form_as_it_is(page: _Page) -> None:
    before = known(page, START)
    shown = page.react(START + "a: [\n", "me", before)
    assert "1 problem" in shown[1]
    assert shown[4] == before
    assert all(is_skipped(turn) for turn in shown[SHARED:])
    made, _ = form(page, "Training", START)
    with pytest.raises(gr.Error, match="Mend it first"):
        made._edit(START + "a: [\n", "me", before, *answers(made, training__steps="5"))


def arrive(page: _Page, draft: Any = None, file: Any = None, **query: str) -> list[Any]:
    return page.arrive(draft, file, SimpleNamespace(query_params=query))


def test_one_arrives_at_a_first_recipe_a_draft_a_file_or_a_run(page: _Page, tmp_path: Path) -> None:
    name, mark, *_ = arrive(page)
    assert (name, mark) == ("my-quickstart", "")
    assert all(not is_skipped(turn) for turn in arrive(page)[-len(ALL_TABS) :])
    draft = {"text": START + "# mine\n", "name": "me"}
    assert START + "# mine\n" in arrive(page, draft, {"mark": "m"})
    for broken in ({"text": 5, "name": "me"}, "x", {"text": START}):
        assert arrive(page, broken)[0] == "my-quickstart"
    save_recipe(page.desk.places, "kept", START, "")
    assert arrive(page, draft, {"mark": "m"}, recipe="kept")[0] == "kept"
    run = tmp_path / "runs" / "old"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(START.replace("me", "old"), "utf-8")
    name, mark, *rest = arrive(page, run="old")
    assert (name, mark) == ("old-2", "")
    assert any(isinstance(each, str) and "name: old-2\n" in each for each in rest)


def test_names_of_the_address_lead_nowhere_else(page: _Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(gr, "Warning", told.append)
    for query in ({"recipe": "../x"}, {"run": "../.."}, {"run": "@9/x"}, {"recipe": "<b>"}):
        assert arrive(page, **query)[0] == "my-quickstart"
    assert len(told) == 4
    assert not any("<" in text for text in told)


def test_saving_twice_tells_of_changes_elsewhere(page: _Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: told.append(text))
    monkeypatch.setattr(gr, "Info", lambda *_, **__: None)
    mark = page.save_now(START, "me", "", False)[0]
    (tmp_path / "me.yaml").write_text(START + "# elsewhere\n", "utf-8")
    refused = page.save_now(START + "# mine\n", "me", mark, False)
    assert told
    assert refused[-1].visible
    page.save_now(START + "# mine\n", "me", mark, True)
    assert open_recipe(page.desk.places, "me").text == START + "# mine\n"


def test_the_page_is_built(page: _Page) -> None:
    def make() -> gr.Blocks:
        with gr.Blocks(analytics_enabled=False) as app:
            recipe.build(page.desk)
        return app

    assert len(in_a_loop(make).fns) > 15
