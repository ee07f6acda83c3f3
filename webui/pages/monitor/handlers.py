"""What the page 'Monitor' does: it answers what a browser asks with what the page's parts become."""

import time
from dataclasses import dataclass, replace
from typing import Any, cast

import gradio as gr
import pandas as pd

from finetune.errors import RecipeError
from finetune.run.commands import CommandKind, send_command
from finetune.run.folder import RunFolder
from webui.desk import Desk
from webui.monitor.plots import PLOTS, Plot, colours, is_worth_drawing, points_of
from webui.monitor.prompts import prompt_texts
from webui.monitor.wall import Pair, Wall, build_wall, evenly, on_disk
from webui.monitor.words import command_lines, facts, headline, messages
from webui.pages.parts import empty, fact_list, message_list, progress
from webui.places import PlaceError
from webui.run_reader import Seen
from webui.words import as_text, told

MOST_ACROSS = 12

ORDERS: dict[CommandKind, str] = {
    "save": "It saves after the step it is at.",
    "preview": "It draws its previews after the step it is at.",
    "stop": "It saves after the step it is at, and stops.",
}
"""What is said when an order has been left."""

WAYS: list[tuple[str, Pair]] = [("without / with what was learned", "learned"), ("base / refined", "refined")]


@dataclass(frozen=True)
class Told:
    """What a browser has been told already, so that only what differs is sent.

    Attributes:
        run: the key of the run.
        seq: of the last event; -1 where nothing was told.
        status: of the run, and of a start that is under way.
        step: up to which the curves go.
        drawn_at: when they were last to be drawn, by the monotonic clock.
    """

    run: str | None = None
    seq: int = -1
    status: str = ""
    step: int = 0
    drawn_at: float = 0.0


Answer = list[Any]
"""For `Told`, the keys of the curves, the previews and the buttons, and the words: headline, figures, messages.

A key is a text that changes when what it stands for is to be drawn anew; the page draws it then, by a handler of its
own. So a look that finds nothing new, which is most of them, costs next to nothing.
"""

_LEAVING_SECONDS = 20.0
"""How long a process that has ended its run is waited for: it still lets go of its memory."""

_NOTHING_NEW: Answer = [gr.skip()] * 7

_NOTHING = empty(
    "No run yet",
    "Start the quickstart on the page 'Runs', or type: atelier train quickstart\n"
    "It takes a minute or two on any computer.",
)


