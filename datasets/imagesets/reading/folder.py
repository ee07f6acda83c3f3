"""Lists a folder of pictures: every picture with its caption, and everything that looks like one with its problem.

Nothing outside the folder is read: links, metadata and captions that lead out are listed, not followed.
"""

from pathlib import Path, PurePosixPath

from imagesets.errors import PictureError, SourceError
from imagesets.files import FileInFolder, shown_name
from imagesets.reading.beside import CaptionFiles, entry_of
from imagesets.reading.metadata import METADATA_FILES, MetadataLine
from imagesets.reading.metadata_tables import read_metadata_file
from imagesets.reading.walk import Found, walk
from imagesets.sources import Entry, FolderSource, Listing


def list_folder(source: FolderSource) -> Listing:
    """List a folder's pictures in the order of their paths.

    Raises:
        SourceError: there is no such folder, it cannot be read, or it holds nothing that looks like a picture.
    """
    root = source.path
    found = walk(root, recursive=source.recursive)
    lines, problems = _metadata(root, found, keep_lines=source.keeps_lines) if source.captions != "files" else ({}, {})
    if source.captions == "metadata" and not lines and not problems:
        raise SourceError(
            f"the folder {root.absolute()} holds no metadata.jsonl (or .csv, .parquet) with a line in it, and captions "
            'are to come from it: write one, as {"file_name": "a.png", "text": "…"}, or take captions: files'
        )
    extensions = () if source.captions == "metadata" else (source.caption_extension,)
    beside = CaptionFiles(extensions, source.keeps_lines)
    entries = [_entry(root, name, found, beside, lines.get(name)) for name in found.pictures]
    entries += [Entry(shown_name(name), problem=reason) for name, reason in (found.problems | problems).items()]
    if not entries:
        raise SourceError(
            f"the folder of pictures {root.absolute()} holds no JPEG, PNG or WebP file "
            f"({found.num_passed_over} other things in it were passed over"
            f"{'' if source.recursive else ', folders in it are not read: recursive is false'})"
        )
    tables = {name for name in found.others if PurePosixPath(name).name in METADATA_FILES}
    return Listing(
        entries=tuple(sorted(entries, key=lambda entry: entry.name)),
        ignored=tuple(sorted(map(shown_name, [*found.ignored, *(found.others - beside.found(found) - tables)]))),
        unused_captions=beside.unused(found, found.pictures),
    )


def _entry(root: Path, name: str, found: Found, beside: CaptionFiles, line: MetadataLine | None) -> Entry:
    if line is None:
        return entry_of(root, name, found, beside)
    return entry_of(root, name, found, beside, caption=line.caption, aesthetic_score=line.aesthetic_score)


def _metadata(root: Path, found: Found, *, keep_lines: bool) -> tuple[dict[str, MetadataLine], dict[str, str]]:
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
            read = read_metadata_file(FileInFolder(root, file), keep_lines=keep_lines)
        except PictureError as error:
            problems[file] = str(error)
            continue
        folder = file.removesuffix(short)
        for line in read:
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


def _metadata_files(root: Path, found: Found) -> list[str]:
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
