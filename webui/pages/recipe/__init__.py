"""The page 'Recipe': a form and its YAML, each following the other; checking, starting and queueing what they say."""

from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from finetune.errors import AtelierError, RecipeError
from finetune.recipe.shipped import shipped_names
from webui.desk import Desk
from webui.pages.parts import on_open
from webui.pages.recipe import words
from webui.pages.recipe.tab import TabForm
from webui.places import PlaceError
from webui.recipe_form.differences import differences
from webui.recipe_form.document import set_value
from webui.recipe_form.editing import take_back
from webui.recipe_form.launching import check, enqueue, names_taken, start
from webui.recipe_form.looking import Look, look_at
from webui.recipe_form.presets import AS_IT_IS, cards, free_name, starting_text, tasks
from webui.recipe_form.saving import ChangedElsewhereError, open_recipe, save_recipe, saved_names
from webui.recipe_form.view import ALL_TABS, contents
from webui.words import as_text, told

_FIRST = "quickstart"
_MOST_LETTERS = 1 << 20


def build(desk: Desk) -> None:
    """Add the page's parts and events."""
    _Page(desk).add()


class _Page:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def add(self) -> None:
        gr.Markdown("# Recipe")
        self._add_beginnings()
        self.undo = gr.Button("Bring back what was here before", visible=False, size="sm", elem_id="recipe-undo")
        self.summary = gr.HTML(elem_id="recipe-summary", label="Problems")
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=320):
                self._add_form_tabs()
            with gr.Column(scale=2, min_width=320, elem_id="recipe-side"):
                self._add_yaml()
        self._add_listeners()

    def _add_beginnings(self) -> None:
        with gr.Row():
            self.task = gr.Dropdown(
                [(f"{preset.name}: {preset.purpose}", preset.name) for preset in tasks()],
                value=_FIRST,
                label="Task",
                info="What is to be learned.",
                elem_id="recipe-task",
                scale=3,
                min_width=240,
            )
            self.card = gr.Dropdown(
                [("as the task has it", AS_IT_IS), *((preset.name, preset.name) for preset in cards())],
                value=AS_IT_IS,
                label="Graphics card",
                info="How much memory it has.",
                elem_id="recipe-card",
                scale=2,
                min_width=240,
            )
            self.begin = gr.Button(
                "New recipe from these", elem_id="recipe-new", elem_classes="beside", scale=1, min_width=180
            )
        with gr.Row():
            self.saved = gr.Dropdown(
                [],
                interactive=True,
                label="Saved recipes",
                info="Those in the page's folder.",
                elem_id="recipe-saved",
                scale=5,
            )
            self.open = gr.Button("Open", elem_id="recipe-open", elem_classes="beside", scale=1, min_width=180)

    def _add_yaml(self) -> None:
        self.text = gr.Code(
            language="yaml",
            label="YAML",
            interactive=True,
            lines=16,
            max_lines=32,
            wrap_lines=True,
            elem_id="recipe-yaml",
            buttons=["copy", "download"],
        )
        with gr.Row():
            self.name = gr.Textbox(
                label="File name",
                max_lines=1,
                elem_id="recipe-name",
                placeholder="my-character",
                scale=2,
                min_width=160,
            )
            self.save = gr.Button("Save", elem_id="recipe-save", elem_classes="beside", scale=1, min_width=100)
        self.replace = gr.Checkbox(
            False, label="Replace the file that is there", visible=False, elem_id="recipe-replace"
        )
        with gr.Row():
            self.check = gr.Button("Check", elem_id="recipe-check", min_width=90)
            self.start = gr.Button("Start now", variant="primary", elem_id="recipe-start", min_width=90)
            self.queue = gr.Button("Add to queue", elem_id="recipe-queue", min_width=90)
        gr.HTML('<p class="recipe-note">Each of them saves the recipe first.</p>', padding=False)
        self.found = gr.HTML(elem_id="recipe-found", label="What came of it")
        with gr.Accordion("Differences from the preset", open=True):
            self.differing = gr.HTML(elem_id="recipe-differences", label="Differences")
            with gr.Row():
                self.differs = gr.Dropdown(
                    [], interactive=True, label="Setting", elem_id="recipe-differs", scale=2, min_width=160
                )
                self.back = gr.Button(
                    "Take the preset's value",
                    elem_id="recipe-take-back",
                    elem_classes="beside",
                    scale=1,
                    min_width=160,
                )

    def _add_form_tabs(self) -> None:
        self.mark = gr.State("")
        self.before = gr.State(("", "", ""))
        self.known: Any = gr.State({})
        self.turns = {name: gr.State(0) for name in ALL_TABS}
        self.tabs: dict[str, Any] = {}
        with gr.Tabs(elem_id="recipe-tabs", overflow_behavior="wrap"):
            for name in ALL_TABS:
                with gr.Tab(name, id=name, elem_id=f"recipe-tab-{name.lower()}") as self.tabs[name]:
                    pass

    def _add_listeners(self) -> None:
        self.draft = _kept_by_browser("atelier-recipe")
        self.inputs = [self.text, self.name, self.known]
        self.outputs = [
            self.text, self.summary, self.differing, self.differs, self.known, self.draft, *self.turns.values(),
        ]  # fmt: skip
        self.file = _kept_by_browser("atelier-recipe-file")
        opened = [self.name, self.mark, self.file, self.saved, self.replace, self.found, *self.outputs]
        quick: dict[str, Any] = {"show_progress": "hidden"}
        for name in ALL_TABS:
            with self.tabs[name]:
                self._add_render(name)
        on_open(self.arrive, [self.draft, self.file], opened).then(None, None, None, js=_FORGET_ADDRESS)
        kept, keeping = [self.text, self.name, self.mark], [self.before, self.undo]
        for button, opens, asked in (
            (self.begin, self.begin_anew, [self.task, self.card, self.known]),
            (self.open, self.open_saved, [self.saved, self.known]),
        ):
            button.click(self.keep, kept, keeping, **quick).then(opens, asked, opened, **quick)
        self.undo.click(self.bring_back, [self.before, self.known], [self.undo, *opened], **quick)
        self.text.input(self.type_yaml, self.inputs, self.outputs, trigger_mode="always_last", **quick)
        self.name.change(self.type_yaml, self.inputs, self.outputs, trigger_mode="always_last", **quick)
        self.back.click(self.give_back, [*self.inputs, self.differs], self.outputs, **quick)
        kept = [self.text, self.name, self.mark, self.replace]
        filed = [self.mark, self.file, self.saved, self.replace]
        self.save.click(self.save_now, kept, filed, **quick)
        for button, handler in (
            (self.check, self.check_now), (self.start, self.start_now), (self.queue, self.queue_now),
        ):  # fmt: skip
            button.click(handler, kept, [*filed, self.found], show_progress_on=self.found)

    def _add_render(self, name: str) -> None:
        def form(text: str | None, file_name: str) -> None:
            TabForm(name, self._look, self.react, self.inputs, self.outputs, shipped_names()).add(text or "", file_name)

        # One at a time: the forms of one browser share the list of its parts, which must not grow while it is read.
        make = gr.render(
            [self.text, self.name],
            triggers=[self.turns[name].change],
            show_progress="hidden",
            concurrency_limit=1,
            concurrency_id="recipe-form",
        )
        make(form)

    def react(self, text: str, name: str, known: dict[str, str], quiet: str = "") -> list[Any]:
        """Return what the shared parts show of a text.

        Args:
            text: the YAML.
            name: of its file.
            known: what each tab shows in the browser.
            quiet: a tab that shows it already.
        """
        look, _ = self._look(text, name)
        # A form that is there stays while the YAML cannot be read; where none is, that is said in its place.
        now = contents(look) or known or dict.fromkeys(ALL_TABS, "")
        turns = [gr.skip() if tab == quiet or now.get(tab) == known.get(tab) else _next_turn() for tab in ALL_TABS]
        keys = [each.key for each in differences(look)]
        draft = {"text": text, "name": name}
        return [
            text, words.summary(look), words.difference_table(look), gr.Dropdown(keys, value=None), now, draft, *turns,
        ]  # fmt: skip

    @told
    def type_yaml(self, text: str | None, name: str, known: dict[str, str]) -> list[Any]:
        """Show what was typed into the YAML in the form."""
        shown = self.react(_bounded(text), name, known)
        return [gr.skip(), *shown[1:]]

    @told
    def give_back(self, text: str | None, name: str, known: dict[str, str], key: str | None) -> list[Any]:
        """Take the preset's value of a setting."""
        look, path = self._look(_bounded(text), name)
        if key not in [each.key for each in differences(look)]:
            raise RecipeError("Choose one of the settings that differ")
        return self.react(take_back(look, path, str(key)), name, known)

    @told
    def arrive(self, draft: Any, file: Any, request: gr.Request) -> list[Any]:
        """Show what the address asks for, or the draft that was left, or a first recipe."""
        recipe, run = request.query_params.get("recipe"), request.query_params.get("run")
        shown: dict[str, str] = {}  # a page that is loaded again has no form yet
        text, name, mark = *_texts(draft, "text", "name"), *_texts(file, "mark")
        try:
            if run:
                return self._open_run(run, shown)
            if recipe and name != recipe.removesuffix(".yaml"):
                saved = open_recipe(self.desk.places, recipe)
                return self._opened(saved.text, saved.name, saved.mark, shown)
        except AtelierError as error:
            gr.Warning(as_text(error))
        if text:
            return self._opened(text, name, mark, shown)
        return self._begun(_FIRST, AS_IT_IS, shown)

    def keep(self, text: str | None, name: str, mark: str) -> list[Any]:
        """Remember what stands here before something else takes its place."""
        return [(text or "", name, mark), gr.Button(visible=bool(text))]

    @told
    def bring_back(self, before: tuple[str, str, str], known: dict[str, str]) -> list[Any]:
        """Show again what stood here before."""
        return [gr.Button(visible=False), *self._opened(*before, known)]

    @told
    def begin_anew(self, task: str, card: str | None, known: dict[str, str]) -> list[Any]:
        """Begin a recipe from presets."""
        return self._begun(task, card or AS_IT_IS, known)

    @told
    def open_saved(self, name: str | None, known: dict[str, str]) -> list[Any]:
        """Open a recipe's file."""
        if not name:
            raise RecipeError("Choose a saved recipe first")
        saved = open_recipe(self.desk.places, name)
        return self._opened(saved.text, saved.name, saved.mark, known)

    @told
    def save_now(self, text: str | None, name: str, mark: str, replace: bool) -> list[Any]:
        """Save the recipe."""
        path, filed = self._filed(text, name, mark, replace)
        if path is not None:
            gr.Info(f"Saved: <code>{as_text(path.name)}</code>", duration=4)
        return filed

    @told
    def check_now(self, text: str | None, name: str, mark: str, replace: bool) -> list[Any]:
        """Save the recipe and check it and its pictures."""
        path, filed = self._filed(text, name, mark, replace)
        if path is None:
            return [*filed, gr.skip()]
        try:
            return [*filed, words.checked(check(path))]
        except AtelierError as error:
            return [*filed, words.refused(error)]

    @told
    def start_now(self, text: str | None, name: str, mark: str, replace: bool) -> list[Any]:
        """Save the recipe and train it at once."""
        path, filed = self._filed(text, name, mark, replace)
        if path is None:
            return [*filed, gr.skip()]
        try:
            return [*filed, words.begun(start(self.desk, path), "Started.")]
        except AtelierError as error:
            return [*filed, words.refused(error)]

    @told
    def queue_now(self, text: str | None, name: str, mark: str, replace: bool) -> list[Any]:
        """Save the recipe and put it at the queue's end."""
        path, filed = self._filed(text, name, mark, replace)
        if path is None:
            return [*filed, gr.skip()]
        try:
            run, place = enqueue(self.desk, path)
        except AtelierError as error:
            return [*filed, words.refused(error)]
        return [*filed, words.begun(run, f"In the queue, at place {place}.")]

    def _filed(self, text: str | None, name: str, mark: str, replace: bool) -> tuple[Path | None, list[Any]]:
        """Save; return the file, and the mark, the list of files and the tick; without a file where it was refused."""
        places = self.desk.places
        try:
            saved = save_recipe(places, name, _bounded(text), mark, replace=replace)
        except ChangedElsewhereError as error:
            gr.Warning(as_text(error), title="Not saved")
            return None, [gr.skip(), gr.skip(), gr.skip(), gr.Checkbox(visible=True)]
        listed = gr.Dropdown(saved_names(places), value=saved.name)
        return places.recipe_file(saved.name), [
            saved.mark,
            {"mark": saved.mark},
            listed,
            gr.Checkbox(False, visible=False),
        ]

    def _begun(self, task: str, card: str, known: dict[str, str]) -> list[Any]:
        taken = names_taken(self.desk, saved_names(self.desk.places))
        text = starting_text(task, card, taken, self._output_dir())
        name = free_name(f"my-{task.replace('/', '-')}", taken)
        return self._opened(text, name, "", known)

    def _open_run(self, key: str, known: dict[str, str]) -> list[Any]:
        """Open the recipe of a run, under another name: the run itself is there."""
        run = self.desk.places.run(key)
        try:
            text = run.recipe.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PlaceError(f"{key}: its recipe cannot be read") from error
        name = free_name(run.path.name, names_taken(self.desk, saved_names(self.desk.places)))
        return self._opened(set_value(_bounded(text), ("name",), name), name, "", known)

    def _opened(self, text: str, name: str, mark: str, known: dict[str, str]) -> list[Any]:
        names = saved_names(self.desk.places)
        chosen = gr.Dropdown(names, value=name if name in names else None)
        return [
            name,
            mark,
            {"mark": mark},
            chosen,
            gr.Checkbox(False, visible=False),
            "",
            *self.react(text, name, known),
        ]

    def _output_dir(self) -> str | None:
        """Return where runs go, where that is not what every recipe says anyway."""
        root = self.desk.places.runs[0]
        return None if root == Path("runs").resolve() else str(root)

    def _look(self, text: str, name: str) -> tuple[Look, Path]:
        try:
            path = self.desk.places.recipe_file(name)
        except PlaceError:
            path = self.desk.places.recipes / "recipe.yaml"
        return look_at(_bounded(text), path), path


