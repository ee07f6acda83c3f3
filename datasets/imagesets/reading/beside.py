"""Captions in text files that lie beside their pictures, and what a picture of a folder becomes with its caption."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from imagesets.captions import decode_caption
from imagesets.decoding import EXTENSIONS
from imagesets.errors import CaptionError, PictureError
from imagesets.files import FileInFolder, name_problem, read_file, shown_name
from imagesets.reading.walk import Found
from imagesets.sources import Entry


@dataclass(frozen=True)
class CaptionFiles:
    """Which files beside a picture hold its caption.

    Attributes:
        extensions: their endings; a caption's file has its picture's name otherwise. None are read where there is none.
        keep_lines: whether each line of one is a caption of its own.
    """

    extensions: tuple[str, ...]
    keep_lines: bool = False

    def found(self, found: Found) -> set[str]:
        """Return the names of all caption files of a walk, with and without a picture."""
        return {name for name in found.others if name.endswith(self.extensions)}

    def unused(self, found: Found, pictures: Iterable[str]) -> tuple[str, ...]:
        """Return the names of caption files without a picture, safe to print."""
        used = {caption_name(name, extension) for name in pictures for extension in self.extensions}
        return tuple(sorted(map(shown_name, self.found(found) - used)))


def entry_of(
    root: Path,
    name: str,
    found: Found,
    beside: CaptionFiles,
    *,
    caption: str | None = None,
    otherwise: str | None = None,
    aesthetic_score: float | None = None,
    repeats: int = 1,
) -> Entry:
    """Return a picture of a folder with its caption, or with what keeps it from being used.

    Args:
        root: the folder.
        name: of the picture, below the folder.
        found: what else lies there.
        beside: which files hold captions.
        caption: from elsewhere, clean; it goes before a file's.
        otherwise: the caption where there is none and no file.
        aesthetic_score: from 0 to 10.
        repeats: how often it is seen each time its source is.
    """
    extension = PurePosixPath(name).suffix.lower()
    problem = name_problem(name)
    if problem is None and extension not in EXTENSIONS:
        problem = f"{extension} files are not read: convert it to PNG, JPEG or WebP"
    if problem is None and caption is None:
        try:
            caption = read_captions(root, name, found, beside)
        except CaptionError as error:
            problem = str(error)
    return Entry(
        name=shown_name(name),
        caption=otherwise if caption is None else caption,
        problem=problem,
        aesthetic_score=aesthetic_score,
        extension=extension,
        read=FileInFolder(root, name),
        repeats=repeats,
    )


def caption_name(name: str, extension: str) -> str:
    """Return the name of the file in which a picture's caption would lie."""
    return name[: len(name) - len(PurePosixPath(name).suffix)] + extension


def read_captions(root: Path, name: str, found: Found, beside: CaptionFiles) -> str | None:
    """Return the caption beside a picture, or None where there is none.

    Raises:
        CaptionError: it cannot be used, or there are two which differ.
    """
    captions: dict[str, str] = {}
    for extension in beside.extensions:
        file = caption_name(name, extension)
        caption = _read_caption(root, file, found, keep_lines=beside.keep_lines)
        if caption is not None:
            captions[shown_name(PurePosixPath(file).name)] = caption
    if len(set(captions.values())) > 1:
        raise CaptionError(f"its captions {' and '.join(captions)} differ: remove the one that is not meant")
    return next(iter(captions.values()), None)


def _read_caption(root: Path, name: str, found: Found, *, keep_lines: bool) -> str | None:
    """Return the caption in a file, or None where there is none."""
    short = shown_name(PurePosixPath(name).name)
    if name in found.odd:
        raise CaptionError(f"its caption {short} is not a plain file")
    if name not in found.others:
        return None
    if name in found.outside:
        raise CaptionError(f"its caption {short} is a link that leads out of the folder: copy it in")
    try:
        content = read_file(root / name, root)
    except PictureError as error:
        raise CaptionError(f"its caption {short} cannot be used: {error}") from error
    return decode_caption(content, short, keep_lines=keep_lines)
