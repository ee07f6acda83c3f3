"""The page 'Export': a run's step as files for other programs, what stands in them, and how they were checked."""

import time
from typing import Any

import gradio as gr

from finetune.cli.output import format_bytes
from finetune.errors import RecipeError
from finetune.recipe import load_recipe
from finetune.recipe.schema import SmallAdapter
from finetune.run.folder import RunFolder
from finetune.run.losses import lowest_loss
from webui.desk import Desk
from webui.exporting import (
    FORMATS,
    METADATA,
    PRECISIONS,
    PROOF,
    ExportChoice,
    ExportedFile,
    Exports,
    ExportState,
    exported_files,
    read_facts,
)
from webui.pages.parts import empty, fact_list, message_list, on_open, progress
from webui.places import PlaceError
from webui.proofs import proof_of, proof_table
from webui.words import told

_TICK_SECONDS = 1.0
_NEWEST, _BEST = "newest", "best"
_GONE = "gone"
_FORMAT_WORDS = {
    "kohya": "kohya: ComfyUI, A1111, Forge, InvokeAI, diffusers",
    "diffusers": "diffusers",
    "peft": "peft",
}
_KINDS = {"lora": "a LoRA", "loha": "a LoHa", "lokr": "a LoKr"}
_METADATA_WORDS = {"full": "full: tags, folders and the recipe", "minimal": "minimal: only what programs need"}


def build(desk: Desk) -> None:
    """Add the page's parts and events."""
    page = _Page(desk, Exports())
    gr.Markdown("# Export")
    seen = gr.State(None)
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            run = gr.Dropdown([], label="Run", elem_id="export-run")
            about = gr.HTML(label="What the run has trained", elem_id="export-about")
            step = gr.Dropdown([("newest", _NEWEST)], value=_NEWEST, label="Step", elem_id="export-step")
            formats = gr.CheckboxGroup(
                [(_FORMAT_WORDS[name], name) for name in FORMATS], value=["kohya"], label="Formats",
                elem_id="export-formats",
            )  # fmt: skip
            precision = gr.Radio([*PRECISIONS], value="fp16", label="Precision of the weights",
                                 elem_id="export-precision")  # fmt: skip
            metadata = gr.Radio([(_METADATA_WORDS[name], name) for name in METADATA], value="full",
                                label="What the file tells of its making", elem_id="export-metadata")  # fmt: skip
            card = gr.Checkbox(label="Model card", info="README.md with the newest previews, as the Hugging Face hub "
                               "shows it. Read it before you publish it.", elem_id="export-card")  # fmt: skip
            start = gr.Button("Export", variant="primary", elem_id="export-start")
            line = gr.Textbox(label="The same on the command line", interactive=False, lines=2, buttons=["copy"],
                              elem_id="export-command")  # fmt: skip
        with gr.Column(scale=3, min_width=320):
            state = gr.HTML(label="State", elem_id="export-state")
            inside = gr.Dropdown([], label="Look inside", elem_id="export-inside", visible=False)
            facts = gr.HTML(label="What the file holds", elem_id="export-facts")
            readers = gr.HTML(label="What other programs make of it", elem_id="export-readers")
            files = gr.File(label="Files to download", file_count="multiple", interactive=False,
                            elem_id="export-files", visible=False)  # fmt: skip
            table = gr.Dataframe(
                headers=["File", "Size", "Written"],
                column_widths=["50%", "20%", "30%"],
                datatype="str",
                interactive=False,
                wrap=True,
                visible=False,
                label="Exports of this run, the newest first",
                elem_id="export-list",
            )
            strings = gr.Dataframe(
                headers=["Name", "Value"],
                column_widths=["35%", "65%"],
                datatype="str",
                interactive=False,
                wrap=True,
                visible=False,
                label="Metadata in the file",
                elem_id="export-strings",
            )
            with gr.Accordion("How an export is checked", open=False, elem_id="export-proof"):
                gr.Markdown(PROOF)

    choices = [run, step, formats, precision, metadata, card]
    results = [state, start, files, table, inside, facts, readers, strings]
    opened = [about, step, formats, precision, metadata, card, line, seen, *results]
    on_open(page.open, None, [run, *opened])
    run.input(page.choose, run, opened, show_progress="hidden")
    for part in choices[1:]:
        part.input(page.tell_line, choices, line, show_progress="hidden")
    start.click(page.start, choices, [state, start], show_progress="hidden")
    # The results are handed out only when there is something new: to skip a part costs as much as to draw it.
    mark = gr.State("")
    gr.Timer(_TICK_SECONDS).tick(page.mark, [run, mark], mark, show_progress="hidden")
    mark.change(page.look, [run, seen], [seen, *results], show_progress="hidden")
    inside.input(page.look_inside, [run, inside], [facts, readers, strings], show_progress="hidden")


