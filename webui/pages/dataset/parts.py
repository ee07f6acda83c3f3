"""What the page is made of, from above to below. Nothing happens here."""

from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from webui.dataset_desk.captions import EXTENSIONS
from webui.dataset_desk.operations import OPERATIONS
from webui.dataset_desk.tokens import LIMITS
from webui.dataset_desk.view import View
from webui.pages.dataset.words import NOTHING_YET, picture_words

TICK_SECONDS = 1.0
CHANGES_SHOWN = 200

_MODELS = [("SDXL", "sdxl"), ("the miniature", "miniature")]
_CLICKS = [("opens its caption", "open"), ("selects it", "select")]
_WHICH = [("the selected pictures", "selected"), ("all that are shown", "shown")]


@dataclass(frozen=True)
class Parts:
    """The page's parts, in the order a handler of all of them would return them."""

    view: gr.State
    watched: gr.State
    timer: gr.Timer
    folder: gr.Dropdown
    extension: gr.Radio
    inspect: gr.Button
    cancel: gr.Button
    status: gr.HTML
    body: gr.Column
    facts: gr.HTML
    findings: gr.HTML
    buckets: gr.HTML
    bucket: gr.Dropdown
    finding: gr.Dropdown
    tag: gr.Dropdown
    words: gr.Textbox
    with_cuts: gr.Checkbox
    click: gr.Radio
    gallery: gr.Gallery
    page: gr.HTML
    back: gr.Button
    further: gr.Button
    select_shown: gr.Button
    select_none: gr.Button
    opened: gr.State
    picture: gr.HTML
    caption: gr.Textbox
    model: gr.Radio
    limit: gr.Radio
    tokens: gr.HTML
    save: gr.Button
    discard: gr.Button
    before: gr.Button
    after: gr.Button
    conflict: gr.Group
    theirs: gr.Textbox
    overwrite: gr.Button
    take: gr.Button
    plan: gr.State
    which: gr.Radio
    operation: gr.Dropdown
    find: gr.Textbox
    replacement: gr.Textbox
    is_pattern: gr.Checkbox
    ignore_case: gr.Checkbox
    change_tag: gr.Dropdown
    new_tag: gr.Textbox
    keep_first: gr.Number
    preview: gr.Button
    planned: gr.HTML
    table: gr.Dataframe
    apply: gr.Button
    undo: gr.Button
    redo: gr.Button
    reread: gr.Button

    def all(self) -> list[Any]:
        """Return every part."""
        return [getattr(self, each.name) for each in fields(self)]


def add_parts() -> Parts:
    """Add the parts to the page that is being built."""
    gr.Markdown("# Dataset")
    parts: dict[str, Any] = {
        "view": gr.State(View()),
        "watched": gr.State(None),
        "timer": gr.Timer(TICK_SECONDS, active=False),
    }
    _add_choice(parts)
    parts["status"] = gr.HTML(NOTHING_YET, label="How the inspection is", elem_id="dataset-status")
    with gr.Column(visible=False) as parts["body"]:
        parts["facts"] = gr.HTML(label="The set", elem_id="dataset-facts")
        with gr.Accordion("What the inspection found", open=True):
            parts["findings"] = gr.HTML(label="Findings", elem_id="dataset-findings")
        with gr.Accordion("Buckets", open=False):
            parts["buckets"] = gr.HTML(label="Buckets", elem_id="dataset-buckets")
        _add_gallery(parts)
        _add_editor(parts)
        _add_changes(parts)
    return Parts(**parts)


def _add_choice(parts: dict[str, Any]) -> None:
    with gr.Row():
        parts["folder"] = gr.Dropdown(
            [],
            label="Folder of pictures",
            info="from the list, or its path",
            allow_custom_value=True,
            elem_id="dataset-folder",
            scale=3,
            min_width=260,
        )
        parts["extension"] = gr.Radio(
            list(EXTENSIONS),
            value=EXTENSIONS[0],
            label="Caption files end in",
            info="as cat.txt beside cat.png",
            elem_id="dataset-extension",
            scale=1,
            min_width=240,
        )
    with gr.Row():
        parts["inspect"] = gr.Button("Inspect", variant="primary", elem_id="dataset-inspect")
        parts["cancel"] = gr.Button("Cancel", elem_id="dataset-cancel", visible=False)


def _add_gallery(parts: dict[str, Any]) -> None:
    gr.Markdown("## Pictures")
    with gr.Row():
        parts["bucket"] = gr.Dropdown([("all", "")], value="", label="Bucket", elem_id="dataset-bucket", min_width=150)
        parts["finding"] = gr.Dropdown(
            [("all", "")], value="", label="With this finding", elem_id="dataset-finding", min_width=150
        )
        parts["tag"] = gr.Dropdown(
            [("any", "")], value="", label="With this tag", allow_custom_value=True, elem_id="dataset-tag",
            min_width=150,
        )  # fmt: skip
        parts["words"] = gr.Textbox(
            label="With these words", placeholder="in the name or the caption", elem_id="dataset-words", max_lines=1,
            min_width=150,
        )  # fmt: skip
    with gr.Row(equal_height=True):
        parts["with_cuts"] = gr.Checkbox(
            label="Show what is cut away", elem_id="dataset-cuts", info="dimmed; the frame is what is trained on"
        )
        parts["click"] = gr.Radio(_CLICKS, value="open", label="A click on a picture", elem_id="dataset-click")
    parts["gallery"] = gr.Gallery(
        label="Pictures by bucket",
        show_label=False,
        elem_id="dataset-gallery",
        elem_classes="wall",
        columns=6,
        fit_columns=False,
        height="auto",
        object_fit="contain",
        allow_preview=False,
        interactive=False,
        buttons=[],
    )
    parts["page"] = gr.HTML(label="Which pictures are shown", elem_id="dataset-page")
    with gr.Row():
        parts["back"] = gr.Button("Previous page", elem_id="dataset-back", size="sm", min_width=120)
        parts["further"] = gr.Button("Next page", elem_id="dataset-further", size="sm", min_width=120)
        parts["select_shown"] = gr.Button("Select all shown", elem_id="dataset-select", size="sm", min_width=120)
        parts["select_none"] = gr.Button("Select none", elem_id="dataset-unselect", size="sm", min_width=120)


