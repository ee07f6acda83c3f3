"""Many captions at once: previewed, written, put back and done again."""

import gradio as gr

from webui.dataset_desk import view as looking
from webui.dataset_desk.captions import WrittenCaption, read_captions
from webui.dataset_desk.errors import EditError
from webui.dataset_desk.operations import OPERATIONS, Given, Operation, Plan, plan
from webui.dataset_desk.view import View
from webui.pages.dataset.answers import Answer, Answers, Histories, require_saved, said, text_of
from webui.pages.dataset.editing import Editing
from webui.pages.dataset.parts import CHANGES_SHOWN, Parts
from webui.pages.dataset.words import plan_words
from webui.words import told


class Changing:
    """The handlers of changes to many captions."""

    def __init__(self, parts: Parts, answers: Answers, histories: Histories, editing: Editing) -> None:
        """Write through `histories`; the caption that is open is read again by `editing`."""
        self.parts, self.answers, self.histories, self.editing = parts, answers, histories, editing

    def connect(self) -> None:
        """Say what calls which handler."""
        parts, answers, quick = self.parts, self.answers, {"show_progress": "hidden"}
        planned = answers.plan_parts
        given = [parts.find, parts.replacement, parts.is_pattern, parts.ignore_case, parts.change_tag, parts.new_tag,
                 parts.keep_first]  # fmt: skip
        parts.operation.input(self.choose_operation, parts.operation, [*given, *planned], **quick)
        parts.preview.click(self.preview, [parts.view, parts.which, parts.operation, *given], planned, **quick)
        gr.on([each.change for each in (*given, parts.which)], self.forget_plan, parts.plan, planned, **quick)
        after = [parts.view, parts.opened, parts.caption, parts.with_cuts, parts.model, parts.limit]
        changed = [*answers.gallery_parts, *answers.editor_parts, *planned, *answers.undo_parts, parts.tag,
                   parts.change_tag]  # fmt: skip
        parts.apply.click(self.apply, [parts.plan, *after], changed, **quick)
        parts.undo.click(self.undo, after, changed, **quick)
        parts.redo.click(self.redo, after, changed, **quick)
        parts.reread.click(self.reread, after, changed, **quick)

    @told
    def choose_operation(self, name: str) -> Answer:
        """Show the fields that a change takes."""
        parts = self.parts
        fields = {
            "find": parts.find, "replacement": parts.replacement, "is_pattern": parts.is_pattern,
            "ignore_case": parts.ignore_case, "tag": parts.change_tag, "new_tag": parts.new_tag,
            "keep_first": parts.keep_first,
        }  # fmt: skip
        taken = _operation(name).fields
        return {
            **{part: gr.update(visible=field in taken) for field, part in fields.items()},
            **self.answers.no_plan(),
        }

    @told
    def preview(
        self, view: View, which: str, name: str, find: str, replacement: str, is_pattern: bool, ignore_case: bool,
        tag: str | None, new_tag: str, keep_first: float | None,
    ) -> Answer:  # fmt: skip
        """Find out what a change would do."""
        given = Given(
            text_of(find), text_of(replacement), bool(is_pattern), bool(ignore_case), text_of(tag),
            text_of(new_tag), min(max(0, int(keep_first or 0)), 100),
        )  # fmt: skip
        chosen = view.chosen(selected=which != "shown")
        found = plan(chosen, _operation(name), given)
        parts = self.parts
        rows = [list(change) for change in found.changes[:CHANGES_SHOWN]]
        return {
            parts.plan: found,
            parts.planned: said(plan_words(found, len(chosen), view.read_only)),
            parts.table: gr.Dataframe(rows, visible=bool(rows)),
            parts.apply: gr.Button(
                f"Apply to {found.num_files:,} file{'' if found.num_files == 1 else 's'}" if rows else "Apply",
                interactive=bool(rows) and not view.read_only,
            ),
        }

    def forget_plan(self, planned: Plan | None) -> Answer:
        """Take back a preview of what is no longer asked for."""
        return gr.skip() if planned is None else self.answers.no_plan()

    @told
    def apply(
        self, planned: Plan | None, view: View, opened: WrittenCaption | None, text: str, with_cuts: bool, model: str,
        limit: int,
    ) -> Answer:  # fmt: skip
        """Write what was previewed."""
        if planned is None:
            raise EditError("Press Preview first, and look at what would change")
        history = self.histories.of_writable(view)
        require_saved(opened, text)
        history.apply(planned.what, planned.puts)
        gr.Info(f"{len(planned.changes):,} captions changed. Undo puts them back.", title="Written", duration=5)
        return self._read_again(view, opened, with_cuts=with_cuts, model=model, limit=limit)

    @told
    def undo(
        self, view: View, opened: WrittenCaption | None, text: str, with_cuts: bool, model: str, limit: int
    ) -> Answer:
        """Put back what the last change changed."""
        history = self.histories.of_writable(view)
        require_saved(opened, text)
        history.undo()
        return self._read_again(view, opened, with_cuts=with_cuts, model=model, limit=limit)

    @told
    def redo(
        self, view: View, opened: WrittenCaption | None, text: str, with_cuts: bool, model: str, limit: int
    ) -> Answer:
        """Do again what was undone last."""
        history = self.histories.of_writable(view)
        require_saved(opened, text)
        history.redo()
        return self._read_again(view, opened, with_cuts=with_cuts, model=model, limit=limit)

    @told
    def reread(
        self, view: View, opened: WrittenCaption | None, text: str, with_cuts: bool, model: str, limit: int
    ) -> Answer:
        """Read what the files say now."""
        if view.report is None:
            return gr.skip()
        require_saved(opened, text)
        return self._read_again(view, opened, with_cuts=with_cuts, model=model, limit=limit)

    def _read_again(
        self, view: View, opened: WrittenCaption | None, *, with_cuts: bool, model: str, limit: int
    ) -> Answer:
        view = looking.with_captions(view, read_captions(view.folder, view.extension))
        parts = self.parts
        answer = {
            **self.answers.gallery(view, with_cuts=with_cuts),
            **self.answers.no_plan(),
            **self.answers.undoable(view),
            parts.tag: gr.Dropdown(self.answers.tags(view)),
            parts.change_tag: gr.Dropdown(self.answers.tags(view)[1:]),
        }
        if opened is None or view.report is None or opened.picture not in view.report.by_name:
            return answer
        picture = view.report.by_name[opened.picture]
        return {
            **answer,
            **self.editing.open_caption(view, picture, None, "", with_cuts=with_cuts, model=model, limit=limit),
        }


def _operation(name: str) -> Operation:
    if name not in OPERATIONS:
        raise EditError(f"{name!r:.40}: there is no such change. Choose one of the list")
    return OPERATIONS[name]
