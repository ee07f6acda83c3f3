"""One picture's caption: opened, counted in tokens while it is written, saved, compared with what others wrote."""

from dataclasses import replace
from typing import Any

import gradio as gr

from webui.dataset_desk import view as looking
from webui.dataset_desk.captions import WrittenCaption, plan_puts, read_caption
from webui.dataset_desk.errors import ConflictError, EditError
from webui.dataset_desk.report import ShownPicture
from webui.dataset_desk.view import View
from webui.pages.dataset.answers import NONE_YET, Answer, Answers, Histories, require_saved, text_of, thumbnail
from webui.pages.dataset.parts import Parts
from webui.pages.dataset.words import picture_words
from webui.words import told


class Editing:
    """The handlers of the caption's editor."""

    def __init__(self, parts: Parts, answers: Answers, histories: Histories) -> None:
        """Write through `histories`, so that each change can be put back."""
        self.parts, self.answers, self.histories = parts, answers, histories

    def connect(self) -> None:
        """Say what calls which handler."""
        parts, answers, quick = self.parts, self.answers, {"show_progress": "hidden"}
        counting = [parts.model, parts.limit]
        editing = [parts.view, parts.opened, parts.caption]
        opened = answers.editor_parts
        picked = [*opened, *answers.gallery_parts, *answers.plan_parts]
        saved = [*picked, *answers.undo_parts, parts.theirs]
        parts.gallery.select(self.pick, [*editing, parts.with_cuts, parts.click, *counting], picked, **quick)
        parts.before.click(self.open_before, [*editing, parts.with_cuts, *counting], opened, **quick)
        parts.after.click(self.open_after, [*editing, parts.with_cuts, *counting], opened, **quick)
        gr.on(
            [parts.caption.change, parts.model.input, parts.limit.input],
            self.type, [*editing, *counting], [parts.tokens, parts.save, parts.discard],
            trigger_mode="always_last", **quick,
        )  # fmt: skip
        parts.save.click(self.save, [*editing, parts.with_cuts], saved, **quick)
        parts.overwrite.click(self.overwrite, [*editing, parts.with_cuts], saved, **quick)
        gr.on(
            [parts.take.click, parts.discard.click],
            self.take, [parts.view, parts.opened, parts.with_cuts, *counting], saved, **quick,
        )  # fmt: skip

    @told
    def pick(
        self, view: View, opened: WrittenCaption | None, text: str, with_cuts: bool, click: str, model: str,
        limit: int, event: gr.SelectData,
    ) -> Answer:  # fmt: skip
        """Open the caption of the picture that was clicked, or select it."""
        shown = [picture for picture in view.on_page if picture.thumbnail is not None]
        index = event.index
        if not isinstance(index, int) or not 0 <= index < len(shown):
            return gr.skip()
        if click == "select":
            view = looking.toggled(view, shown[index].name)
            return {**self.answers.gallery(view, with_cuts=with_cuts), **self.answers.no_plan()}
        return self.open_caption(view, shown[index], opened, text, with_cuts=with_cuts, model=model, limit=limit)

    @told
    def open_before(
        self, view: View, opened: WrittenCaption | None, text: str, with_cuts: bool, model: str, limit: int
    ) -> Answer:
        """Open the picture before."""
        picture = looking.neighbour(view, opened.picture if opened else "", -1)
        return self.open_caption(view, picture, opened, text, with_cuts=with_cuts, model=model, limit=limit)

    @told
    def open_after(
        self, view: View, opened: WrittenCaption | None, text: str, with_cuts: bool, model: str, limit: int
    ) -> Answer:
        """Open the next picture."""
        picture = looking.neighbour(view, opened.picture if opened else "", 1)
        return self.open_caption(view, picture, opened, text, with_cuts=with_cuts, model=model, limit=limit)

    @told
    def type(self, view: View, opened: WrittenCaption | None, text: str, model: str, limit: int) -> Answer:
        """Count the tokens of what is being written."""
        if opened is None:
            return gr.skip()
        problem = view.read_only or opened.problem
        is_changed = not problem and text_of(text) != opened.text
        return {
            self.parts.tokens: self.answers.tokens(text, model, limit, problem),
            self.parts.save: gr.Button(interactive=is_changed),
            self.parts.discard: gr.Button(interactive=is_changed),
        }

    @told
    def save(self, view: View, opened: WrittenCaption | None, text: str, with_cuts: bool) -> Answer:
        """Write the caption; where it was changed elsewhere, show that first."""
        if opened is None:
            raise EditError("Click a picture first")
        history = self.histories.of_writable(view)
        puts = plan_puts([opened], {opened.picture: text_of(text)})
        try:
            history.apply(f"the caption of {opened.picture}", puts)
        except ConflictError:
            theirs = read_caption(view.folder, opened)
            return {self.parts.conflict: gr.Group(visible=True), self.parts.theirs: theirs.text}
        return self._saved(view, read_caption(view.folder, opened), with_cuts=with_cuts)

    @told
    def overwrite(self, view: View, opened: WrittenCaption | None, text: str, with_cuts: bool) -> Answer:
        """Write the caption over what was changed elsewhere."""
        if opened is None:
            raise EditError("Click a picture first")
        return self.save(view, read_caption(view.folder, opened), text, with_cuts)

    @told
    def take(self, view: View, opened: WrittenCaption | None, with_cuts: bool, model: str, limit: int) -> Answer:
        """Forget what was written here; show what stands in the file."""
        if opened is None:
            return gr.skip()
        theirs = read_caption(view.folder, opened)
        return {
            **self._saved(view, theirs, with_cuts=with_cuts),
            self.parts.caption: theirs.text,
            self.parts.tokens: self.answers.tokens(theirs.text, model, limit),
        }

    def open_caption(
        self, view: View, picture: ShownPicture | None, opened: WrittenCaption | None, text: str, *,
        with_cuts: bool, model: str, limit: int,
    ) -> Answer:  # fmt: skip
        """Open a picture's caption, as its file has it now; nothing where there is no picture.

        Raises:
            EditError: the one that is open is changed and not saved.
        """
        if picture is None:
            return gr.skip()
        require_saved(opened, text)
        caption = view.captions[picture.name]
        if caption.slot is not None:
            try:
                caption = read_caption(view.folder, caption)
            except EditError as error:
                caption = WrittenCaption(picture.name, picture.caption, problem=str(error))
        problem, is_new = view.read_only or caption.problem, caption.raw is None
        parts = self.parts
        return {
            parts.opened: caption,
            parts.picture: picture_words(picture, thumbnail(picture, with_cuts=with_cuts)),
            parts.caption: gr.Textbox(
                caption.text,
                label=f"Caption of {picture.name}",
                # It is shown as Markdown, so that nothing of a file may stand in it.
                info="It is not changed here; why is said below." if problem else NONE_YET if is_new else None,
                interactive=not problem,
            ),
            parts.tokens: self.answers.tokens(caption.text, model, limit, problem),
            **self.answers.nothing_to_save(),
        }

    def _saved(self, view: View, caption: WrittenCaption, *, with_cuts: bool) -> dict[Any, Any]:
        """Show a caption as it stands now, in the gallery's filter as well."""
        view = replace(view, captions={**view.captions, caption.picture: caption})
        return {
            self.parts.opened: caption,
            self.parts.caption: gr.Textbox(info=NONE_YET if caption.raw is None else None),
            **self.answers.gallery(view, with_cuts=with_cuts),
            **self.answers.nothing_to_save(),
            **self.answers.no_plan(),
            **self.answers.undoable(view),
        }