class _Page:
    """The page's handlers."""

    def __init__(self, desk: Desk, exports: Exports) -> None:
        self.desk, self.places, self.exports = desk, desk.places, exports

    @told
    def open(self, request: gr.Request) -> list[Any]:
        """List the runs, choose the one the address names or the newest, and show what it has exported."""
        keys = [self.places.key_of(run.path) for run in self.desk.runs.look()]
        wanted = request.query_params.get("run", "")
        chosen = wanted if wanted in keys else next(iter(keys), None)
        return [gr.Dropdown(choices=keys, value=chosen), *self.choose(chosen)]

    @told
    def choose(self, key: str | None) -> list[Any]:
        """Show a run: what can be exported, by its recipe, and what has been."""
        if not key:
            words = empty("There is no run yet.", "Start one on the page Runs, and come back when it has saved a step.")
            keep = [gr.skip() for _ in range(5)]
            return ["", *keep, "", None, words, gr.Button(interactive=False), *[gr.skip() for _ in range(6)]]
        run = self.places.run(key)
        recipe = load_recipe(str(run.recipe))
        steps = run.kept_steps()
        is_lora = isinstance(recipe.adapter, SmallAdapter)
        about = fact_list([("Trained", _KINDS.get(recipe.adapter.kind, "a whole model: a folder in diffusers' layout")),
                           ("Steps kept", ", ".join(map(str, reversed(steps))) or "none yet"),
                           ("Exports go to", str(run.exports))])  # fmt: skip
        export = recipe.export
        formats: list[str] = list(export.formats) if is_lora else []
        return [
            about,
            gr.Dropdown(choices=_step_choices(run, steps), value=_NEWEST),
            gr.CheckboxGroup(value=formats, visible=is_lora),
            export.precision,
            export.metadata,
            gr.Checkbox(value=False, visible=is_lora),
            self.tell_line(key, _NEWEST, formats, export.precision, export.metadata, card=False),
            *self._all(run),
        ]

    @told
    def tell_line(
        self, key: str | None, step: str, formats: list[str], precision: str, metadata: str, card: bool
    ) -> str:
        """Return the line that does the same."""
        return _choice(step, formats, precision, metadata, card=card).line(self.places.run(key).path) if key else ""

    @told
    def start(
        self, key: str | None, step: str, formats: list[str], precision: str, metadata: str, card: bool
    ) -> tuple[Any, Any]:
        """Begin to export."""
        if not key:
            raise RecipeError("There is no run to export. Start one on the page Runs")
        run = self.places.run(key)
        if not formats and isinstance(load_recipe(str(run.recipe)).adapter, SmallAdapter):
            raise RecipeError("Formats: choose at least one")
        self.exports.start(run, _choice(step, formats, precision, metadata, card=card))
        return _state(self.exports.look(run), is_empty=False), gr.Button(interactive=False)

    @told
    def mark(self, key: str | None, known: str) -> Any:
        """Tell whether an export has ended, or files have come."""
        try:
            mark = "" if not key else self._mark(self.places.run(key))
        except PlaceError:
            mark = _GONE  # said once by `look`, not with every tick
        return gr.skip() if mark == known else mark

    @told
    def look(self, key: str | None, seen: Any) -> Any:
        """Show an export that has ended, or files that have come."""
        if not key:
            return gr.skip()
        try:
            run = self.places.run(key)
        except PlaceError:
            nothing = [gr.File(value=None, visible=False), gr.Dataframe(visible=False), gr.Dropdown(visible=False)]
            words = empty("This run is gone.", "Choose another one, or open this page again.")
            return [_GONE, words, gr.Button(interactive=False), *nothing, "", "", gr.Dataframe(visible=False)]
        return gr.skip() if self._mark(run) == seen else self._all(run)

    @told
    def look_inside(self, key: str, name: str) -> tuple[Any, Any, Any]:
        """Show what a file holds."""
        files = {file.name: file for file in exported_files(self.places.run(key))}
        if name not in files:
            raise RecipeError("That file is there no more. Export again")
        return _inside(files[name])

    def _mark(self, run: RunFolder) -> str:
        """Return what changes when there is something else to show."""
        state = self.exports.look(run)
        newest = [(file.name, file.written_at) for file in exported_files(run)]
        return repr((str(run.path), state and state.status, newest, run.kept_steps() != []))

    def _all(self, run: RunFolder) -> list[Any]:
        state = self.exports.look(run)
        files = exported_files(run)
        weights = [file for file in files if file.path.suffix == ".safetensors"]
        rows = [[file.name, format_bytes(file.num_bytes), _time(file.written_at)] for file in files]
        shown = _inside(weights[0]) if weights else ("", "", gr.Dataframe(visible=False))
        return [
            self._mark(run),
            _state(state, is_empty=not files),
            gr.Button(interactive=state is None or state.status != "running"),
            gr.File(value=_weights_first(files) or None, visible=bool(files)),
            gr.Dataframe(value=rows, visible=bool(files)),
            gr.Dropdown(choices=[file.name for file in weights], value=weights[0].name if weights else None,
                        visible=bool(weights)),
            *shown,
        ]  # fmt: skip


