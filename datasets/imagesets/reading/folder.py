"""Lists a folder of pictures: every picture with its caption, and everything that looks like one with its problem.

Nothing outside the folder is read: links, metadata and captions that lead out are listed, not followed.
"""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from imagesets.captions import decode_caption
from imagesets.decoding import EXTENSIONS, PICTURE_LIKE
from imagesets.errors import CaptionError, PictureError, SourceError
from imagesets.files import FileInFolder, kind_of_file, name_problem, read_file, shown_name
from imagesets.reading.metadata import METADATA_FILES, MetadataLine
from imagesets.reading.metadata_tables import parse_metadata_file
from imagesets.sources import Entry, FolderSource, Listing

_SYSTEM_NAMES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


@dataclass
class _Found:
    """What a walk has found, by path below the root with forward slashes.

    Attributes:
        pictures: plain files whose names end as pictures' do.
        others: other plain files.
        outside: those of them that are links which lead out.
        odd: folders, pipes and devices whose names do not end as pictures' do.
        problems: what cannot be used, with the reason.
        ignored: what was passed over.
    """

    pictures: list[str] = field(default_factory=list)
    others: set[str] = field(default_factory=set)
    outside: set[str] = field(default_factory=set)
    odd: set[str] = field(default_factory=set)
    problems: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)


def list_folder(source: FolderSource) -> Listing:
    """List a folder's pictures in the order of their paths.

    Raises:
        SourceError: there is no such folder, it cannot be read, or it holds nothing that looks like a picture.
    """
    root = source.path
    found = _walk(root, recursive=source.recursive)
    lines, problems = _metadata(root, found) if source.captions != "files" else ({}, {})
    if source.captions == "metadata" and not lines and not problems:
        raise SourceError(
            f"the folder {root.absolute()} holds no metadata.jsonl (or metadata.csv) with a line in it, and captions "
            'are to come from it: write one, as {"file_name": "a.png", "text": "…"}, or take captions: files'
        )
    beside = source.captions != "metadata"
    entries = [_entry(root, name, lines.get(name), source.caption_extension if beside else None, found,
                      keep_lines=source.keeps_lines) for name in found.pictures]  # fmt: skip
    entries += [Entry(shown_name(name), problem=reason) for name, reason in (found.problems | problems).items()]
    if not entries:
        raise SourceError(
            f"the folder of pictures {root.absolute()} holds no JPEG, PNG or WebP file "
            f"({len(found.ignored) + len(found.others) + len(found.odd)} other things in it were passed over"
            f"{'' if source.recursive else ', folders in it are not read: recursive is false'})"
        )
    captions = {name for name in found.others if name.endswith(source.caption_extension) and beside}
    used = {_caption_name(name, source.caption_extension) for name in found.pictures}
    others = found.others - captions - {name for name in found.others if PurePosixPath(name).name in METADATA_FILES}
    return Listing(
        entries=tuple(sorted(entries, key=lambda entry: entry.name)),
        ignored=tuple(sorted(map(shown_name, [*found.ignored, *others]))),
        unused_captions=tuple(sorted(map(shown_name, captions - used))),
    )


def _walk(root: Path, *, recursive: bool) -> _Found:
    """Sort out everything below a folder. Links to folders are not entered, so that a walk always ends."""
    found = _Found()
    try:
        resolved = root.resolve(strict=True)
        waiting = [(entry, "") for entry in os.scandir(resolved)]
    except (OSError, RuntimeError) as error:
        said = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        if isinstance(error, FileNotFoundError):
            said = "does not exist"
        elif isinstance(error, NotADirectoryError):
            said = "is a file, not a folder"
        raise SourceError(f"the folder of pictures {root.absolute()} {said}. Give a folder that holds them") from error
    while waiting:
        entry, above = waiting.pop()
        name = above + entry.name
        if _sort_out(entry, name, resolved, found) and recursive:
            try:
                waiting += [(below, f"{name}/") for below in os.scandir(entry.path)]
            except OSError as error:
                found.problems[name] = f"the folder cannot be read: {error.strerror or error}"
    found.pictures.sort()
    return found


