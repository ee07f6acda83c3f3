"""What happens on the page: each handler gets what a browser sends, and answers with the parts that become others.

Names that come from the browser are looked up: folders by the page's places, pictures in the report, choices among
those offered. What is known of a folder lies in the `View` of a browser's session.
"""

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from finetune.errors import AtelierError
from imagesets.errors import ImagesetError
from webui.dataset_desk import view as looking
from webui.dataset_desk.captions import (
    EXTENSIONS,
    WrittenCaption,
    plan_puts,
    read_caption,
    read_captions,
    reason_not_to_write,
)
from webui.dataset_desk.cuts import draw_cut
from webui.dataset_desk.errors import ConflictError, EditError
from webui.dataset_desk.folders import find_folders
from webui.dataset_desk.history import History, Step
from webui.dataset_desk.inspecting import Inspector, line_for
from webui.dataset_desk.operations import OPERATIONS, Given, Operation, Plan, plan
from webui.dataset_desk.report import ShownPicture, Size
from webui.dataset_desk.tokens import LIMITS, count_tokens
from webui.dataset_desk.view import WITHOUT_CAPTION, Filter, View
from webui.desk import Desk
from webui.pages.dataset.parts import CHANGES_SHOWN, Parts
from webui.pages.dataset.words import (
    bucket_words,
    finding_words,
    page_words,
    picture_words,
    plan_words,
    report_words,
    token_words,
)
from webui.pages.parts import empty, on_open, progress
from webui.words import told

Answer = Mapping[Any, Any]
"""What becomes of parts; those that are not in it stay as they are."""

_TAGS_OFFERED = 200
_LONGEST = 100_000
"""Characters that a field may send: more is nobody's typing."""


@dataclass(frozen=True)
class Asked:
    """A folder that was asked for, and found: as the browser names it, where it is, how its caption files end."""

    name: str
    path: Path
    extension: str


