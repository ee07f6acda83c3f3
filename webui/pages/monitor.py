"""The page 'Monitor': one run, live or of last week: figures, curves, previews, and what can be asked of it."""

import time
from dataclasses import dataclass, replace
from typing import Any, cast

import gradio as gr
import pandas as pd

from finetune.errors import RecipeError
from finetune.run.commands import COMMAND_KINDS, send_command
from finetune.run.folder import RunFolder
from webui.desk import Desk
from webui.monitor.plots import PLOTS, Plot, colours, is_worth_drawing, points_of
from webui.monitor.prompts import prompt_texts
from webui.monitor.wall import Pair, Wall, build_wall, evenly, on_disk
from webui.monitor.words import command_lines, facts, headline, messages
from webui.pages.parts import empty, fact_list, message_list, on_open, progress
from webui.places import PlaceError
from webui.run_reader import Seen
from webui.words import as_text, told

_TICK_SECONDS = 1.5
_STEPS_ACROSS = 6

_SAID = {
    "save": "It saves after the step it is at.",
    "preview": "It draws its previews after the step it is at.",
    "stop": "It saves after the step it is at, and stops.",
}
_WAYS: list[tuple[str, Pair]] = [("without / with what was learned", "learned"), ("base / refined", "refined")]
_STAGES = [("base", False), ("base + refiner", True)]


@dataclass(frozen=True)
class Drawn:
    """What a browser shows already, so that only what differs is sent.

    Attributes:
        run: the key of the run.
        seq: of the last event that is told.
        status: that is told.
        step: up to which the curves go.
        drawn_at: when they were drawn, by the monotonic clock.
        previews: steps on the wall.
    """

    run: str = ""
    seq: int = -1
    status: str = ""
    step: int = 0
    drawn_at: float = 0.0
    previews: tuple[int, ...] | None = None


def build(desk: Desk) -> None:
    """Add the page's parts and events."""
    page = _Page(desk)
    gr.Markdown("# Monitor")
    drawn = gr.State(Drawn())
    run = gr.Dropdown([], label="Run", elem_id="monitor-run", interactive=True)
    head = gr.HTML(label="How it is", elem_id="monitor-head")
    with gr.Row():
        orders = [
            gr.Button("Save now", elem_id="monitor-save", interactive=False),
            gr.Button("Preview now", elem_id="monitor-preview", interactive=False),
            gr.Button("Stop and save", elem_id="monitor-stop", interactive=False),
        ]
        resume = gr.Button("Resume", elem_id="monitor-resume", variant="primary", interactive=False)
    figures = gr.HTML(label="Figures", elem_id="monitor-facts")
    notes = gr.HTML(label="Messages", elem_id="monitor-messages")
    with gr.Accordion("The same by the command line", open=False):
        lines = gr.HTML(label="Commands", elem_id="monitor-commands")
    plots = _add_plots()
    gr.Markdown("## Previews")
    with gr.Row():
        stage = gr.Radio(_STAGES, value=False, label="Drawn by", elem_id="monitor-stage")
        across = gr.Slider(2, 12, _STEPS_ACROSS, step=1, label="Steps across, at most", elem_id="monitor-across")
    wall = gr.Gallery(
        label="Prompts down, steps across",
        elem_id="monitor-wall",
        elem_classes="wall",
        columns=_STEPS_ACROSS,
        height="auto",
        object_fit="contain",
        buttons=["download", "fullscreen"],
        interactive=False,
    )
    gr.Markdown("## Before and after")
    with gr.Row():
        prompt = gr.Dropdown([], label="Prompt", elem_id="monitor-prompt", interactive=True)
        step = gr.Dropdown([], label="Step", elem_id="monitor-step", interactive=True)
        way = gr.Radio(_WAYS, value="learned", label="Compare", elem_id="monitor-way")
    slider = gr.ImageSlider(
        label="Before and after", elem_id="monitor-slider", interactive=False, buttons=["download", "fullscreen"]
    )

    parts = [drawn, head, figures, notes, lines, *orders, resume, *plots, wall, prompt, step]
    asked = [run, drawn, stage, across, prompt, step]
    gr.Timer(_TICK_SECONDS).tick(page.tick, asked, parts, show_progress="hidden")
    on_open(page.open, None, run).then(page.tick, asked, parts, show_progress="hidden")
    run.change(page.choose, [run, stage, across], parts, show_progress="hidden", js=_REMEMBER)
    for view in (stage, across):
        view.change(page.show_wall, [run, stage, across], wall, show_progress="hidden")
    gr.on(
        [prompt.change, step.change, way.change, stage.change],
        page.compare,
        [run, prompt, step, way, stage],
        slider,
        show_progress="hidden",
    )
    wall.select(page.pick, [run, across], [prompt, step], show_progress="hidden")
    for kind, button in zip(COMMAND_KINDS, orders, strict=True):
        button.click(page.order_of(kind), run, None, show_progress="hidden")
    resume.click(page.resume, run, None, show_progress="hidden")