def _sort_out(entry: "os.DirEntry[str]", name: str, root: Path, found: _Found) -> bool:
    """Put one thing where it belongs; return whether it is a folder to enter."""
    picture_like = PurePosixPath(entry.name).suffix.lower() in PICTURE_LIKE
    if entry.name.startswith(".") or entry.name in _SYSTEM_NAMES:
        found.ignored.append(name)
        return False
    try:
        mode = entry.stat().st_mode
        inside = not entry.is_symlink() or Path(entry.path).resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        mode, inside = stat.S_IFLNK, True  # to nothing, or to itself
    if not inside and (picture_like or stat.S_ISDIR(mode)):
        found.problems[name] = "it is a link that leads out of the folder: copy what it points to into the folder"
    elif stat.S_ISREG(mode):
        # A link that leads out stays known by its name, so that as a caption it is refused rather than missed.
        (found.pictures.append if picture_like else found.others.add)(name)
        if not inside:
            found.outside.add(name)
    elif not picture_like:
        found.odd.add(name)
        return stat.S_ISDIR(mode) and not entry.is_symlink()
    elif stat.S_ISDIR(mode):
        found.problems[name] = "it is a folder with a picture's name: rename it"
    else:
        found.problems[name] = f"it is {kind_of_file(mode)}, not a plain file: remove it"
    return False


def _metadata(root: Path, found: _Found) -> tuple[dict[str, MetadataLine], dict[str, str]]:
    """Read every metadata file of the walk; return what they say of each picture, and wrong lines with the reason.

    Raises:
        SourceError: a folder has two of them.
    """
    lines: dict[str, MetadataLine] = {}
    problems: dict[str, str] = {}
    pictures = set(found.pictures)
    # A folder's own file comes after its parents', and has the last word.
    for file in _metadata_files(root, found):
        short = PurePosixPath(file).name
        try:
            content = read_file(root / file, root)
        except PictureError as error:
            problems[file] = str(error)
            continue
        folder = file.removesuffix(short)
        for line in parse_metadata_file(short, content):
            name = folder + line.file_name
            problem = line.problem
            if problem is None and name not in pictures and name not in found.problems:
                there = name in found.others or name in found.odd or name in found.ignored
                problem = f"names {name!r}, " + (
                    "which is not a picture that is read" if there else "and there is no such picture in the folder"
                )
            if problem is not None:
                problems[f"{file}:{line.number}"] = problem
            lines[name] = line
    return lines, problems


def _metadata_files(root: Path, found: _Found) -> list[str]:
    """Return the walk's metadata files, each folder's after its parents'.

    Raises:
        SourceError: a folder has two of them, and none can be known to be the right one.
    """
    of_folder: dict[str, list[str]] = {}
    for file in sorted(name for name in found.others if PurePosixPath(name).name in METADATA_FILES):
        of_folder.setdefault(file.removesuffix(PurePosixPath(file).name), []).append(file)
    for folder, files in of_folder.items():
        if len(files) > 1:
            names = [PurePosixPath(file).name for file in files]
            place = root.absolute() / shown_name(folder)
            raise SourceError(
                f"the folder {place} holds {' and '.join(names)}, of which one can be read: to go by {names[0]}, "
                f"remove {' and '.join(names[1:])}; to go by {names[1]}, remove "
                f"{' and '.join([names[0], *names[2:]])}; or take captions: files"
            )
    return [file for _, (file,) in sorted(of_folder.items())]


def _entry(
    root: Path,
    name: str,
    line: MetadataLine | None,
    caption_extension: str | None,
    found: _Found,
    *,
    keep_lines: bool,
) -> Entry:
    extension = PurePosixPath(name).suffix.lower()
    read = FileInFolder(root, name)
    problem = name_problem(name)
    caption = None if line is None else line.caption
    if problem is None and extension not in EXTENSIONS:
        problem = f"{extension} files are not read: convert it to PNG, JPEG or WebP"
    if problem is None and caption is None and caption_extension is not None:
        try:
            caption = _read_caption(root, _caption_name(name, caption_extension), found, keep_lines=keep_lines)
        except CaptionError as error:
            problem = str(error)
    score = None if line is None else line.aesthetic_score
    return Entry(shown_name(name), caption, problem, score, extension, read)


def _caption_name(name: str, extension: str) -> str:
    return name[: len(name) - len(PurePosixPath(name).suffix)] + extension


def _read_caption(root: Path, name: str, found: _Found, *, keep_lines: bool) -> str | None:
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
