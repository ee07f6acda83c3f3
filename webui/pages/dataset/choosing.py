"""A folder is chosen and inspected, and what the inspection found is shown.

Names that come from the browser are looked up among the page's places. What is known of a folder lies in the `View` of
a browser's session; inspections are shared by all browsers.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from finetune.errors import AtelierError
from imagesets.errors import ImagesetError
from webui.dataset_desk import view as looking
from webui.dataset_desk.captions import EXTENSIONS, read_captions, reason_not_to_write
from webui.dataset_desk.errors import EditError
from webui.dataset_desk.folders import find_folders
from webui.dataset_desk.inspecting import Inspector, line_for
from webui.dataset_desk.view import WITHOUT_CAPTION, View
from webui.desk import Desk
from webui.pages.dataset.answers import Answer, Answers, said, text_of
from webui.pages.dataset.parts import Parts
from webui.pages.dataset.words import bucket_words, finding_words, report_words
from webui.pages.parts import empty, on_open, progress
from webui.words import told


@dataclass(frozen=True)
class Asked:
    """A folder that was asked for, and found: as the browser names it, where it is, how its caption files end."""

    name: str
    path: Path
    extension: str


class Choosing:
    """The handlers of the folder's choice and of its inspection."""

    def __init__(self, desk: Desk, parts: Parts, answers: Answers) -> None:
        """Inspect folders of the desk's places."""
        self.desk, self.parts, self.answers = desk, parts, answers
        self.inspector = Inspector(desk.places.scratch / "dataset" / "inspections")

    def connect(self) -> None:
        """Say what calls which handler. Whatever is found, everything on the page is of another folder."""
        parts, quick = self.parts, {"show_progress": "hidden"}
        every = parts.all()
        on_open(self.open, None, every)
        parts.inspect.click(
            self.inspect, [parts.folder, parts.extension, parts.view], every, js=_REMEMBER, **quick
        )  # fmt: skip
        parts.cancel.click(self.cancel, [parts.watched, parts.view], every, **quick)
        parts.timer.tick(self.tick, [parts.watched, parts.view], every, **quick)

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
            return {**answer, parts.status: said(empty("This folder cannot be opened", str(error)))}

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
            return gr.skip()
        self.inspector.cancel(watched.path, watched.extension)
        return self._look(watched, view)

    @told
    def tick(self, watched: Asked | None, view: View) -> Answer:
        """Say how far the inspection is; show what it found once it is done."""
        return {self.parts.timer: gr.Timer(active=False)} if watched is None else self._look(watched, view)

    def _asked(self, name: str | None, extension: str) -> Asked:
        name = text_of(name).strip()
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
            return {**answer, parts.status: said(progress(look.done, look.total or None, look.words))}
        if look.state == "none":
            return answer
        if look.state != "done":
            title = "Cancelled" if look.state == "cancelled" else _CANNOT
            return {**answer, parts.status: said(empty(title, look.words)), parts.body: gr.Column(visible=False)}
        if view.report is not None and (view.folder, view.number) == (path, look.number):
            return answer
        try:
            report, captions = self.inspector.report(path, extension), read_captions(path, extension)
        except (AtelierError, ImagesetError) as error:
            return {**answer, parts.status: said(empty(_CANNOT, str(error))), parts.body: gr.Column(visible=False)}
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
            parts.status: said(""),
            parts.body: gr.Column(visible=True),
            parts.facts: report_words(view, line_for(view.folder, view.extension, view.name)),
            parts.findings: finding_words(report),
            parts.buckets: bucket_words(report),
            parts.bucket: gr.Dropdown(buckets, value=""),
            parts.finding: gr.Dropdown(findings, value=""),
            parts.tag: gr.Dropdown(self.answers.tags(view), value=""),
            parts.change_tag: gr.Dropdown(self.answers.tags(view)[1:]),
            parts.words: "",
            parts.with_cuts: False,
            parts.model: "miniature" if is_sample else "sdxl",
            **self.answers.gallery(view, with_cuts=False),
            **self.answers.closed(),
            **self.answers.no_plan(),
            **self.answers.undoable(view),
        }


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
