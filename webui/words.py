"""Turns text from files and people into what the page may show: as text, never as markup."""

import functools
import html
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import gradio as gr

from finetune.errors import AtelierError
from imagesets.errors import ImagesetError

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


def as_text(text: object) -> str:
    """Return text as HTML that shows it letter by letter; for `gr.HTML`, and for toasts, which are HTML too."""
    return html.escape(str(text), quote=True)


def lines_as_text(text: object) -> str:
    """Return text of several lines as HTML that keeps its lines."""
    return as_text(text).replace("\n", "<br>")


def told(handler: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """Show a handler's errors of ours to the person, in their own words, and change nothing on the page.

    The toast is headed 'Error': Gradio 6.31's page looks for another title under a name that nobody sends it by.
    """

    @functools.wraps(handler)
    def handle(*values: Given.args, **named: Given.kwargs) -> Answer:
        try:
            return handler(*values, **named)
        except (AtelierError, ImagesetError) as error:
            raise gr.Error(lines_as_text(error), print_exception=False) from error

    return handle