def _add_editor(parts: dict[str, Any]) -> None:
    gr.Markdown("## One caption")
    parts["opened"] = gr.State(None)
    with gr.Row():
        with gr.Column(scale=1, min_width=240):
            parts["picture"] = gr.HTML(
                picture_words(None, None), label="The picture", elem_id="dataset-picture", padding=False
            )
        with gr.Column(scale=2, min_width=300):
            parts["caption"] = gr.Textbox(
                label="Caption", lines=4, max_lines=12, interactive=False, elem_id="dataset-caption"
            )
            parts["tokens"] = gr.HTML(label="Tokens", elem_id="dataset-tokens")
            with gr.Group(visible=False) as parts["conflict"]:
                parts["theirs"] = gr.Textbox(
                    label="It was changed elsewhere meanwhile, and says now", lines=3, interactive=False,
                    elem_id="dataset-theirs",
                )  # fmt: skip
                with gr.Row():
                    parts["take"] = gr.Button("Take this one", elem_id="dataset-take")
                    parts["overwrite"] = gr.Button("Write mine over it", elem_id="dataset-overwrite", variant="stop")
            with gr.Row():
                parts["save"] = gr.Button(
                    "Save caption", variant="primary", interactive=False, elem_id="dataset-save", min_width=110
                )
                parts["discard"] = gr.Button(
                    "Discard changes", interactive=False, elem_id="dataset-discard", min_width=110
                )
                parts["before"] = gr.Button("Previous picture", elem_id="dataset-before", min_width=110)
                parts["after"] = gr.Button("Next picture", elem_id="dataset-after", min_width=110)
            with gr.Row():
                parts["model"] = gr.Radio(_MODELS, value="sdxl", label="Count tokens for", elem_id="dataset-model")
                parts["limit"] = gr.Radio(
                    list(LIMITS), value=LIMITS[-1], label="Tokens that are read", elem_id="dataset-limit",
                    info="training.max_caption_tokens of the recipe",
                )  # fmt: skip


def _add_changes(parts: dict[str, Any]) -> None:
    gr.Markdown("## Many captions")
    parts["plan"] = gr.State(None)
    with gr.Row():
        parts["operation"] = gr.Dropdown(
            [(operation.label, name) for name, operation in OPERATIONS.items()],
            value="replace",
            label="Change",
            elem_id="dataset-operation",
        )
        parts["which"] = gr.Radio(_WHICH, value="selected", label="Of", elem_id="dataset-which")
    with gr.Row():
        parts["find"] = gr.Textbox(label="Find", elem_id="dataset-find", max_lines=1, min_width=160)
        parts["replacement"] = gr.Textbox(label="Replace by", elem_id="dataset-replace", max_lines=1, min_width=160)
        parts["is_pattern"] = gr.Checkbox(
            label="Regular expression", info="\\1 is the first group", elem_id="dataset-pattern", min_width=160
        )
        parts["ignore_case"] = gr.Checkbox(
            label="In whatever case", info="a finds A as well", elem_id="dataset-case", min_width=160
        )
        parts["change_tag"] = gr.Dropdown(
            [], label="Tag", allow_custom_value=True, visible=False, elem_id="dataset-change-tag", min_width=160
        )
        parts["new_tag"] = gr.Textbox(
            label="Call it", visible=False, elem_id="dataset-new-tag", max_lines=1, min_width=160
        )
        parts["keep_first"] = gr.Number(
            0, precision=0, minimum=0, maximum=100, label="Tags in front that stay", visible=False,
            elem_id="dataset-keep", min_width=160,
        )  # fmt: skip
    parts["preview"] = gr.Button("Preview", elem_id="dataset-preview")
    parts["planned"] = gr.HTML(label="What would change", elem_id="dataset-planned")
    parts["table"] = gr.Dataframe(
        headers=["Picture", "Before", "After"],
        datatype="str",
        type="array",
        interactive=False,
        wrap=True,
        visible=False,
        max_height=420,
        label=f"What would change (the first {CHANGES_SHOWN})",
        elem_id="dataset-table",
    )
    with gr.Row():
        parts["apply"] = gr.Button("Apply", variant="primary", interactive=False, elem_id="dataset-apply")
        parts["undo"] = gr.Button("Undo", interactive=False, elem_id="dataset-undo")
        parts["redo"] = gr.Button("Redo", interactive=False, elem_id="dataset-redo")
        parts["reread"] = gr.Button("Read captions again", elem_id="dataset-reread")
