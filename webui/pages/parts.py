"""Small parts that several pages are made of: blocks of text, empty states, what happens as a page is opened."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import quote

import gradio as gr

from webui.guard import FILE
from webui.words import as_text, lines_as_text


def on_open(handler: Callable[..., Any], inputs: Any, outputs: Any) -> Any:
    """Call a handler as the page that is being built is opened in a browser, or loaded again."""
    blocks = gr.context.Context.root_block
    assert blocks is not None, "a page is built inside an app"
    return blocks.load(handler, inputs, outputs, show_progress="hidden")


def empty(title: str, advice: str) -> str:
    """Return the words for a page that has nothing to show: what is missing, and what to do."""
    return f'<div class="empty"><strong>{as_text(title)}</strong><br>{lines_as_text(advice)}</div>'


def fact_list(facts: Iterable[tuple[str, str]]) -> str:
    """Return names and values side by side."""
    pairs = "".join(f"<div><dt>{as_text(name)}</dt><dd>{as_text(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{pairs}</dl>' if pairs else ""


def message_list(messages: Sequence[tuple[str, str]]) -> str:
    """Return messages, each marked by its weight: 'error', 'warning' or 'note'."""
    items = "".join(
        f'<li class="{as_text(weight)}"><b>{as_text(weight.capitalize())}</b> {lines_as_text(text)}</li>'
        for weight, text in messages
    )
    return f'<ul class="messages">{items}</ul>' if items else ""


def progress(done: int, total: int | None, words: str) -> str:
    """Return a bar with its words, which a screen reader says too."""
    bar = "" if not total else f'<progress max="{total}" value="{min(done, total)}" aria-label="Progress"></progress>'
    return f'<div class="progress"><span role="status">{as_text(words)}</span>{bar}</div>'


def file_address(path: str) -> str:
    """Return the address that a file of the page's folders is sent from."""
    return FILE + quote(path)


def page_address(page: str, **query: str) -> str:
    """Return the address of a page, relative to the page's own: with `run=KEY` and the like behind it."""
    words = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    return f"/{page}" + (f"?{words}" if words else "")
