"""Which pictures are shown, page by page, and which are selected."""

from dataclasses import replace

import gradio as gr

from webui.dataset_desk import view as looking
from webui.dataset_desk.errors import EditError
from webui.dataset_desk.report import Size
from webui.dataset_desk.view import Filter, View
from webui.pages.dataset.answers import Answer, Answers, text_of
from webui.pages.dataset.parts import Parts
from webui.words import told


class Gallery:
    """The handlers of the filters, the pages and the selection."""

    def __init__(self, parts: Parts, answers: Answers) -> None:
        """Answer with `parts`."""
        self.parts, self.answers = parts, answers

    def connect(self) -> None:
        """Say what calls which handler."""
        parts, quick, shown = self.parts, {"show_progress": "hidden"}, self.answers.gallery_parts
        filters = [parts.view, parts.bucket, parts.finding, parts.tag, parts.words, parts.with_cuts]
        gr.on(
            [parts.bucket.input, parts.finding.input, parts.tag.input, parts.words.submit, parts.words.blur],
            self.filter, filters, shown, trigger_mode="always_last", **quick,
        )  # fmt: skip
        seen, selected = [parts.view, parts.with_cuts], [*shown, *self.answers.plan_parts]
        parts.with_cuts.input(self.show_gallery, seen, shown, **quick)
        parts.back.click(self.back, seen, shown, **quick)
        parts.further.click(self.further, seen, shown, **quick)
        parts.select_shown.click(self.select_shown, seen, selected, **quick)
        parts.select_none.click(self.select_none, seen, selected, **quick)

    @told
    def filter(self, view: View, bucket: str, finding: str, tag: str | None, words: str, with_cuts: bool) -> Answer:
        """Show the pictures that are like that."""
        chosen = Filter(self._size(view, bucket), finding or "", text_of(tag), text_of(words))
        if chosen == view.filter:
            return gr.skip()
        return self.answers.gallery(looking.filtered(view, chosen), with_cuts=with_cuts)

    @told
    def show_gallery(self, view: View, with_cuts: bool) -> Answer:
        """Draw the gallery anew, with or without what is cut away."""
        return self.answers.gallery(view, with_cuts=with_cuts)

    @told
    def back(self, view: View, with_cuts: bool) -> Answer:
        """Show the page before."""
        return self.answers.gallery(looking.turned(view, -1), with_cuts=with_cuts)

    @told
    def further(self, view: View, with_cuts: bool) -> Answer:
        """Show the next page."""
        return self.answers.gallery(looking.turned(view, 1), with_cuts=with_cuts)

    @told
    def select_shown(self, view: View, with_cuts: bool) -> Answer:
        """Select all that is shown, on every page."""
        return {**self.answers.gallery(looking.selecting_shown(view), with_cuts=with_cuts), **self.answers.no_plan()}

    @told
    def select_none(self, view: View, with_cuts: bool) -> Answer:
        """Select nothing."""
        return {
            **self.answers.gallery(replace(view, selected=frozenset()), with_cuts=with_cuts),
            **self.answers.no_plan(),
        }

    def _size(self, view: View, bucket: str) -> Size | None:
        sizes = {} if view.report is None else {f"{h}x{w}": (h, w) for h, w in (b.size for b in view.report.buckets)}
        if bucket and bucket not in sizes:
            raise EditError(f"{bucket!r:.40}: there is no such bucket. Choose one of the list")
        return sizes.get(bucket)