# What the address asked for is the draft now: loaded again, the page shows what has become of it.
_FORGET_ADDRESS = "() => window.history.replaceState(window.history.state, '', window.location.pathname)"

_TURNS = iter(range(1, 1 << 62))
_next_turn = partial(next, _TURNS)
"""A number that no browser has seen: a tab is made anew when its own changes."""


def _kept_by_browser(key: str) -> gr.BrowserState:
    """Add what a browser keeps, also when the page's process is another. It is a draft, nothing to be kept secret."""
    return gr.BrowserState(None, storage_key=key, secret="a draft, not a secret")  # noqa: S106 - it guards nothing


def _bounded(text: str | None) -> str:
    if text is not None and len(text) > _MOST_LETTERS:
        raise RecipeError(f"the text has {len(text)} letters, a recipe has at most {_MOST_LETTERS}")
    return (text or "").replace("\r\n", "\n")


def _texts(kept: Any, *names: str) -> tuple[str, ...]:
    """Return texts that a browser kept, or empty ones; nothing of it is taken for granted."""
    found = [kept.get(name) if isinstance(kept, dict) else "" for name in names]
    are_good = all(isinstance(each, str) and len(each) <= _MOST_LETTERS for each in found)
    return tuple(str(each) for each in found) if are_good else ("",) * len(names)
