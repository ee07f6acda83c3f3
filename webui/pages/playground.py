"""The page 'Playground': pictures with and without a LoRA, refined or not, side by side, and what conditioning does."""

from typing import Any

import gradio as gr

from finetune.drawing.messages import Column, Drawn
from finetune.drawing.plan import TITLES
from finetune.errors import RecipeError
from webui.desk import Desk
from webui.pages.parts import empty, fact_list, message_list, on_open, progress
from webui.playground.form import (
    NO_LORA,
    SHARES,
    command_of,
    comparisons,
    even_size,
    look_at_source,
    lora_choices,
    number,
    parse_strengths,
    refiner_settings,
    resolve_lora,
    resolve_source,
    seeds_from,
    settings_in_words,
    share_in_words,
    source_choices,
    steps_of_run,
    told_size,
    whole,
)
from webui.playground.jobs import Job, Playground
from webui.words import told

_TICK_SECONDS = 0.7
_NUM_LORAS = 4
_NUM_RESULTS = 7  # the parts of `_Results.results` after the state and the button
_FIRST_SOURCE = "recipe:quickstart"
_COLUMNS: list[tuple[str, Column]] = [(title[0].upper() + title[1:], column) for column, title in TITLES.items()]
_STAGES = {
    "starting": "starting the drawing process (the first time it takes a few seconds)",
    "opening the model": "opening the model; a large one takes a minute",
    "reading the LoRA": "reading the LoRA",
    "opening the refiner": "opening the refiner",
}


_SOURCE_PARTS = ("source_facts", "height", "width", "steps", "guidance", "columns", "prompt")
_TOLD_SIZES = ("original_height", "original_width", "target_height", "target_width")


def build(desk: Desk) -> None:
    """Add the page's parts and events."""
    page = _Page(desk, Playground(desk.places.scratch / "playground"))
    gr.Markdown("# Playground")
    job, seen = gr.State(""), gr.State([])
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            form = _add_form()
        with gr.Column(scale=3, min_width=320):
            shown = _Results()
    asked = [part for name, part in form.items() if name not in ("share_words", "source_facts")]
    timer = gr.Timer(_TICK_SECONDS)
    source_parts = [form[name] for name in _SOURCE_PARTS]
    result_parts = list(shown.results)

    on_open(page.open, None, [form["source"], *[form[f"lora_{i}"] for i in range(_NUM_LORAS)], job, *source_parts])
    form["source"].input(page.choose_source, [form["source"], form["prompt"]], source_parts, show_progress="hidden")
    form["lora_0"].input(page.choose_lora, [form["lora_0"], form["columns"]],
                         [form["lora_steps"], form["columns"]], show_progress="hidden")  # fmt: skip
    # Not as the source is chosen: what lies in a closed accordion would keep its old value.
    form["told"].input(page.tell_sizes, [form["height"], form["width"]], [form[name] for name in _TOLD_SIZES],
                       show_progress="hidden")  # fmt: skip
    shares = [form["steps"], form["refiner"], form["share"]]
    for part in shares:
        part.change(page.tell_share, shares, form["share_words"], show_progress="hidden")
    page.names = [name for name in form if name not in ("share_words", "source_facts")]
    shown.draw.click(page.draw, asked, job, show_progress="hidden")
    shown.cancel.click(page.cancel, job, None, show_progress="hidden")
    # The results are handed out only when there is something new: to skip a part costs as much as to draw it.
    mark = gr.State(None)
    gr.on([timer.tick, job.change], page.mark, [job, mark], mark, show_progress="hidden")
    mark.change(page.look, [job, seen], [seen, *result_parts], show_progress="hidden")
    shown.gallery.select(page.select, job, list(shown.details), show_progress="hidden")