class Handlers:
    """The handlers of one page, for all its browsers."""

    def __init__(self, desk: Desk) -> None:
        """Answer for the runs of a desk."""
        self.desk = desk

    def open(self, request: gr.Request) -> Any:
        """List the runs, and choose the one in the address, else the one that was written to last."""
        runs = [self.desk.places.key_of(found.path) for found in self.desk.runs.look()]
        asked = request.query_params.get("run")
        if asked and asked not in runs and self.desk.starter.of_run(asked) is not None:
            runs = [asked, *runs]  # it has been started, and has no folder yet
        return gr.Dropdown(runs, value=asked if asked in runs else (runs[0] if runs else None))

    def choose(self, run: str | None) -> Answer:
        """Show another run from the beginning."""
        return self.look(run, Told(), 0.0)

    def look(self, run: str | None, told_before: Told, cost: float) -> Answer:
        """Send what is new of a run since it was last looked at.

        Args:
            run: its key.
            told_before: what this browser knows.
            cost: the seconds that drawing the curves took.
        """
        if not run:
            return _NOTHING_NEW if told_before.run == "" else [Told(run=""), "", "", "", _NOTHING, "", ""]
        try:
            folder = self.desk.places.run(run)
        except PlaceError:
            return [Told(run=run), "", "", "", *self._beginning(run)]
        before = told_before if told_before.run == run else Told(run=run)
        seen = self.desk.watcher.look(folder.path)
        begun_again = self._begun_again(run, seen)
        status = f"{seen.status} {begun_again}"
        if (seen.state.last_seq, status) == (before.seq, before.status):
            return _NOTHING_NEW
        now, is_new = replace(before, seq=seen.state.last_seq, status=status), before.status != status or seen.replaced
        curves: Any = gr.skip()
        waited = time.monotonic() - before.drawn_at
        if is_new or is_worth_drawing(seen.state.step, before.step, waited, cost):
            now = replace(now, step=seen.state.step, drawn_at=time.monotonic())
            curves = f"{run} {now.drawn_at}"
        previews = f"{run} {sorted(seen.state.previews)}"
        may_be_told, may_resume = _buttons(seen, begun_again)
        buttons = f"{int(may_be_told)}{int(may_resume)} {run}"
        return [now, curves, previews, buttons, *_words(seen, begun_again)]

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

    def _begun_again(self, run: str, seen: Seen) -> str | None:
        """Return what has become of a start from this page that the log knows nothing of: '' while it is under way."""
        started = self.desk.starter.of_run(run)
        if started is None or seen.status == "running" or (seen.state.updated_at or 0) > started.started_at:
            return None
        code = started.exit_code()
        if code is None:
            return ""
        return f"It could not be started (exit code {code}):\n{started.last_lines()}" if code else None

    @told
    def set_buttons(self, run: str | None, buttons: str) -> list[Any]:
        """Allow what the run can be asked now, and show the lines that do the same."""
        may_be_told, may_resume = buttons[:1] == "1", buttons[1:2] == "1"
        allowed = [gr.Button(interactive=may_be_told)] * len(ORDERS)
        if not run or not buttons:
            return [*allowed, gr.Button(interactive=False), ""]
        commands = command_lines(self.desk.places.run(run).path)
        lines = "".join(f"<dt>{name}</dt><dd><code>{as_text(line)}</code></dd>" for name, line in commands)
        return [*allowed, gr.Button(interactive=may_resume), f'<dl class="commands">{lines}</dl>']

    @told
    def draw_curves(self, run: str | None, curves: str) -> list[Any]:
        """Draw the curves, and return the seconds it took behind them."""
        if not run or not curves:
            return [*[gr.LinePlot(visible=False)] * len(PLOTS), 0.0]
        begun = time.monotonic()
        seen = self.desk.watcher.look(self.desk.places.run(run).path)
        frames = [_frame(plot, seen) for plot in PLOTS]
        return [*frames, time.monotonic() - begun]

    @told
    def draw_wall(
        self, run: str | None, previews: str, refined: bool, across: int, prompt: int | None, step: int | None
    ) -> list[Any]:
        """Show all previews, and choose the newest step for the slider, unless an older one is being looked at."""
        if not run or not previews:
            return [gr.Gallery(None), gr.Dropdown([], value=None), gr.Dropdown([], value=None)]
        folder, wall = self._wall(run)
        texts = prompt_texts(folder)
        prompts = [(_prompt_name(texts, number), number) for number in wall.prompts]
        is_older = step in wall.steps[:-2]
        return [
            _gallery(folder, wall, texts, refined=refined, across=across),
            gr.Dropdown(prompts, value=prompt if prompt in wall.prompts else next(iter(wall.prompts), None)),
            gr.Dropdown(list(wall.steps), value=step if is_older else (wall.steps or (None,))[-1]),
        ]

    @told
    def show_wall(self, run: str | None, refined: bool, across: int) -> Any:
        """Show the wall in another way."""
        if not run:
            return gr.skip()
        folder, wall = self._wall(run)
        return _gallery(folder, wall, prompt_texts(folder), refined=refined, across=across)

    @told
    def pick(self, run: str | None, across: int, event: gr.SelectData) -> tuple[Any, Any]:
        """Hold the picture that was picked on the wall beside its other half."""
        if not run:
            return gr.skip(), gr.skip()
        _, wall = self._wall(run)
        steps = _across(wall, across)
        row, column = divmod(int(cast("int", event.index)), max(1, len(steps)))
        if row >= len(wall.prompts):
            return gr.skip(), gr.skip()
        return wall.prompts[row], steps[column]

    @told
    def compare(self, run: str | None, prompt: int | None, step: int | None, way: Pair, refined: bool) -> Any:
        """Put two pictures under the slider."""
        if not run or prompt is None or step is None:
            return gr.ImageSlider(None, label="Before and after: there is no preview yet")
        folder, wall = self._wall(run)
        pair = wall.pair(prompt, step, way, refined=refined and wall.has_refined)
        paths = [] if pair is None else [on_disk(folder.path, path) for path in pair]
        title = next(words for words, known in WAYS if known == way)
        if len(paths) != 2 or None in paths:
            return gr.ImageSlider(None, label=f"No pair of pictures for this step: {title}")
        return gr.ImageSlider(tuple(paths), label=title)

    def order_of(self, kind: CommandKind) -> Any:
        """Return the handler that leaves an order for the trainer."""

        @told
        def order(run: str | None) -> None:
            folder = self.desk.places.run(run or "")
            if not folder.is_locked():
                raise RecipeError("Nothing trains here now. Resume it first")
            send_command(folder, kind)
            gr.Info(ORDERS[kind], duration=4)

        return order

    @told
    def resume(self, run: str | None) -> None:
        """Go on with a run as a process of its own."""
        folder = self.desk.places.run(run or "")
        if folder.is_locked():
            raise RecipeError("It is training already")
        before, seen = self.desk.starter.of_run(run or ""), self.desk.watcher.look(folder.path)
        if before is not None and (seen.state.updated_at or 0) > before.started_at:
            before.wait_for_end(_LEAVING_SECONDS)  # it has said its last word, and is about to go
        words = ["train", str(folder.path), "--resume"]
        started = self.desk.starter.start(words, f"train-{folder.path.name}", run=run or "")
        gr.Info(f"Started: <code>{as_text(started.line)}</code>", duration=6)

    def _wall(self, run: str) -> tuple[RunFolder, Wall]:
        folder = self.desk.places.run(run)
        return folder, build_wall(self.desk.watcher.look(folder.path).state.previews)