class Handlers:
    """The handlers of one page, and what all its browsers share: inspections and histories."""

    def __init__(self, desk: Desk, parts: Parts) -> None:
        self.desk, self.parts = desk, parts
        scratch = desk.places.scratch / "dataset"
        self.inspector = Inspector(scratch / "inspections")
        self._histories: dict[Path, History] = {}
        self._history_scratch = scratch / "history"
        self._lock = threading.Lock()

    def connect(self) -> None:
        """Say what calls which handler."""
        parts, quick = self.parts, {"show_progress": "hidden"}
        every = parts.all()
        on_open(self.open, None, every)
        parts.inspect.click(
            self.inspect, [parts.folder, parts.extension, parts.view], every, js=_REMEMBER, **quick
        )  # fmt: skip
        parts.cancel.click(self.cancel, [parts.watched, parts.view], every, **quick)
        parts.timer.tick(self.tick, [parts.watched, parts.view], every, **quick)
        filters = [parts.view, parts.bucket, parts.finding, parts.tag, parts.words, parts.with_cuts]
        gr.on(
            [parts.bucket.input, parts.finding.input, parts.tag.input, parts.words.submit, parts.words.blur],
            self.filter, filters, every, trigger_mode="always_last", **quick,
        )  # fmt: skip
        seen = [parts.view, parts.with_cuts]
        parts.with_cuts.input(self.show_gallery, seen, every, **quick)
        parts.back.click(self.back, seen, every, **quick)
        parts.further.click(self.further, seen, every, **quick)
        parts.select_shown.click(self.select_shown, seen, every, **quick)
        parts.select_none.click(self.select_none, seen, every, **quick)

        counting = [parts.model, parts.limit]
        editing = [parts.view, parts.opened, parts.caption]
        parts.gallery.select(self.pick, [*editing, parts.with_cuts, parts.click, *counting], every, **quick)
        parts.before.click(self.open_before, [*editing, parts.with_cuts, *counting], every, **quick)
        parts.after.click(self.open_after, [*editing, parts.with_cuts, *counting], every, **quick)
        gr.on(
            [parts.caption.change, parts.model.input, parts.limit.input],
            self.type, [*editing, *counting], every, trigger_mode="always_last", **quick,
        )  # fmt: skip
        parts.save.click(self.save, [*editing, parts.with_cuts], every, **quick)
        parts.overwrite.click(self.overwrite, [*editing, parts.with_cuts], every, **quick)
        gr.on(
            [parts.take.click, parts.discard.click],
            self.take, [parts.view, parts.opened, parts.with_cuts, *counting], every, **quick,
        )  # fmt: skip

        given = [parts.find, parts.replacement, parts.is_pattern, parts.ignore_case, parts.change_tag, parts.new_tag,
                 parts.keep_first]  # fmt: skip
        parts.operation.input(self.choose_operation, parts.operation, every, **quick)
        parts.preview.click(self.preview, [parts.view, parts.which, parts.operation, *given], every, **quick)
        gr.on([each.change for each in (*given, parts.which)], self.forget_plan, parts.plan, every, **quick)
        after = [parts.view, parts.opened, parts.caption, parts.with_cuts, *counting]
        parts.apply.click(self.apply, [parts.plan, *after], every, **quick)
        parts.undo.click(self.undo, after, every, **quick)
        parts.redo.click(self.redo, after, every, **quick)
        parts.reread.click(self.reread, after, every, **quick)

    # Choosing and inspecting

    def open(self, request: gr.Request) -> Answer:
        """List the folders, and go on with the one in the address, where it was inspected."""
        parts = self.parts
        folders = find_folders(self.desk.places.pictures)
        asked = request.query_params.get("folder") or ""
        extension = request.query_params.get("captions")
        extension = extension if extension in EXTENSIONS else EXTENSIONS[0]
        choices = [(folder.label, folder.name) for folder in folders]
        answer: dict[Any, Any] = {
            parts.folder: gr.Dropdown(choices, value=asked or None),
            parts.extension: extension,
        }
        if not asked:
            return answer
        try:
            return {**answer, **self._look(self._asked(asked, extension), View())}
        except (AtelierError, ImagesetError) as error:
            return {**answer, parts.status: _said(empty("This folder cannot be opened", str(error)))}

    @told
    def inspect(self, name: str | None, extension: str, view: View) -> Answer:
        """Begin to inspect a folder."""
        asked = self._asked(name, extension)
        self.inspector.start(asked.path, asked.extension)
        return self._look(asked, view)

    @told
    def cancel(self, watched: Asked | None, view: View) -> Answer:
        """End the inspection that is under way."""
        if watched is None:
            return self._nothing()
        self.inspector.cancel(watched.path, watched.extension)
        return self._look(watched, view)

    @told
    def tick(self, watched: Asked | None, view: View) -> Answer:
        """Say how far the inspection is; show what it found once it is done."""
        return {self.parts.timer: gr.Timer(active=False)} if watched is None else self._look(watched, view)

    def _asked(self, name: str | None, extension: str) -> Asked:
        name = _text(name).strip()
        if not name:
            raise EditError("Choose a folder of pictures first")
        if extension not in EXTENSIONS:
            raise EditError(f"Caption files end in {' or '.join(EXTENSIONS)}")
        return Asked(name, self.desk.places.picture_folder(name), extension)

    def _look(self, asked: Asked, view: View) -> Answer:
        """Answer with how an inspection is; where something else is chosen meanwhile, it is still this one."""
        name, path, extension = asked.name, asked.path, asked.extension
        parts, look = self.parts, self.inspector.look(path, extension)
        runs = look.state == "running"
        answer: dict[Any, Any] = {
            parts.watched: asked,
            parts.timer: gr.Timer(active=runs),
            parts.cancel: gr.Button(visible=runs),
            parts.inspect: gr.Button(interactive=not runs),
        }
        if runs:
            if view.folder != path:
                answer[parts.body] = gr.Column(visible=False)  # what is said below would seem to be of this folder
            return {**answer, parts.status: _said(progress(look.done, look.total or None, look.words))}
        if look.state == "none":
            return answer
        if look.state != "done":
            title = "Cancelled" if look.state == "cancelled" else _CANNOT
            return {**answer, parts.status: _said(empty(title, look.words)), parts.body: gr.Column(visible=False)}
        if view.report is not None and (view.folder, view.number) == (path, look.number):
            return answer
        try:
            report, captions = self.inspector.report(path, extension), read_captions(path, extension)
        except (AtelierError, ImagesetError) as error:
            return {**answer, parts.status: _said(empty(_CANNOT, str(error))), parts.body: gr.Column(visible=False)}
        assert report is not None, "it is done"
        view = View(name, path, extension, look.number, report, read_only=reason_not_to_write(path))
        view = looking.with_captions(view, captions)
        return {**answer, **self._everything(view)}

    def _everything(self, view: View) -> Answer:
        """Show a set from the beginning."""
        parts, report = self.parts, view.report
        assert report is not None, "there is something to show"
        buckets = [("all", "")] + [
            (f"{height} x {width} ({len(report.in_bucket((height, width))):,})", f"{height}x{width}")
            for height, width in (bucket.size for bucket in report.buckets)
        ]
        kinds = {each.kind: len(each.pictures) for each in report.findings if each.pictures}
        findings = [("all", ""), (WITHOUT_CAPTION, WITHOUT_CAPTION)]
        findings += [(f"{kind.replace('_', ' ')} ({count:,})", kind) for kind, count in kinds.items()]
        is_sample = view.name.startswith("sample:")
        return {
            parts.status: _said(""),
            parts.body: gr.Column(visible=True),
            parts.facts: report_words(view, line_for(view.folder, view.extension, view.name)),
            parts.findings: finding_words(report),
            parts.buckets: bucket_words(report),
            parts.bucket: gr.Dropdown(buckets, value=""),
            parts.finding: gr.Dropdown(findings, value=""),
            parts.tag: gr.Dropdown(self._tags(view), value=""),
            parts.change_tag: gr.Dropdown(self._tags(view)[1:]),
            parts.words: "",
            parts.with_cuts: False,
            parts.model: "miniature" if is_sample else "sdxl",
            **self._gallery(view, with_cuts=False),
            **self._closed(),
            **self._no_plan(),
            **self._undoable(view),
        }

    # The gallery

    @told
    def filter(self, view: View, bucket: str, finding: str, tag: str | None, words: str, with_cuts: bool) -> Answer:
        """Show the pictures that are like that."""
        chosen = Filter(self._size(view, bucket), finding or "", _text(tag), _text(words))
        if chosen == view.filter:
            return self._nothing()
        return self._gallery(looking.filtered(view, chosen), with_cuts=with_cuts)

    @told
    def show_gallery(self, view: View, with_cuts: bool) -> Answer:
        """Draw the gallery anew, with or without what is cut away."""
        return self._gallery(view, with_cuts=with_cuts)

    @told
    def back(self, view: View, with_cuts: bool) -> Answer:
        """Show the page before."""
        return self._gallery(looking.turned(view, -1), with_cuts=with_cuts)

    @told
    def further(self, view: View, with_cuts: bool) -> Answer:
        """Show the next page."""
        return self._gallery(looking.turned(view, 1), with_cuts=with_cuts)

    @told
    def select_shown(self, view: View, with_cuts: bool) -> Answer:
        """Select all that is shown, on every page."""
        return {**self._gallery(looking.selecting_shown(view), with_cuts=with_cuts), **self._no_plan()}

    @told
    def select_none(self, view: View, with_cuts: bool) -> Answer:
        """Select nothing."""
        return {**self._gallery(replace(view, selected=frozenset()), with_cuts=with_cuts), **self._no_plan()}

    def _gallery(self, view: View, *, with_cuts: bool) -> dict[Any, Any]:
        pictures = [
            (str(_thumbnail(picture, with_cuts=with_cuts)),
             ("✓ " if picture.name in view.selected else "") + picture.name)
            for picture in view.on_page if picture.thumbnail is not None
        ]  # fmt: skip
        parts = self.parts
        return {
            parts.view: view,
            parts.gallery: gr.Gallery(pictures, selected_index=None, visible=bool(pictures)),
            parts.page: page_words(view),
            parts.back: gr.Button(interactive=view.page > 0),
            parts.further: gr.Button(interactive=view.page + 1 < view.num_pages),
        }

    def _size(self, view: View, bucket: str) -> Size | None:
        sizes = {} if view.report is None else {f"{h}x{w}": (h, w) for h, w in (b.size for b in view.report.buckets)}
        if bucket and bucket not in sizes:
            raise EditError(f"{bucket!r:.40}: there is no such bucket. Choose one of the list")
        return sizes.get(bucket)

    def _tags(self, view: View) -> list[tuple[str, str]]:
        return [("any", ""), *((f"{tag} ({count:,})", tag) for tag, count in view.tags(_TAGS_OFFERED))]

    # One caption

    @told
    def pick(
        self, view: View, opened: WrittenCaption | None, text: str, with_cuts: bool, click: str, model: str,
        limit: int, event: gr.SelectData,
    ) -> Answer:  # fmt: skip
        """Open the caption of the picture that was clicked, or select it."""
        shown = [picture for picture in view.on_page if picture.thumbnail is not None]
        index = event.index
        if not isinstance(index, int) or not 0 <= index < len(shown):
            return self._nothing()
        if click == "select":
            view = looking.toggled(view, shown[index].name)
            return {**self._gallery(view, with_cuts=with_cuts), **self._no_plan()}
        return self._open(view, shown[index], opened, text, with_cuts=with_cuts, model=model, limit=limit)

    @told
    def open_before(
        self, view: View, opened: WrittenCaption | None, text: str, with_cuts: bool, model: str, limit: int
    ) -> Answer:
        """Open the picture before."""
        picture = looking.neighbour(view, opened.picture if opened else "", -1)
        return self._open(view, picture, opened, text, with_cuts=with_cuts, model=model, limit=limit)

    @told
    def open_after(
        self, view: View, opened: WrittenCaption | None, text: str, with_cuts: bool, model: str, limit: int
    ) -> Answer:
        """Open the next picture."""
        picture = looking.neighbour(view, opened.picture if opened else "", 1)
        return self._open(view, picture, opened, text, with_cuts=with_cuts, model=model, limit=limit)

    @told
    def type(self, view: View, opened: WrittenCaption | None, text: str, model: str, limit: int) -> Answer:
        """Count the tokens of what is being written."""
        if opened is None:
            return self._nothing()
        problem = view.read_only or opened.problem
        is_changed = not problem and _text(text) != opened.text
        return {
            self.parts.tokens: self._tokens(text, model, limit, problem),
            self.parts.save: gr.Button(interactive=is_changed),
            self.parts.discard: gr.Button(interactive=is_changed),
        }

    @told
    def save(self, view: View, opened: WrittenCaption | None, text: str, with_cuts: bool) -> Answer:
        """Write the caption; where it was changed elsewhere, show that first."""
        if opened is None:
            raise EditError("Click a picture first")
        self._require_writable(view)
        puts = plan_puts([opened], {opened.picture: _text(text)})
        try:
            self._history(view).apply(f"the caption of {opened.picture}", puts)
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
            return self._nothing()
        theirs = read_caption(view.folder, opened)
        return {
            **self._saved(view, theirs, with_cuts=with_cuts),
            self.parts.caption: theirs.text,
            self.parts.tokens: self._tokens(theirs.text, model, limit),
        }

    def _open(
        self, view: View, picture: ShownPicture | None, opened: WrittenCaption | None, text: str, *,
        with_cuts: bool, model: str, limit: int,
    ) -> Answer:  # fmt: skip
        if picture is None:
            return self._nothing()
        _require_saved(opened, text)
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
            parts.picture: picture_words(picture, _thumbnail(picture, with_cuts=with_cuts)),
            parts.caption: gr.Textbox(
                caption.text,
                label=f"Caption of {picture.name}",
                # It is shown as Markdown, so that nothing of a file may stand in it.
                info="It is not changed here; why is said below." if problem else _NONE_YET if is_new else None,
                interactive=not problem,
            ),
            parts.tokens: self._tokens(caption.text, model, limit, problem),
            **self._nothing_to_save(),
        }

    def _saved(self, view: View, caption: WrittenCaption, *, with_cuts: bool) -> dict[Any, Any]:
        """Show a caption as it stands now, in the gallery's filter as well."""
        view = replace(view, captions={**view.captions, caption.picture: caption})
        return {
            self.parts.opened: caption,
            self.parts.caption: gr.Textbox(info=_NONE_YET if caption.raw is None else None),
            **self._gallery(view, with_cuts=with_cuts),
            **self._nothing_to_save(),
            **self._no_plan(),
            **self._undoable(view),
        }

    def _nothing(self) -> dict[Any, Any]:
        """Let all parts be as they are; Gradio takes an empty answer for a slip."""
        return {self.parts.timer: gr.skip()}

    def _nothing_to_save(self) -> dict[Any, Any]:
        parts = self.parts
        return {
            parts.save: gr.Button(interactive=False),
            parts.discard: gr.Button(interactive=False),
            parts.conflict: gr.Group(visible=False),
        }

    def _closed(self) -> dict[Any, Any]:
        parts = self.parts
        return {
            parts.opened: None,
            parts.picture: picture_words(None, None),
            parts.caption: gr.Textbox("", label="Caption", info=None, interactive=False),
            parts.tokens: _said(""),
            **self._nothing_to_save(),
        }

    def _tokens(self, text: str, model: str, limit: int, problem: str = "") -> gr.HTML:
        if limit not in LIMITS or model not in ("sdxl", "miniature"):
            raise EditError(f"Tokens that are read: one of {', '.join(map(str, LIMITS))}")
        counted = count_tokens(_text(text), "miniature" if model == "miniature" else "sdxl", limit)
        return _said(token_words(counted, problem))

    # Many captions

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
            **self._no_plan(),
        }

    @told
    def preview(
        self, view: View, which: str, name: str, find: str, replacement: str, is_pattern: bool, ignore_case: bool,
        tag: str | None, new_tag: str, keep_first: float | None,
    ) -> Answer:  # fmt: skip
        """Find out what a change would do."""
        given = Given(
            _text(find), _text(replacement), bool(is_pattern), bool(ignore_case), _text(tag),
            _text(new_tag), min(max(0, int(keep_first or 0)), 100),
        )  # fmt: skip
        chosen = view.chosen(selected=which != "shown")
        found = plan(chosen, _operation(name), given)
        parts = self.parts
        rows = [list(change) for change in found.changes[:CHANGES_SHOWN]]
        return {
            parts.plan: found,
            parts.planned: _said(plan_words(found, len(chosen), view.read_only)),
            parts.table: gr.Dataframe(rows, visible=bool(rows)),
            parts.apply: gr.Button(
                f"Apply to {found.num_files:,} file{'' if found.num_files == 1 else 's'}" if rows else "Apply",
                interactive=bool(rows) and not view.read_only,
            ),
        }

    def forget_plan(self, planned: Plan | None) -> Answer:
        """Take back a preview of what is no longer asked for."""
        return self._nothing() if planned is None else self._no_plan()

    @told
    def apply(
        self, planned: Plan | None, view: View, opened: WrittenCaption | None, text: str, with_cuts: bool, model: str,
        limit: int,
    ) -> Answer:  # fmt: skip
        """Write what was previewed."""
        if planned is None:
            raise EditError("Press Preview first, and look at what would change")
        self._require_writable(view)
        _require_saved(opened, text)
        self._history(view).apply(planned.what, planned.puts)
        gr.Info(f"{len(planned.changes):,} captions changed. Undo puts them back.", title="Written", duration=5)
        return self._read_again(view, opened, with_cuts=with_cuts, model=model, limit=limit)

    @told
    def undo(
        self, view: View, opened: WrittenCaption | None, text: str, with_cuts: bool, model: str, limit: int
    ) -> Answer:
        """Put back what the last change changed."""
        self._require_writable(view)
        _require_saved(opened, text)
        self._history(view).undo()
        return self._read_again(view, opened, with_cuts=with_cuts, model=model, limit=limit)

    @told
    def redo(
        self, view: View, opened: WrittenCaption | None, text: str, with_cuts: bool, model: str, limit: int
    ) -> Answer:
        """Do again what was undone last."""
        self._require_writable(view)
        _require_saved(opened, text)
        self._history(view).redo()
        return self._read_again(view, opened, with_cuts=with_cuts, model=model, limit=limit)

    @told
    def reread(
        self, view: View, opened: WrittenCaption | None, text: str, with_cuts: bool, model: str, limit: int
    ) -> Answer:
        """Read what the files say now."""
        if view.report is None:
            return self._nothing()
        _require_saved(opened, text)
        return self._read_again(view, opened, with_cuts=with_cuts, model=model, limit=limit)

    def _read_again(
        self, view: View, opened: WrittenCaption | None, *, with_cuts: bool, model: str, limit: int
    ) -> Answer:
        view = looking.with_captions(view, read_captions(view.folder, view.extension))
        parts = self.parts
        answer = {
            **self._gallery(view, with_cuts=with_cuts),
            **self._no_plan(),
            **self._undoable(view),
            parts.tag: gr.Dropdown(self._tags(view)),
            parts.change_tag: gr.Dropdown(self._tags(view)[1:]),
        }
        if opened is None or view.report is None or opened.picture not in view.report.by_name:
            return answer
        picture = view.report.by_name[opened.picture]
        return {**answer, **self._open(view, picture, None, "", with_cuts=with_cuts, model=model, limit=limit)}

    def _no_plan(self) -> dict[Any, Any]:
        parts = self.parts
        return {
            parts.plan: None,
            parts.planned: _said(""),
            parts.table: gr.Dataframe(visible=False),
            parts.apply: gr.Button("Apply", interactive=False),
        }

    def _undoable(self, view: View) -> dict[Any, Any]:
        parts = self.parts
        if view.read_only:
            return {parts.undo: gr.Button("Undo", interactive=False), parts.redo: gr.Button("Redo", interactive=False)}
        history = self._history(view)
        undo, redo = history.next_undo(), history.next_redo()
        return {
            parts.undo: gr.Button(_label("Undo", undo), interactive=undo is not None),
            parts.redo: gr.Button(_label("Redo", redo), interactive=redo is not None),
        }

    def _history(self, view: View) -> History:
        """Return the history of a folder, which all browsers share."""
        key = hashlib.sha256(str(view.folder).encode("utf-8", "surrogateescape")).hexdigest()[:24]
        with self._lock:
            if view.folder not in self._histories:
                self._histories[view.folder] = History(view.folder, self._history_scratch / key)
            return self._histories[view.folder]

    def _require_writable(self, view: View) -> None:
        """Refuse to write where it must not be, by the folder as it is now.

        Raises:
            EditError: with what to do instead.
        """
        if view.report is None:
            raise EditError("Inspect a folder first")
        problem = reason_not_to_write(view.folder)
        if problem:
            raise EditError(problem)