class _Results:
    """The parts that show a job."""

    def __init__(self) -> None:
        with gr.Row():
            self.draw = gr.Button("Draw", variant="primary", elem_id="playground-draw")
            self.cancel = gr.Button("Cancel", elem_id="playground-cancel", interactive=False)
        self.status = gr.HTML(
            empty(
                "Nothing drawn yet.", "Write a prompt and choose Draw. The miniature takes a second or two a picture."
            ),
            elem_id="playground-status",
            label="State",
        )
        self.gallery = gr.Gallery(
            label="Pictures: choose one to see its settings", columns=3, object_fit="contain", height="auto",
            interactive=False, elem_id="playground-pictures", visible=False, buttons=["fullscreen"],
        )  # fmt: skip
        with gr.Row():
            self.before_after = gr.ImageSlider(
                label="Base and LoRA", elem_id="playground-lora-slider", interactive=False, visible=False
            )
            self.refined = gr.ImageSlider(
                label="Before and after the refiner", elem_id="playground-refiner-slider", interactive=False,
                visible=False,
            )  # fmt: skip
        self.grid = gr.DownloadButton(
            "Download all side by side (PNG)", elem_id="playground-download-grid", visible=False
        )
        self.facts = gr.HTML(elem_id="playground-settings", label="Settings of the chosen picture")
        self.command = gr.Textbox(
            label="The same on the command line", elem_id="playground-command", lines=2, interactive=False,
            visible=False, buttons=["copy"],
        )  # fmt: skip
        self.download = gr.DownloadButton("Download this picture (PNG)", elem_id="playground-download", visible=False)

    @property
    def results(self) -> tuple[Any, ...]:
        """What a look at a job fills."""
        return (self.status, self.cancel, self.gallery, self.grid, *self.details)

    @property
    def details(self) -> tuple[Any, ...]:
        """What a chosen picture fills."""
        return (self.before_after, self.refined, self.facts, self.command, self.download)


def _add_form() -> dict[str, Any]:
    """Add what is asked for, by name."""
    form: dict[str, Any] = {}
    form["source"] = gr.Dropdown([], label="Model of", elem_id="playground-source")
    form["source_facts"] = gr.HTML(label="Model")
    form["prompt"] = gr.Textbox(label="Prompt", lines=2, max_length=20_000, elem_id="playground-prompt")
    form["negative"] = gr.Textbox(label="Negative prompt: what to steer away from", max_length=20_000,
                                  elem_id="playground-negative")  # fmt: skip
    form["columns"] = gr.CheckboxGroup(_COLUMNS, value=["base"], label="Draw", elem_id="playground-columns")
    with gr.Row():
        form["seed"] = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="playground-seed")
        form["steps"] = gr.Slider(1, 100, 30, step=1, label="Steps", elem_id="playground-steps")
        form["guidance"] = gr.Slider(0, 20, 5, step=0.1, label="Guidance", elem_id="playground-guidance")
    with gr.Row():
        form["height"] = gr.Slider(32, 2048, 1024, step=8, label="Height", elem_id="playground-height")
        form["width"] = gr.Slider(32, 2048, 1024, step=8, label="Width", elem_id="playground-width")
    with gr.Accordion("LoRA", open=True, elem_id="playground-loras"):
        _add_lora(form, 0)
        with gr.Accordion("More LoRAs: their changes add up", open=False, elem_id="playground-more-loras"):
            for index in range(1, _NUM_LORAS):
                _add_lora(form, index)
    _add_refiner(form)
    _add_conditioning(form)
    with gr.Accordion("Grid", open=False, elem_id="playground-grid"):
        form["num_seeds"] = gr.Slider(1, 8, 1, step=1, label="Seeds, counted on from the one above",
                                      elem_id="playground-num-seeds")  # fmt: skip
        form["strengths"] = gr.Textbox(label="Strengths of LoRA 1", placeholder="0, 0.5, 1", max_length=200,
                                       elem_id="playground-strengths")  # fmt: skip
        form["lora_steps"] = gr.Dropdown([], label="Steps of LoRA 1's run", multiselect=True,
                                         elem_id="playground-lora-steps")  # fmt: skip
    return form


