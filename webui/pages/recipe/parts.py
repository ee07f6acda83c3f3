"""Settings as parts of the page: one component each, with its help, and a place below for what is wrong with it."""

from collections.abc import Iterable
from typing import Any

import gradio as gr

from webui.pages.recipe.words import beside
from webui.recipe_form.fields import Field, Shown
from webui.recipe_form.looking import Mark

NONE = "(none)"
"""What is chosen where a section may be left out, and is."""


def add_setting(field: Field, label: str, elem_id: str, marks: Iterable[Mark]) -> tuple[Any, gr.HTML]:
    """Add a setting; return its component and the place for what is wrong with it.

    The help below a label knows a little Markdown, so that only the schema's own words may stand there.
    """
    with gr.Column(elem_classes=["setting", "wide"] if _is_wide(field) else ["setting"], min_width=0):
        part = _component(field, {"label": label, "info": field.help or None, "elem_id": elem_id, "interactive": True})
        words = beside(marks)
        slot = gr.HTML(
            words, visible=bool(words), padding=False, elem_classes="setting-problem", elem_id=f"{elem_id}-problem"
        )
    return part, slot


def changed_by_hand(part: Any) -> Any:
    """Return the event of a component that a person changes.

    A Textbox says `input` at key presses alone: not when letters are deleted or pasted. Its `change` comes after the
    page's own changes, too, so that a handler has to leave alone what is as it was.
    """
    return part.change if isinstance(part, gr.Textbox) else part.input


def given(answer: Any) -> Shown:
    """Return what a component holds as the form knows it."""
    if isinstance(answer, bool):
        return answer
    if isinstance(answer, list):
        return tuple(str(each) for each in answer)
    return "" if answer is None or answer == NONE else str(answer)


def held(field: Field) -> Any:
    """Return what a component holds for what the form shows."""
    if isinstance(field.shown, tuple):
        return list(field.shown)
    return NONE if field.widget == "kind" and field.shown == "" and "" in field.choices else field.shown


def _component(field: Field, look: dict[str, Any]) -> Any:
    value = held(field)
    if field.widget in ("switch", "on"):
        return gr.Checkbox(value, **look)
    if field.widget == "kind":
        choices = [(each or NONE, each or NONE) for each in field.choices]
        return gr.Dropdown(choices, value=value or None, **look)
    if field.widget == "choice":
        return gr.Dropdown(list(field.choices), value=value or None, **look)
    if field.widget == "words":
        return gr.Dropdown(list(field.choices), value=value, allow_custom_value=True, **look)
    if field.widget == "choices":
        return gr.CheckboxGroup(list(field.choices), value=value, **look)
    if field.widget in ("lines", "sizes"):
        return gr.Textbox(value, lines=2, max_lines=12, placeholder=field.needs, **look)
    several = field.widget == "text" and field.needs == "text"
    number = field.widget in ("whole", "number")
    attributes = gr.InputHTMLAttributes(spellcheck=False, autocomplete="off") if number else None
    return gr.Textbox(
        value, lines=1, max_lines=8 if several else 1, placeholder=field.needs, html_attributes=attributes, **look
    )


def _is_wide(field: Field) -> bool:
    """Whether a setting takes the width of two: prose and paths do."""
    return (
        field.widget in ("lines", "sizes", "words")
        or (field.widget == "text" and len(str(field.shown)) > 24)
        or (field.widget == "text" and field.needs in ("text", "a path"))
    )