_NONE_YET = "There is none yet."
_CANNOT = "These pictures cannot be inspected"

# The folder stands in the address, so that loading the page again, or sending its address on, shows the same.
_REMEMBER = """(folder, extension, ...rest) => {
    const address = new URL(window.location.href);
    if (folder) { address.searchParams.set('folder', folder); } else { address.searchParams.delete('folder'); }
    if (extension !== '.txt') { address.searchParams.set('captions', extension); }
    else { address.searchParams.delete('captions'); }
    window.history.replaceState(window.history.state, '', address);
    return [folder, extension, ...rest];
}"""


def _thumbnail(picture: ShownPicture, *, with_cuts: bool) -> Path | None:
    if picture.thumbnail is None or not with_cuts:
        return picture.thumbnail
    return draw_cut(picture.thumbnail, picture.kept)


def _said(html: str) -> gr.HTML:
    """Return a block of text, or no block at all where there is nothing to say: an empty one takes room."""
    return gr.HTML(html, visible=bool(html))


def _text(value: object) -> str:
    """Return what a browser sent for a field of text."""
    return value[:_LONGEST] if isinstance(value, str) else ""


def _operation(name: str) -> Operation:
    if name not in OPERATIONS:
        raise EditError(f"{name!r:.40}: there is no such change. Choose one of the list")
    return OPERATIONS[name]


def _require_saved(opened: WrittenCaption | None, text: str) -> None:
    """Refuse to go on while a caption is changed and not saved.

    Raises:
        EditError: it is.
    """
    if opened is not None and opened.slot is not None and _text(text) != opened.text:
        raise EditError(f"The caption of {opened.picture} is changed and not saved. Save it, or discard the changes")


def _label(word: str, step: Step | None) -> str:
    return word if step is None else f"{word}: {step.what}"
