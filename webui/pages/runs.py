"""The page 'Runs': every run there is, several compared, and the queue of those to come."""

from typing import Any

import gradio as gr
import pandas as pd

from finetune.errors import RecipeError
from finetune.queue.items import Item, QueueContent
from finetune.queue.runner import ensure_runner
from finetune.recipe.shipped import shipped_recipes
from webui.desk import Desk
from webui.monitor.plots import colours
from webui.pages.parts import empty, file_address, on_open, page_address
from webui.runs import RunSummary
from webui.runs_list import (
    MEASURES,
    can_remove,
    compared,
    counted,
    facts_of,
    item_words,
    queue_headline,
)
from webui.words import as_text, told

_LOOK_SECONDS = 2.0
_MOST_COMPARED = 8
_SHOWN_ENDED = 10


def build(desk: Desk) -> None:
    """Add the page's parts and events."""
    page = _Page(desk)
    gr.Markdown("# Runs")
    shown = gr.State(None)
    cards = gr.HTML(label="Runs", elem_id="runs-list")
    start = gr.Button("Start the quickstart", elem_id="runs-quickstart", variant="primary", visible=False)
    with gr.Accordion("Compare", open=False, elem_id="runs-compare"):
        with gr.Row():
            chosen = gr.Dropdown(
                [], label="Runs to compare", multiselect=True, max_choices=_MOST_COMPARED, elem_id="runs-chosen"
            )
            measure = gr.Dropdown(
                [(words, name) for name, words in MEASURES.items()], value="loss", label="By", elem_id="runs-measure"
            )
        plot = gr.LinePlot(
            x="step",
            y="value",
            color="line",
            x_title="optimizer step",
            y_title=" ",
            color_title="Run",
            label="Curves of several runs",
            elem_id="runs-plot",
            elem_classes="plot",
            height=320,
            tooltip="all",
            visible=False,
        )
    gr.Markdown("## Queue")
    queue = gr.State(None)
    head = gr.HTML(label="How the queue is", elem_id="queue-head")
    gr.render(inputs=queue, show_progress="hidden")(page.show_items)
    with gr.Row():
        pause = gr.Button("Pause", elem_id="queue-pause")
        go_on = gr.Button("Go on", elem_id="queue-go-on", interactive=False)
    with gr.Accordion("Add a run", open=False), gr.Row(equal_height=True):
        recipe = gr.Dropdown(
            [], label="Recipe", allow_custom_value=False, elem_id="queue-recipe", info="that ships, or that was saved"
        )
        overrides = gr.Textbox(
            label="Other settings",
            info="key.path=value, a line each",
            lines=2,
            elem_id="queue-overrides",
            placeholder="name=second-try\ntraining.steps=500",
        )
        add = gr.Button("Add to the queue", elem_id="queue-add")

    # Parts that seldom change are drawn by handlers of their own: to skip one costs Gradio as much as to draw it.
    told_of = [shown, queue, head]
    gr.Timer(_LOOK_SECONDS).tick(page.look, [shown, queue], told_of, show_progress="hidden")
    on_open(page.open, None, [*told_of, recipe])
    shown.change(page.show_runs, [shown, chosen], [cards, chosen, start], show_progress="hidden")
    # Gradio draws new lines of a plot without their colours; a caption that comes after them has it drawn anew.
    gr.on([chosen.change, measure.change], page.compare, [chosen, measure], plot, show_progress="hidden").then(
        page.name_lines, chosen, plot, show_progress="hidden"
    )
    queue.change(page.show_queue_buttons, queue, [pause, go_on], show_progress="hidden")
    pause.click(page.pause, None, None, show_progress="hidden")
    go_on.click(page.go_on, None, None, show_progress="hidden")
    start.click(page.start_quickstart, None, start, show_progress="hidden").success(None, js=_TO_QUICKSTART)
    add.click(page.add, [recipe, overrides], overrides, show_progress="hidden")


_TO_QUICKSTART = "() => { window.location.assign('/monitor?run=quickstart'); }"