# The run stands in the address, so that loading the page again, or sending its address on, shows the same.
_REMEMBER = """(run, ...rest) => {
    const address = new URL(window.location.href);
    if (run) { address.searchParams.set('run', run); } else { address.searchParams.delete('run'); }
    window.history.replaceState(window.history.state, '', address);
    return [run, ...rest];
}"""


def _add_plots() -> list[gr.LinePlot]:
    parts = []
    for pair in zip(PLOTS[::2], PLOTS[1::2], strict=True):
        with gr.Row():
            parts += [_add_plot(plot) for plot in pair]
    return parts


def _add_plot(plot: Plot) -> gr.LinePlot:
    return gr.LinePlot(
        x="step",
        y="value",
        color="line" if plot.series_title else None,
        x_title="optimizer step",
        y_title=" ",
        color_title=plot.series_title or None,
        label=plot.title,
        elem_id=f"monitor-plot-{plot.name}",
        elem_classes="plot",
        height=260,
        min_width=320,
        tooltip="all",
        buttons=["fullscreen", "export"],
    )


class _Page:
    """The handlers: each gets what a browser sends, and answers with what its parts become."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def open(self, request: gr.Request) -> Any:
        """List the runs, and choose the one in the address, else the one that was written to last."""
        runs = [self.desk.places.key_of(found.path) for found in self.desk.runs.look()]
        asked = request.query_params.get("run")
        if asked and asked not in runs and self.desk.starter.of_run(asked) is not None:
            runs = [asked, *runs]  # it has been started, and has no folder yet
        return gr.Dropdown(runs, value=asked if asked in runs else (runs[0] if runs else None))

    def choose(self, run: str | None, stage: bool, across: int) -> list[Any]:
        """Show another run from the beginning."""
        return self.tick(run, Drawn(), stage, across, None, None)

    def tick(
        self, run: str | None, drawn: Drawn, stage: bool, across: int, prompt: int | None, step: int | None
    ) -> list[Any]:
        """Send what is new of the run; what a browser shows already is skipped."""
        num_parts = 9 + len(PLOTS) + 3
        if not run:
            if drawn.seq == -2:
                return [gr.skip()] * num_parts
            return [Drawn(seq=-2), _NOTHING, *[gr.skip()] * (num_parts - 2)]
        try:
            folder = self.desk.places.run(run)
        except PlaceError:
            return [Drawn(run=run), *self._beginning(run), *[gr.skip()] * (num_parts - 4)]
        if drawn.run != run:
            drawn = Drawn(run=run)
        seen = self.desk.watcher.look(folder.path)
        begun_again = self._begun_again(run, seen)
        status = f"{seen.status} {begun_again}"
        if (seen.state.last_seq, status) == (drawn.seq, drawn.status):
            return [gr.skip()] * num_parts
        drawn, plots = self._plots(seen, drawn)
        drawn, previews = self._previews(folder, seen, drawn, stage=stage, across=across, chosen=(prompt, step))
        told_now = replace(drawn, seq=seen.state.last_seq, status=status)
        words = self._words(folder, seen, begun_again)
        return [told_now, *words, *self._buttons(seen, begun_again), *plots, *previews]

    def _begun_again(self, run: str, seen: Seen) -> str | None:
        """Return what has become of a start from this page that the log knows nothing of: '' while it is under way."""
        started = self.desk.starter.of_run(run)
        if started is None or seen.status == "running" or (seen.state.updated_at or 0) > started.started_at:
            return None
        code = started.exit_code()
        if code is None:
            return ""
        return f"It could not be started (exit code {code}):\n{started.last_lines()}" if code else None

    def _beginning(self, run: str) -> list[str]:
        """Return the words for a run that has no folder: it is being started, could not be, or is gone."""
        started = self.desk.starter.of_run(run)
        if started is None:
            return [empty("This run is gone", "Choose another one."), "", ""]
        code = started.exit_code()
        if code is None:
            return [progress(0, None, "Starting: looking at the pictures and the model"), "", ""]
        words = f"It could not be started (exit code {code}):\n{started.last_lines()}"
        return [progress(0, None, "Failed"), "", message_list([("error", words)])]

    def _words(self, folder: RunFolder, seen: Seen, begun_again: str | None) -> list[str]:
        state = seen.state
        words = "Starting again: opening the model" if begun_again == "" else headline(seen)
        named = progress(state.step, state.total_steps, words)
        told_of = [("error", begun_again)] if begun_again else []
        lines = "".join(
            f"<dt>{name}</dt><dd><code>{as_text(line)}</code></dd>" for name, line in command_lines(folder.path)
        )
        return [
            named,
            fact_list(facts(seen)),
            message_list([*told_of, *messages(seen)]),
            f'<dl class="commands">{lines}</dl>',
        ]

    def _buttons(self, seen: Seen, begun_again: str | None) -> list[Any]:
        runs = seen.status == "running"
        ended = seen.status in ("stopped", "interrupted", "failed") and begun_again != ""
        return [*[gr.Button(interactive=runs)] * len(COMMAND_KINDS), gr.Button(interactive=ended)]

    def _plots(self, seen: Seen, drawn: Drawn) -> tuple[Drawn, list[Any]]:
        state, now = seen.state, time.monotonic()
        is_new = drawn.seq < 0 or seen.replaced or not drawn.status.startswith(seen.status)
        if not is_new and not is_worth_drawing(state.step, drawn.step, now - drawn.drawn_at):
            return drawn, [gr.skip()] * len(PLOTS)
        return replace(drawn, step=state.step, drawn_at=now), [_frame(plot, seen) for plot in PLOTS]

    def _previews(
        self,
        folder: RunFolder,
        seen: Seen,
        drawn: Drawn,
        *,
        stage: bool,
        across: int,
        chosen: tuple[int | None, int | None],
    ) -> tuple[Drawn, list[Any]]:
        previews = tuple(sorted(seen.state.previews))
        if previews == drawn.previews:
            return drawn, [gr.skip()] * 3
        wall = build_wall(seen.state.previews)
        texts = prompt_texts(folder)
        prompts = [(_prompt_name(texts, number), number) for number in wall.prompts]
        prompt, step = chosen
        is_latest = drawn.previews is None or step not in wall.steps or step == max(drawn.previews, default=None)
        return replace(drawn, previews=previews), [
            self._gallery(folder, wall, texts, refined=bool(stage), across=across),
            gr.Dropdown(prompts, value=prompt if prompt in wall.prompts else next(iter(wall.prompts), None)),
            gr.Dropdown(list(wall.steps), value=(wall.steps or (None,))[-1] if is_latest else step),
        ]

    def _gallery(self, folder: RunFolder, wall: Wall, texts: list[str], *, refined: bool, across: int) -> Any:
        refined = refined and wall.has_refined
        steps = evenly(wall.steps, min(12, max(2, int(across))))
        pictures = []
        for number in wall.prompts:
            for step in steps:
                path = on_disk(folder.path, wall.shown(number, step, refined=refined))
                if path is not None:
                    pictures.append((path, f"step {step}: {_prompt_name(texts, number)}"))
        return gr.Gallery(pictures, columns=max(1, len(steps)))

    @told
    def show_wall(self, run: str | None, stage: bool, across: int) -> Any:
        """Show the wall in another way."""
        if not run:
            return gr.skip()
        folder = self.desk.places.run(run)
        wall = build_wall(self.desk.watcher.look(folder.path).state.previews)
        return self._gallery(folder, wall, prompt_texts(folder), refined=bool(stage), across=across)

    @told
    def pick(self, run: str | None, across: int, event: gr.SelectData) -> tuple[Any, Any]:
        """Hold the picture that was picked on the wall beside its other half."""
        if not run:
            return gr.skip(), gr.skip()
        wall = build_wall(self.desk.watcher.look(self.desk.places.run(run).path).state.previews)
        steps = evenly(wall.steps, min(12, max(2, int(across))))
        row, column = divmod(int(cast("int", event.index)), max(1, len(steps)))
        if row >= len(wall.prompts):
            return gr.skip(), gr.skip()
        return wall.prompts[row], steps[column]

    @told
    def compare(self, run: str | None, prompt: int | None, step: int | None, way: Pair, stage: bool) -> Any:
        """Put two pictures under the slider."""
        if not run or prompt is None or step is None:
            return None
        folder = self.desk.places.run(run)
        wall = build_wall(self.desk.watcher.look(folder.path).state.previews)
        pair = wall.pair(prompt, step, way, refined=bool(stage) and wall.has_refined)
        paths = [] if pair is None else [on_disk(folder.path, path) for path in pair]
        title = next(words for words, known in _WAYS if known == way)
        if len(paths) != 2 or None in paths:
            return gr.ImageSlider(None, label=f"No pair of pictures for this step: {title}")
        return gr.ImageSlider(tuple(paths), label=title)

    def order_of(self, kind: Any) -> Any:
        """Return the handler that leaves an order for the trainer."""

        @told
        def order(run: str | None) -> None:
            folder = self.desk.places.run(run or "")
            if not folder.is_locked():
                raise RecipeError("Nothing trains here now. Resume it first")
            send_command(folder, kind)
            gr.Info(_SAID[kind], duration=4)

        return order

    @told
    def resume(self, run: str | None) -> None:
        """Go on with a run as a process of its own."""
        folder = self.desk.places.run(run or "")
        if folder.is_locked():
            raise RecipeError("It is training already")
        words = ["train", str(folder.path), "--resume"]
        started = self.desk.starter.start(words, f"train-{folder.path.name}", run=run or "")
        gr.Info(f"Started: <code>{as_text(started.line)}</code>", duration=6)


def _frame(plot: Plot, seen: Seen) -> Any:
    """Return a plot's table; one without points is hidden."""
    points = points_of(plot, seen.state)
    if not points.x:
        return gr.LinePlot(visible=False)
    frame = pd.DataFrame({"step": points.x, "value": points.y, "line": points.series})
    return gr.LinePlot(frame, color_map=colours(list(dict.fromkeys(points.series))), visible=True)


def _prompt_name(texts: list[str], number: int) -> str:
    return texts[number - 1] if number <= len(texts) else f"prompt {number}"


_NOTHING = empty(
    "No run yet",
    "Start the quickstart on the page 'Recipe', or type: atelier train quickstart\n"
    "It takes a minute or two on any computer.",
)
