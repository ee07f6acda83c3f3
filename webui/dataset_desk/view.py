"""What a person looks at: a set of pictures with its captions, which of them are shown, which are selected.

A `View` is a value: each function gives another. It knows nothing of the page.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from imagesets.captions import clean_caption
from imagesets.errors import CaptionError
from webui.dataset_desk.captions import WrittenCaption
from webui.dataset_desk.edits import count_tags, split_tags
from webui.dataset_desk.report import Report, ShownPicture, Size

PAGE = 60
"""Pictures on one page of the gallery."""

WITHOUT_CAPTION = "without a caption"
"""Among the kinds of findings to choose from: by what is written now, not when the set was inspected."""


_NOT_HERE = "Its caption does not stand in a file that is edited here."


@dataclass(frozen=True)
class Filter:
    """Which pictures are shown; all of it has to hold.

    Attributes:
        bucket: trained at this (height, width); None for any.
        finding: of which an inspection found this kind; '' for any.
        tag: whose caption has this tag, in whatever case; '' for any.
        words: whose name or caption has these words, in whatever case; '' for any.
    """

    bucket: Size | None = None
    finding: str = ""
    tag: str = ""
    words: str = ""


@dataclass(frozen=True, eq=False)
class View:
    """A set as a person looks at it. Two views are compared by being the same object: they may be large.

    Attributes:
        name: how the browser names the folder; '' while none was chosen.
        folder: the folder.
        extension: the ending of its caption files.
        number: of the inspection.
        report: what it found; None while there is none.
        captions: as they were read last, by picture.
        read_only: why captions cannot be changed; '' where they can.
        filter: which pictures are shown.
        page: of the gallery, from 0.
        selected: names of pictures.
    """

    name: str = ""
    folder: Path = field(default_factory=Path)
    extension: str = ".txt"
    number: int = 0
    report: Report | None = None
    captions: dict[str, WrittenCaption] = field(default_factory=dict, repr=False)
    read_only: str = ""
    filter: Filter = field(default_factory=Filter)
    page: int = 0
    selected: frozenset[str] = frozenset()

    @cached_property
    def shown(self) -> tuple[ShownPicture, ...]:
        """The pictures that the filter lets through: by bucket, that of the first picture first, each in its order."""
        if self.report is None:
            return ()
        places: dict[Size, int] = {}
        for picture in self.report.pictures:
            places.setdefault(picture.bucket, picture.index)
        found = [picture for picture in self.report.pictures if self._passes(picture)]
        return tuple(sorted(found, key=lambda picture: (places[picture.bucket], picture.index)))

    @property
    def on_page(self) -> tuple[ShownPicture, ...]:
        """The shown pictures of this page of the gallery."""
        return self.shown[self.page * PAGE : (self.page + 1) * PAGE]

    @property
    def num_pages(self) -> int:
        """How many pages the gallery has, at least 1."""
        return max(1, -(-len(self.shown) // PAGE))

    def text_of(self, picture: str) -> str:
        """Return what is written of a picture."""
        caption = self.captions.get(picture)
        return "" if caption is None else caption.text

    def tags(self, most: int) -> list[tuple[str, int]]:
        """Return the most frequent tags of what is written, with how many captions have each."""
        return count_tags([caption.text for caption in self.captions.values()]).most_common(most)

    def chosen(self, *, selected: bool) -> list[WrittenCaption]:
        """Return the captions of the selected pictures, or of those shown, in the order of the set."""
        names = self.selected if selected else {picture.name for picture in self.shown}
        return [caption for name, caption in self.captions.items() if name in names]

    def _passes(self, picture: ShownPicture) -> bool:
        chosen, text = self.filter, self.text_of(picture.name)
        if chosen.bucket is not None and picture.bucket != chosen.bucket:
            return False
        if chosen.finding == WITHOUT_CAPTION and not _says_nothing(text):
            return False
        if chosen.finding not in ("", WITHOUT_CAPTION) and chosen.finding not in picture.findings:
            return False
        tag, words = chosen.tag.strip().casefold(), chosen.words.strip().casefold()
        if tag and all(each.casefold() != tag for each in split_tags(text)):
            return False
        return not words or words in picture.name.casefold() or words in text.casefold()


def filtered(view: View, chosen: Filter) -> View:
    """Return the view with another filter, on its first page."""
    return replace(view, filter=chosen, page=0)


def turned(view: View, pages: int) -> View:
    """Return the view some pages further, or back; it stays within the gallery."""
    return replace(view, page=min(max(0, view.page + pages), view.num_pages - 1))


def with_captions(view: View, captions: Iterable[WrittenCaption]) -> View:
    """Return the view with captions that were read anew; where none could be, with those of the inspection, to read."""
    read = {caption.picture: caption for caption in captions}
    for picture in view.report.pictures if view.report is not None else ():
        caption = read.get(picture.name, WrittenCaption(picture.name, problem=_NOT_HERE))
        if caption.slot is None and not caption.text:
            caption = replace(caption, text=picture.caption)
        read[picture.name] = caption
    new = replace(view, captions=read)
    return replace(new, page=min(new.page, new.num_pages - 1))


def toggled(view: View, picture: str) -> View:
    """Return the view with a picture selected, or no longer."""
    return replace(view, selected=view.selected ^ {picture})


def selecting_shown(view: View) -> View:
    """Return the view with all that is shown, on every page, selected as well."""
    return replace(view, selected=view.selected | {picture.name for picture in view.shown})


def neighbour(view: View, picture: str, places: int) -> ShownPicture | None:
    """Return the shown picture that is some places further than another; None beyond the ends."""
    names: Sequence[str] = [each.name for each in view.shown]
    if picture not in names:
        return view.shown[0] if view.shown else None
    place = names.index(picture) + places
    return view.shown[place] if 0 <= place < len(names) else None


def _says_nothing(text: str) -> bool:
    try:
        return not clean_caption(text)
    except CaptionError:
        return False