def _add_lora(form: dict[str, Any], index: int) -> None:
    with gr.Row():
        form[f"lora_{index}"] = gr.Dropdown(
            [("none", NO_LORA)], value=NO_LORA, label=f"LoRA {index + 1}", elem_id=f"playground-lora-{index + 1}"
        )
        form[f"strength_{index}"] = gr.Slider(
            -2, 2, 1, step=0.05, label=f"Strength {index + 1}", elem_id=f"playground-strength-{index + 1}"
        )


def _add_refiner(form: dict[str, Any]) -> None:
    with gr.Accordion("Refiner", open=False, elem_id="playground-refiner"):
        form["refiner"] = gr.Radio([(words, kind) for kind, words in SHARES.items()], value="ensemble",
                                   label="The refiner", elem_id="playground-refiner-kind")  # fmt: skip
        form["share"] = gr.Slider(0.05, 0.95, 0.2, step=0.05, label="The refiner's share", elem_id="playground-share")
        form["share_words"] = gr.HTML(f"<p>{share_in_words(30, 'ensemble', 0.2)}</p>", elem_id="playground-share-words",
                                      label="How the steps are shared")  # fmt: skip


def _add_conditioning(form: dict[str, Any]) -> None:
    with gr.Accordion("What the model is told of sizes", open=False, elem_id="playground-conditioning"):
        gr.Markdown(
            "SDXL was told of each training picture how large it once was and where it was cut. The same can be told "
            "as it draws; the picture's own size does not change."
        )
        form["told"] = gr.Checkbox(value=False, label="Tell other sizes than the picture's own",
                                   elem_id="playground-told")  # fmt: skip
        gr.Markdown("**Original size**: a small one gives a soft picture, as one that was enlarged.")
        with gr.Row():
            form["original_height"] = _size_slider("Original height", "original-height")
            form["original_width"] = _size_slider("Original width", "original-width")
        gr.Markdown("**Crop**: 0, 0 gives a centred subject; larger values move it out of the picture, as if cut off.")
        with gr.Row():
            form["crop_top"] = gr.Slider(0, 1024, 0, step=8, label="Crop from the top", elem_id="playground-crop-top")
            form["crop_left"] = gr.Slider(
                0, 1024, 0, step=8, label="Crop from the left", elem_id="playground-crop-left"
            )
        gr.Markdown("**Target size**: the size and the aspect that it is told it draws.")
        with gr.Row():
            form["target_height"] = _size_slider("Target height", "target-height")
            form["target_width"] = _size_slider("Target width", "target-width")


def _size_slider(label: str, name: str) -> Any:
    return gr.Slider(8, 4096, 1024, step=8, label=label, elem_id=f"playground-{name}")


