"""What the metadata files of a folder say of its pictures: those that lie in it, or one that is named."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from imagesets.errors import PictureError, SourceError
from imagesets.files import FileInFolder, shown_name
from imagesets.reading.json_captions import EXAMPLE, parse_json_captions
from imagesets.reading.metadata import METADATA_FILES, MetadataLine
from imagesets.reading.metadata_tables import read_metadata_file
from imagesets.reading.walk import Found
from imagesets.sources import FolderSource

_TABLES = (".jsonl", ".csv", ".parquet")


def read_metadata(source: FolderSource, found: Found) -> tuple[dict[str, MetadataLine], dict[str, str]]:
    """Return what metadata files say of each picture, and what is wrong with them, with the reason.

    Raises:
        SourceError: captions are to come from one and none says anything, a folder has two, or the one that is named
            cannot be read.
    """
    if source.captions == "files":
        return {}, {}
    if source.metadata_file is None:
        lines, problems = _metadata_of_folders(source.path, found, keep_lines=source.keeps_lines)
        where = f"the folder {source.path.absolute()} holds no metadata.jsonl (or .csv, .parquet)"
        example = '{"file_name": "a.png", "text": "…"}'
    else:
        lines, problems = _metadata_of_file(source.metadata_file, source, found)
        where, example = f"the metadata file {source.metadata_file} is none", EXAMPLE
    if source.captions == "metadata" and not lines and not problems:
        raise SourceError(
            f"{where} with a line in it, and captions are to come from it: write one, as {example}, or take captions: "
            "files"
        )
    return lines, problems


def metadata_names(source: FolderSource, found: Found) -> set[str]:
    """Return the names of the metadata files of a walk that are read, where any are."""
    if source.metadata_file is None:
        return {name for name in found.others if PurePosixPath(name).name in METADATA_FILES}
    file, root = source.metadata_file.absolute(), source.path.absolute()
    return {file.relative_to(root).as_posix()} if file.is_relative_to(root) else set()


def _metadata_of_file(path: Path, source: FolderSource, found: Found) -> tuple[dict[str, MetadataLine], dict[str, str]]:
    """Read the one metadata file that was named; what it names are pictures of the folder.

    Raises:
        SourceError: it cannot be read as a whole.
    """
    place = path.resolve()
    file = FileInFolder(place.parent, place.name)
    try:
        if path.suffix.lower() != ".json":
            if path.suffix not in _TABLES:
                raise SourceError(f"ends in {path.suffix!r}; what ends in .json, {', '.join(_TABLES)} is read")
            read = read_metadata_file(file, keep_lines=source.keeps_lines)
            return _sorted_out(path.name, "", read, found)
        captions = parse_json_captions(file(), source.path.absolute(), found.pictures, keep_lines=source.keeps_lines)
    except PictureError as error:
        raise SourceError(f"the metadata file {path}: {error}") from error
    except SourceError as error:
        raise SourceError(f"the metadata file {path} {error}") from error
    return captions.lines, {f"{path.name}:{key}": problem for key, problem in captions.problems.items()}


def _metadata_of_folders(
    root: Path, found: Found, *, keep_lines: bool
) -> tuple[dict[str, MetadataLine], dict[str, str]]:
    """Read every metadata file of the walk; return what they say of each picture, and wrong lines with the reason.

    Raises:
        SourceError: a folder has two of them.
    """
    lines: dict[str, MetadataLine] = {}
    problems: dict[str, str] = {}
    # A folder's own file comes after its parents', and has the last word.
    for file in _metadata_files(root, found):
        try:
            read = read_metadata_file(FileInFolder(root, file), keep_lines=keep_lines)
        except PictureError as error:
            problems[file] = str(error)
            continue
        more, wrong = _sorted_out(file, file.removesuffix(PurePosixPath(file).name), read, found)
        lines |= more
        problems |= wrong
    return lines, problems


def _sorted_out(
    file: str, folder: str, read: Sequence[MetadataLine], found: Found
) -> tuple[dict[str, MetadataLine], dict[str, str]]:
    """Return the lines of a metadata file by their pictures, and those that are wrong or name none."""
    lines: dict[str, MetadataLine] = {}
    problems: dict[str, str] = {}
    pictures = found.picture_names
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
