"""The page 'Monitor': one run, live or of last week: figures, curves, previews, and what can be asked of it."""

from typing import Any

import gradio as gr

from webui.desk import Desk
from webui.monitor.plots import PLOTS, Plot
from webui.pages.monitor.handlers import MOST_ACROSS, ORDERS, WAYS, Handlers, Told
from webui.pages.parts import on_open

_LOOK_SECONDS = 1.5
"""An event is on the page within two seconds."""

_STEPS_ACROSS = 6
_STAGES = [("base", False), ("base + refiner", True)]


def build(desk: Desk) -> None:
    """Add the page's parts and events."""
    handlers = Handlers(desk)
    gr.Markdown("# Monitor")
    told_before, curves, previews, buttons, cost = (
        gr.State(Told()),
        gr.State(""),
        gr.State(""),
        gr.State(""),
        gr.State(0.0),
    )
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
        across = gr.Slider(
            2, MOST_ACROSS, _STEPS_ACROSS, step=1, label="Steps across, at most", elem_id="monitor-across"
        )
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
        way = gr.Radio(WAYS, value="learned", label="Compare", elem_id="monitor-way")
    slider = gr.ImageSlider(
        label="Before and after", elem_id="monitor-slider", interactive=False, buttons=["download", "fullscreen"]
    )

    words = [told_before, curves, previews, buttons, head, figures, notes]
    quiet: dict[str, Any] = {"show_progress": "hidden"}
    gr.Timer(_LOOK_SECONDS).tick(handlers.look, [run, told_before, cost], words, **quiet)
    on_open(handlers.open, None, run)
    run.change(handlers.choose, run, words, js=_REMEMBER, **quiet)
    curves.change(handlers.draw_curves, [run, curves], [*plots, cost], **quiet)
    previews.change(handlers.draw_wall, [run, previews, stage, across, prompt, step], [wall, prompt, step], **quiet)
    buttons.change(handlers.set_buttons, [run, buttons], [*orders, resume, lines], **quiet)
    for view in (stage, across):
        view.change(handlers.show_wall, [run, stage, across], wall, **quiet)
    gr.on(
        [prompt.change, step.change, way.change, stage.change],
        handlers.compare,
        [run, prompt, step, way, stage],
        slider,
        **quiet,
    )
    wall.select(handlers.pick, [run, across], [prompt, step], **quiet)
    for kind, button in zip(ORDERS, orders, strict=True):
        button.click(handlers.order_of(kind), run, None, **quiet)
    resume.click(handlers.resume, run, None, **quiet)


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