class _Page:
    """The page's handlers."""

    def __init__(self, desk: Desk, playground: Playground) -> None:
        self.desk, self.places, self.playground = desk, desk.places, playground
        self.names: list[str] = []

    @told
    def open(self, request: gr.Request) -> list[Any]:
        """Fill the lists, choose what the address names, and show the last job."""
        runs = [run.path for run in self.desk.runs.look()]
        sources = source_choices(self.places, runs)
        wanted = f"run:{request.query_params.get('run', '')}"
        chosen = wanted if wanted in {value for _, value in sources} else _FIRST_SOURCE
        loras = lora_choices(self.places, runs)
        newest = self.playground.newest() or ""
        lists = [gr.Dropdown(choices=loras, value=NO_LORA) for _ in range(_NUM_LORAS)]
        own = [value for _, value in loras if value and wanted == f"run:{value.rpartition('@')[0]}"]
        if own:
            lists[0] = gr.Dropdown(choices=loras, value=own[0])
        facts = self.choose_source(chosen, "")
        if own:
            facts[5] = gr.CheckboxGroup(value=["base", "lora"])
        return [gr.Dropdown(choices=sources, value=chosen), *lists, newest, *facts]

    @told
    def choose_source(self, source: str, prompt: str) -> list[Any]:
        """Show what a source brings along, and take its sizes, steps, guidance and, if there is none, its prompt."""
        facts = look_at_source(self.places, source)
        preview = facts.recipe.preview
        shown = [("Model", facts.model), ("Refiner", "yes" if facts.recipe.refiner else "none")]
        step = facts.size_multiple
        sizes = [gr.Slider(minimum=2 * step, maximum=max(4 * facts.side, 256) if facts.side < 1024 else 2048,
                           step=step, value=facts.side) for _ in range(2)]  # fmt: skip
        columns = _COLUMNS if facts.recipe.refiner else [entry for entry in _COLUMNS if "refined" not in entry[1]]
        asked = prompt or (preview.prompts[0].prompt if preview.prompts else "")
        return [
            fact_list(shown),
            *sizes,
            gr.Slider(value=min(preview.num_inference_steps, 100)),
            gr.Slider(value=min(preview.guidance_scale, 20.0)),
            gr.CheckboxGroup(choices=columns, value=["base"]),
            asked,
        ]

    @told
    def choose_lora(self, lora: str, columns: list[str]) -> tuple[Any, Any]:
        """Offer the steps of the first LoRA's run, and draw with it."""
        steps = [(f"step {step}", step) for step in steps_of_run(self.places, lora)]
        kept = [column for column in columns if "lora" not in column] if lora == NO_LORA else columns
        more = [] if lora == NO_LORA or any("lora" in column for column in kept) else ["lora"]
        return gr.Dropdown(choices=steps, value=[]), gr.CheckboxGroup(value=[*kept, *more] or ["base"])

    @told
    def tell_sizes(self, height: float, width: float) -> list[float]:
        """Begin with the picture's own size."""
        return [height, width, height, width]

    @told
    def tell_share(self, steps: float, kind: str, share: float) -> str:
        """Say how base and refiner share the steps."""
        return f"<p>{share_in_words(whole(steps, 'Steps', 1, 1000), kind, share)}</p>"

    @told
    def draw(self, *values: Any) -> str:
        """Ask for pictures."""
        given = dict(zip(self.names, values, strict=True))
        if not str(given["prompt"]).strip():
            raise RecipeError("There is no prompt. Write what is to be drawn")
        return self.playground.ask(self._settings(given))

    def _settings(self, given: dict[str, Any]) -> dict[str, Any]:
        facts = look_at_source(self.places, given["source"])
        columns = [column for column, _ in TITLES.items() if column in given["columns"]]
        chosen = [(given[f"lora_{i}"] or NO_LORA, given[f"strength_{i}"]) for i in range(_NUM_LORAS)]
        with_lora = any("lora" in column for column in columns)
        loras = [resolve_lora(self.places, lora, strength) for lora, strength in chosen if lora != NO_LORA]
        if not columns:
            raise RecipeError("Nothing is to be drawn. Choose the base, or the base with a LoRA")
        settings: dict[str, Any] = {
            "source": resolve_source(self.places, given["source"]),
            "columns": tuple(columns),
            "loras": tuple(loras) if with_lora else (),
            "prompt": given["prompt"],
            "negative_prompt": given["negative"],
            "seeds": seeds_from(given["seed"], given["num_seeds"]),
            "size": even_size(given["height"], given["width"], facts.size_multiple),
            "num_inference_steps": whole(given["steps"], "Steps", 1, 1000),
            "guidance_scale": number(given["guidance"], "Guidance", 0, 100),
        }
        if with_lora:
            settings["strengths"] = parse_strengths(given["strengths"] or "")
            settings["lora_steps"] = tuple(
                whole(step, "Steps of LoRA 1", 0, 10**9) for step in given["lora_steps"] or ()
            )
        if any("refined" in column for column in columns):
            settings["refiner"] = refiner_settings(given["refiner"], given["share"])
        if given["told"]:
            settings["original_size"] = told_size(given["original_height"], given["original_width"], "Original size")
            settings["crop_top_left"] = told_size(given["crop_top"], given["crop_left"], "Crop", low=0)
            settings["target_size"] = told_size(given["target_height"], given["target_width"], "Target size")
        return settings

    @told
    def cancel(self, name: str) -> None:
        """Stop the job that is shown."""
        self.playground.cancel(name)

    def mark(self, name: str, known: list[Any] | None) -> Any:
        """Tell whether there is something new of a job."""
        mark = self._mark(name)
        return gr.skip() if mark is None or mark == known else mark

    def _mark(self, name: str) -> list[Any] | None:
        """Return what changes with a job; None where there is none."""
        job = self.playground.look(name)
        if job is None:
            return None
        return [name, len(job.pictures), job.is_over, job.version, self.playground.ahead_of(name)]

    @told
    def look(self, name: str, seen: list[Any]) -> Any:
        """Show how far a job is, if that has changed; its pictures only where there is another."""
        job, mark = self.playground.look(name), self._mark(name)
        if job is None or mark is None or mark == list(seen):
            return gr.skip()
        ahead = self.playground.ahead_of(name)
        state = [_state(job, ahead), gr.Button(interactive=not job.is_over)]
        if mark[:3] == list(seen)[:3]:
            return [mark, *state, *[gr.skip()] * _NUM_RESULTS]
        return [mark, *state, *_shown(job)]

    @told
    def select(self, name: str, event: gr.SelectData) -> list[Any]:
        """Show a picture's settings, the line that draws it, and what it is to be compared with."""
        job = self.playground.look(name)
        index = event.index
        if job is None or not isinstance(index, int) or not 0 <= index < len(job.pictures):
            raise RecipeError("That picture is there no more. Draw it again")
        return _of_picture(job, job.pictures[index])