def _words(seen: Seen, begun_again: str | None) -> list[str]:
    """Return the headline with its bar, the figures, and what a person ought to read."""
    state = seen.state
    words = "Starting again: opening the model" if begun_again == "" else headline(seen)
    told_of = [("error", begun_again)] if begun_again else []
    return [
        progress(state.step, state.total_steps, words),
        fact_list(facts(seen)),
        message_list([*told_of, *messages(seen)]),
    ]


def _buttons(seen: Seen, begun_again: str | None) -> tuple[bool, bool]:
    """Return whether the run can be told something, and whether it can go on."""
    may_resume = seen.status in ("stopped", "interrupted", "failed") and begun_again != ""
    return seen.status == "running", may_resume


def _across(wall: Wall, across: int) -> tuple[int, ...]:
    return evenly(wall.steps, min(MOST_ACROSS, max(2, int(across))))


def _gallery(folder: RunFolder, wall: Wall, texts: list[str], *, refined: bool, across: int) -> Any:
    steps = _across(wall, across)
    pictures = []
    for number in wall.prompts:
        for step in steps:
            path = on_disk(folder.path, wall.shown(number, step, refined=refined and wall.has_refined))
            if path is not None:
                pictures.append((path, f"step {step}: {_prompt_name(texts, number)}"))
    return gr.Gallery(pictures, columns=max(1, len(steps)))


def _frame(plot: Plot, seen: Seen) -> Any:
    """Return a plot's table; one without points is hidden."""
    points = points_of(plot, seen.state)
    if not points.x:
        return gr.LinePlot(visible=False)
    frame = pd.DataFrame({"step": points.x, "value": points.y, "line": points.series})
    return gr.LinePlot(frame, color_map=colours(list(dict.fromkeys(points.series))), visible=True)


def _prompt_name(texts: list[str], number: int) -> str:
    return texts[number - 1] if number <= len(texts) else f"prompt {number}"