class _Page:
    """The handlers."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def open(self) -> list[Any]:
        """Show everything."""
        return [*self.look(None, None), gr.Dropdown(self._recipes(), value="quickstart")]

    def look(self, shown: str | None, queue: str | None) -> list[Any]:
        """Tell what differs from what a browser shows: the runs as they are written there, and the queue as data."""
        runs, content = self._cards(self.desk.runs.look()), self.desk.queue.read()
        head = f'<p role="status">{as_text(queue_headline(content, has_runner=self.desk.queue.has_runner()))}</p>'
        now = content.model_dump_json()
        return [runs if runs != shown else gr.skip(), now if now != queue else gr.skip(), head]

    def show_runs(self, shown: str, chosen: list[str]) -> list[Any]:
        """Show the runs, and offer them to be compared."""
        keys = [self.desk.places.key_of(run.path) for run in self.desk.runs.look()]
        known = [key for key in chosen or [] if key in keys]
        # Nothing is chosen for a person who may be choosing now, unless a run is gone.
        offered = gr.Dropdown(keys) if known == (chosen or []) else gr.Dropdown(keys, value=known)
        return [shown, offered, gr.Button(visible=not keys)]

    def _cards(self, runs: list[RunSummary]) -> str:
        if not runs:
            return empty(
                "No run yet",
                "Start the quickstart here, or type: atelier train quickstart\n"
                "It takes a minute or two on any computer, and nothing is downloaded.",
            )
        cards = "".join(self._card(run) for run in runs)
        return f'<p role="status">{as_text(counted(runs))}</p><ul class="cards">{cards}</ul>'

    def _card(self, run: RunSummary) -> str:
        key = self.desk.places.key_of(run.path)
        picture = (
            f'<img src="{as_text(file_address(str(run.preview)))}" alt="" loading="lazy">'
            if run.preview is not None
            else f'<span class="none">no preview{" yet" if run.status == "running" else ""}</span>'
        )
        bar = (
            f'<progress max="{run.total_steps}" value="{min(run.step, run.total_steps)}" aria-label="Steps"></progress>'
            if run.total_steps and run.status == "running"
            else ""
        )
        address = as_text(page_address("monitor", run=key))
        return (
            f'<li class="{as_text(run.status)}"><a href="{address}"><span class="picture">{picture}</span>'
            f"<strong>{as_text(key)}</strong></a><span>{as_text(facts_of(run))}</span>{bar}</li>"
        )

    def _recipes(self) -> list[str]:
        own = [f"{name}.yaml" for name in self.desk.places.recipe_names()]
        return [*(shipped.name for shipped in shipped_recipes()), *own]

    def show_queue_buttons(self, queue: str) -> list[Any]:
        """Offer what would change something; that the queue is held stands out."""
        content = QueueContent.model_validate_json(queue)
        is_held = content.paused
        may_go_on = is_held or bool(content.waiting())
        return [
            gr.Button(interactive=not is_held),
            gr.Button(interactive=may_go_on, variant="primary" if is_held else "secondary"),
        ]

    def show_items(self, queue: str | None) -> None:
        """Add a row for every item: its line, its state, and what can be done with it."""
        content = QueueContent() if queue is None else QueueContent.model_validate_json(queue)
        ended = [item for item in content.items if can_remove(item) and item.state != "waiting"]
        hidden = {item.id for item in ended[:-_SHOWN_ENDED]}
        for item in content.items:
            if item.id not in hidden:
                self._add_item(item, content)

    def _add_item(self, item: Item, content: QueueContent) -> None:
        waits = item.state == "waiting"
        with gr.Row(equal_height=True, elem_classes="queue-item"):
            with gr.Column(scale=4, min_width=220):
                gr.HTML(
                    f"<code>{as_text(item.line)}</code><br>{as_text(item_words(item, content))}",
                    label=f"Item {item.id}",
                    elem_id=f"queue-item-{item.id}",
                )
            if waits and content.waiting()[0].id != item.id:
                first = gr.Button("Next", size="sm", min_width=70, elem_id=f"queue-first-{item.id}")
                first.click(self._mover(item.id, 1), None, None, show_progress="hidden", api_visibility="private")
            if waits and content.waiting()[-1].id != item.id:
                later = gr.Button("Later", size="sm", min_width=70, elem_id=f"queue-later-{item.id}")
                place = [each.id for each in content.waiting()].index(item.id) + 2
                later.click(self._mover(item.id, place), None, None, show_progress="hidden", api_visibility="private")
            if waits or not can_remove(item):
                cancel = gr.Button("Cancel", size="sm", min_width=80, elem_id=f"queue-cancel-{item.id}")
                cancel.click(self._canceller(item.id), None, None, show_progress="hidden", api_visibility="private")
            else:
                remove = gr.Button("Remove", size="sm", min_width=80, elem_id=f"queue-remove-{item.id}")
                remove.click(self._remover(item.id), None, None, show_progress="hidden", api_visibility="private")

    def _mover(self, item_id: int, place: int) -> Any:
        @told
        def move() -> None:
            self.desk.queue.move(item_id, place)

        return move

    def _canceller(self, item_id: int) -> Any:
        @told
        def cancel() -> None:
            item = self.desk.queue.cancel(item_id)
            if item.state == "running":
                gr.Info("It was asked to save and stop. Cancel it once more to end it at once.", duration=5)

        return cancel

    def _remover(self, item_id: int) -> Any:
        @told
        def remove() -> None:
            self.desk.queue.remove(item_id)

        return remove

    @told
    def start_quickstart(self) -> Any:
        """Train the recipe that needs nothing, as a process of its own."""
        output = f"output_dir={self.desk.places.runs[0]}"
        self.desk.starter.start(["train", "quickstart", output], "train-quickstart", run="quickstart")
        return gr.Button(interactive=False)

    @told
    def pause(self) -> None:
        """Begin no further item."""
        self.desk.queue.pause()

    @told
    def go_on(self) -> None:
        """Let the queue go on, with a runner of its own where there is none."""
        self.desk.queue.pause(paused=False)
        ensure_runner(self.desk.queue)

    @told
    def add(self, recipe: str | None, overrides: str) -> str:
        """Put a run at the queue's end."""
        if recipe not in self._recipes():
            raise RecipeError("Choose a recipe first")
        path = self.desk.places.recipes / recipe
        words = [line.strip() for line in overrides.splitlines() if line.strip()]
        item = self.desk.queue.add(str(path) if path.is_file() else recipe, words)
        ensure_runner(self.desk.queue)
        gr.Info(f"Added: <code>{as_text(item.line)}</code>", duration=5)
        return overrides

    @told
    def compare(self, chosen: list[str], measure: str) -> Any:
        """Draw a measure of the chosen runs."""
        if not chosen:
            return gr.LinePlot(visible=False)
        folders = {key: self.desk.places.run(key) for key in chosen[:_MOST_COMPARED]}
        states = {key: self.desk.watcher.look(folder.path).state for key, folder in folders.items()}
        points = compared(states, measure)
        frame = pd.DataFrame({"step": points.x, "value": points.y, "line": points.series})
        return gr.LinePlot(frame, color_map=colours(list(states)), label=MEASURES[measure], visible=bool(points.x))

    def name_lines(self, chosen: list[str]) -> Any:
        """Say below a plot how many runs it shows."""
        return gr.LinePlot(caption=f"{len(chosen)} runs, by optimizer step" if len(chosen) > 1 else "")