def _shown(job: Job) -> list[Any]:
    """Return what a job fills the page with, in the order of `_Results.results` after the first two."""
    pictures = [(picture.path, f"{picture.title}, seed {picture.seed}") for picture in job.pictures]
    details = _of_picture(job, job.pictures[-1]) if pictures else [
        gr.ImageSlider(visible=False), gr.ImageSlider(visible=False), "", gr.Textbox(visible=False),
        gr.DownloadButton(visible=False),
    ]  # fmt: skip
    return [
        gr.Gallery(value=pictures, visible=bool(pictures), selected_index=None),
        gr.DownloadButton(value=job.grid, visible=job.grid is not None),
        *details,
    ]


def _of_picture(job: Job, picture: Drawn) -> list[Any]:
    """Return the comparisons a picture is part of, its settings, its line and its file."""
    lora, refined = comparisons(job.pictures, picture)
    return [
        gr.ImageSlider(value=lora, visible=lora is not None),
        gr.ImageSlider(value=refined, visible=refined is not None),
        fact_list(settings_in_words(picture.settings)),
        gr.Textbox(value=command_of(job.request, picture), visible=True),
        gr.DownloadButton(value=picture.path, visible=True),
    ]


def _state(job: Job, ahead: int) -> str:
    """Return how a job is, in words, with a bar."""
    match job.status:
        case "waiting":
            return progress(0, None, f"waiting: {ahead} before it")
        case "failed":
            return message_list([("error", job.words)])
        case "cancelled":
            return message_list([("note", f"cancelled; {_counted(len(job.pictures))} drawn before")])
        case "done":
            warnings = [("warning", job.words)] if job.words else []
            return message_list([("note", f"{_counted(len(job.pictures))} drawn"), *warnings])
    now = job.progress
    if now is None or not now.picture:
        return progress(0, None, _STAGES.get(now.stage if now else "starting", "working"))
    total = now.pictures * max(now.steps, 1)
    done = (now.picture - 1) * max(now.steps, 1) + now.step
    stage = _STAGES.get(now.stage, now.stage)
    return progress(done, total, f"{stage}: picture {now.picture} of {now.pictures}, step {now.step} of {now.steps}")


def _counted(count: int) -> str:
    return f"{count} picture" + ("" if count == 1 else "s")
