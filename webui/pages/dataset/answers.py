"""What becomes of parts: the answers that several handlers give alike, and which parts each of them changes.

A handler answers with the parts that become others. An event names those alone: Gradio makes each part that an event
names anew, also one that the answer leaves as it is.
"""

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from webui.dataset_desk.captions import WrittenCaption, reason_not_to_write
from webui.dataset_desk.cuts import draw_cut
from webui.dataset_desk.errors import EditError
from webui.dataset_desk.history import History, Step
from webui.dataset_desk.report import ShownPicture
from webui.dataset_desk.tokens import LIMITS, count_tokens
from webui.dataset_desk.view import View
from webui.pages.dataset.parts import Parts
from webui.pages.dataset.words import page_words, picture_words, token_words

Answer = Mapping[Any, Any]
"""What becomes of parts; those that are not in it stay as they are."""

NONE_YET = "There is none yet."

_TAGS_OFFERED = 200
_LONGEST = 100_000
"""Characters that a field may send: more is nobody's typing."""


class Histories:
    """What was changed in each folder and can be put back, for all browsers of this page."""

    def __init__(self, scratch: Path) -> None:
        """Keep what is put back under `scratch`."""
        self._scratch = scratch
        self._histories: dict[Path, History] = {}
        self._lock = threading.Lock()

    def of(self, view: View) -> History:
        """Return the history of a folder."""
        key = hashlib.sha256(str(view.folder).encode("utf-8", "surrogateescape")).hexdigest()[:24]
        with self._lock:
            if view.folder not in self._histories:
                self._histories[view.folder] = History(view.folder, self._scratch / key)
            return self._histories[view.folder]

    def of_writable(self, view: View) -> History:
        """Return the history of a folder that may be written to, as it is now.

        Raises:
            EditError: it may not, with what to do instead.
        """
        if view.report is None:
            raise EditError("Inspect a folder first")
        problem = reason_not_to_write(view.folder)
        if problem:
            raise EditError(problem)
        return self.of(view)


class Answers:
    """The answers that several handlers give alike; `…_parts` are the parts that are in one."""

    def __init__(self, parts: Parts, histories: Histories) -> None:
        """Answer with `parts`."""
        self._parts, self._histories = parts, histories
        self.gallery_parts = [parts.view, parts.gallery, parts.page, parts.back, parts.further]
        self.plan_parts = [parts.plan, parts.planned, parts.table, parts.apply]
        self.saving_parts = [parts.save, parts.discard, parts.conflict]
        self.editor_parts = [parts.opened, parts.picture, parts.caption, parts.tokens, *self.saving_parts]
        self.undo_parts = [parts.undo, parts.redo]

    def gallery(self, view: View, *, with_cuts: bool) -> dict[Any, Any]:
        """Show the page of pictures that a view is at."""
        pictures = [
            (str(thumbnail(picture, with_cuts=with_cuts)),
             ("✓ " if picture.name in view.selected else "") + picture.name)
            for picture in view.on_page if picture.thumbnail is not None
        ]  # fmt: skip
        parts = self._parts
        return {
            parts.view: view,
            parts.gallery: gr.Gallery(pictures, selected_index=None, visible=bool(pictures)),
            parts.page: page_words(view),
            parts.back: gr.Button(interactive=view.page > 0),
            parts.further: gr.Button(interactive=view.page + 1 < view.num_pages),
        }

    def tags(self, view: View) -> list[tuple[str, str]]:
        """Return the tags to choose from, 'any' first."""
        return [("any", ""), *((f"{tag} ({count:,})", tag) for tag, count in view.tags(_TAGS_OFFERED))]

    def nothing_to_save(self) -> dict[Any, Any]:
        """Show that the caption is as its file has it."""
        parts = self._parts
        return {
            parts.save: gr.Button(interactive=False),
            parts.discard: gr.Button(interactive=False),
            parts.conflict: gr.Group(visible=False),
        }

    def closed(self) -> dict[Any, Any]:
        """Show no picture's caption."""
        parts = self._parts
        return {
            parts.opened: None,
            parts.picture: picture_words(None, None),
            parts.caption: gr.Textbox("", label="Caption", info=None, interactive=False),
            parts.tokens: said(""),
            **self.nothing_to_save(),
        }

    def no_plan(self) -> dict[Any, Any]:
        """Take back what was previewed."""
        parts = self._parts
        return {
            parts.plan: None,
            parts.planned: said(""),
            parts.table: gr.Dataframe(visible=False),
            parts.apply: gr.Button("Apply", interactive=False),
        }

    def undoable(self, view: View) -> dict[Any, Any]:
        """Show what can be put back and done again."""
        parts = self._parts
        if view.read_only:
            return {parts.undo: gr.Button("Undo", interactive=False), parts.redo: gr.Button("Redo", interactive=False)}
        history = self._histories.of(view)
        undo, redo = history.next_undo(), history.next_redo()
        return {
            parts.undo: gr.Button(_label("Undo", undo), interactive=undo is not None),
            parts.redo: gr.Button(_label("Redo", redo), interactive=redo is not None),
        }

    def tokens(self, text: str, model: str, limit: int, problem: str = "") -> gr.HTML:
        """Return how a caption is read. Raises EditError for a limit or a model that is none."""
        if limit not in LIMITS or model not in ("sdxl", "miniature"):
            raise EditError(f"Tokens that are read: one of {', '.join(map(str, LIMITS))}")
        counted = count_tokens(text_of(text), "miniature" if model == "miniature" else "sdxl", limit)
        return said(token_words(counted, problem))


def said(html: str) -> gr.HTML:
    """Return a block of text, or no block at all where there is nothing to say: an empty one takes room."""
    return gr.HTML(html, visible=bool(html))


def text_of(value: object) -> str:
    """Return what a browser sent for a field of text."""
    return value[:_LONGEST] if isinstance(value, str) else ""


def thumbnail(picture: ShownPicture, *, with_cuts: bool) -> Path | None:
    """Return a picture's small form, on request with what is cut away dimmed."""
    if picture.thumbnail is None or not with_cuts:
        return picture.thumbnail
    return draw_cut(picture.thumbnail, picture.kept)


def require_saved(opened: WrittenCaption | None, text: str) -> None:
    """Refuse to go on while a caption is changed and not saved.

    Raises:
        EditError: it is.
    """
    if opened is not None and opened.slot is not None and text_of(text) != opened.text:
        raise EditError(f"The caption of {opened.picture} is changed and not saved. Save it, or discard the changes")


def _label(word: str, step: Step | None) -> str:
    return word if step is None else f"{word}: {step.what}"