def _step_choices(run: RunFolder, steps: list[int]) -> list[tuple[str, str]]:
    """Return the steps to choose from, in words and by name; the best only where the log tells which that is."""
    best = lowest_loss(run, steps)
    found = [] if best is None else [(f"best: lowest smoothed loss (step {best.step})", _BEST)]
    return [("newest", _NEWEST), *found, *((f"step {step}", str(step)) for step in steps)]


def _choice(step: str, formats: list[str], precision: str, metadata: str, *, card: bool) -> ExportChoice:
    if card not in (True, False):
        raise RecipeError("Model card: choose yes or no")
    if step == _BEST:
        return ExportChoice("best", tuple(formats), precision, metadata, card)
    if step != _NEWEST and not (step.isascii() and step.isdecimal()):
        raise RecipeError(f"Step: got {step[:40]!r}, choose one of the list")
    return ExportChoice(None if step == _NEWEST else int(step), tuple(formats), precision, metadata, card)


def _state(state: ExportState | None, *, is_empty: bool) -> str:
    """Return how the last export is, in words."""
    if state is None:
        return empty("Nothing exported yet.", "Choose a step and a format, then Export.") if is_empty else ""
    if state.status == "running":
        return progress(0, None, "exporting: some seconds for a LoRA, minutes for a whole model")
    if state.status == "failed":
        return message_list([("error", state.words)])
    names = ", ".join(file.name for file in state.files if file.suffix != ".jpg")
    warnings = [("warning", state.words)] if state.words else []
    steps = [("note", words) for words in state.denoising]
    return message_list([("note", f"exported step {state.step}: {names}"), *steps, *warnings])


def _weights_first(files: list[ExportedFile]) -> list[str]:
    """Return the files as they are sent: what one came for before what lies beside it."""
    return [str(file.path) for file in sorted(files, key=lambda file: file.path.suffix != ".safetensors")]


def _inside(file: ExportedFile) -> tuple[Any, Any, Any]:
    facts, strings = read_facts(file.path)
    rows = [[name, value] for name, value in strings]
    proof = proof_of(file.path)
    return (
        fact_list([("File", file.name), *facts]),
        "" if proof is None else proof_table(proof),
        gr.Dataframe(value=rows, visible=bool(rows)),
    )


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
