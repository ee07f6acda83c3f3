"""Where pictures come from: a folder, or a dataset through Hugging Face's `datasets`. Each yields raw entries."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from imagesets.captions import METADATA_FILE, clean_caption, leads_outside, read_caption_file, read_metadata
from imagesets.decoding import EXTENSIONS, PICTURE_LIKE
from imagesets.errors import PictureError, SourceError

_MAX_FILE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class FolderSource:
    """A folder of pictures with captions beside them or in metadata.jsonl."""

    path: Path
    recursive: bool = True
    captions: Literal["auto", "files", "metadata"] = "auto"
    caption_extension: str = ".txt"
    repeats: int = 1
    trigger: str = ""


@dataclass(frozen=True)
class HuggingFaceSource:
    """A dataset by name on the hub or by path, with the columns that hold pictures and captions."""

    name: str
    config_name: str | None = None
    revision: str | None = None
    split: str = "train"
    image_column: str = "image"
    caption_column: str = "text"
    repeats: int = 1
    trigger: str = ""


Source = FolderSource | HuggingFaceSource


@dataclass(frozen=True)
class Entry:
    """One datum of a source before its picture is opened.

    Attributes:
        name: how messages call it: a path below the folder with forward slashes, or 'row 12'.
        caption: as the source has it.
        extension: of the file's name, or None.
        path: the file, or None for a row of a dataset.
        row: the dataset's row number, or None for a file.
        problem: why it cannot be used, or None.
    """

    name: str
    caption: str
    extension: str | None = None
    path: Path | None = None
    row: int | None = None
    problem: str | None = None


def folder_entries(source: FolderSource) -> Iterator[Entry]:
    """Yield a folder's pictures in the order of their names, refused ones with their reason.

    Raises:
        SourceError: there is no such folder, or its metadata.jsonl cannot be read.
    """
    root = source.path
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise SourceError(f"the folder of pictures {root.absolute()} {what}. Set data.sources.0.path=…")
    metadata = root / METADATA_FILE
    if source.captions == "metadata" and not metadata.is_file():
        raise SourceError(f"{metadata} does not exist, and the recipe says captions: metadata")
    if source.captions != "files" and metadata.is_file():
        yield from _metadata_entries(root, metadata)
        return
    for path in _picture_paths(root, recursive=source.recursive):
        yield _file_entry(root, path, source.caption_extension)


def read_file(path: Path) -> bytes:
    """Read a picture's bytes from a plain file.

    Raises:
        PictureError: it is no plain file, too large, or cannot be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PictureError("it is not a plain file")
        if status.st_size > _MAX_FILE_BYTES:
            raise PictureError(f"the file has {status.st_size / 2**20:.0f} MiB; at most 512 are read")
        return path.read_bytes()
    except OSError as error:
        raise PictureError(f"it cannot be read: {error.strerror or error}") from error


class Rows:
    """A dataset's rows, with pictures as bytes: they are decoded here, not by the library."""

    def __init__(self, source: HuggingFaceSource) -> None:
        self.source = source
        self._table = _load_dataset(source)

    def __len__(self) -> int:
        return len(self._table)

    def entries(self) -> Iterator[Entry]:
        """Yield every row's caption without reading its picture."""
        captions = self._table.select_columns([self.source.caption_column])
        for row, values in enumerate(captions):
            text = values[self.source.caption_column]
            problem = None if text is None or isinstance(text, str) else "its caption is not a text"
            caption = clean_caption(text) if isinstance(text, str) else ""
            yield Entry(name=f"row {row}", caption=caption, row=row, problem=problem)

    def read(self, row: int) -> bytes:
        """Return the bytes of one row's picture.

        Raises:
            PictureError: the row holds none.
        """
        value = self._table[row][self.source.image_column]
        if not isinstance(value, dict):
            raise PictureError("the row holds no picture")
        if value.get("bytes"):
            return bytes(value["bytes"])
        if value.get("path"):
            return read_file(self._inside(Path(value["path"])))
        raise PictureError("the row holds no picture")

    def _inside(self, path: Path) -> Path:
        """Let a local dataset name only files of its own folder: the library itself follows links out of it."""
        root = Path(self.source.name)
        if root.exists() and not path.resolve().is_relative_to(root.resolve()):
            raise PictureError(f"its file {path} lies outside the dataset's folder")
        return path


def _picture_paths(root: Path, *, recursive: bool) -> list[Path]:
    found: list[Path] = []
    for folder, folders, files in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if recursive else []
        here = Path(folder)
        # A folder named x.png is listed, too: a person may have meant a picture.
        odd = [name for name in os.listdir(here) if (here / name).is_dir() and Path(name).suffix.lower() in EXTENSIONS]  # noqa: PTH208
        found += [here / name for name in [*files, *odd]
                  if not name.startswith(".") and Path(name).suffix.lower() in PICTURE_LIKE]  # fmt: skip
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _file_entry(root: Path, path: Path, caption_extension: str) -> Entry:
    name = path.relative_to(root).as_posix()
    extension = path.suffix.lower()
    problem = _path_problem(root, path, extension)
    caption = ""
    if problem is None:
        caption_path = path.with_suffix(caption_extension)
        try:
            if caption_path.is_symlink() and not caption_path.resolve().is_relative_to(root.resolve()):
                raise PictureError(f"its caption {caption_path.name} is a link that leads out of the folder")
            caption = read_caption_file(caption_path)
        except PictureError as error:
            problem = str(error)
    return Entry(name=name, caption=caption, extension=extension, path=path, problem=problem)


def _metadata_entries(root: Path, metadata: Path) -> Iterator[Entry]:
    for name, caption in sorted(read_metadata(metadata).items()):
        path = root / name
        extension = path.suffix.lower()
        if leads_outside(name):
            problem: str | None = "metadata.jsonl names a file outside the folder"
        elif not path.exists() and not path.is_symlink():
            problem = "metadata.jsonl names it, and it does not exist"
        else:
            problem = _path_problem(root, path, extension)
        yield Entry(name=name, caption=caption, extension=extension, path=path, problem=problem)


def _path_problem(root: Path, path: Path, extension: str) -> str | None:
    """Say why a path is not opened: links out of the folder, folders, devices, formats that are not read."""
    if not path.resolve().is_relative_to(root.resolve()):
        return "it is a link that leads out of the folder"
    if path.is_dir():
        return "it is a folder with a picture's name"
    if not path.is_file():
        return "it is not a plain file"
    if extension not in EXTENSIONS:
        return f"{extension or 'files without an ending'} is not read; convert it to PNG, JPEG or WebP"
    return None


def _load_dataset(source: HuggingFaceSource) -> Any:
    """Load the split and cast its picture column to undecoded bytes.

    Raises:
        SourceError: the dataset, the split or a column is not there.
    """
    import datasets

    try:
        local = Path(source.name).expanduser()
        if (local / "dataset_info.json").is_file() or (local / "dataset_dict.json").is_file():
            table = datasets.load_from_disk(str(local))
            if isinstance(table, datasets.DatasetDict):
                table = table[source.split]
        else:
            table = datasets.load_dataset(source.name, source.config_name, revision=source.revision, split=source.split)
    except KeyError as error:
        raise SourceError(f"dataset {source.name!r} has no split {source.split!r}") from error
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        first = str(error).strip().partition("\n")[0]
        raise SourceError(f"dataset {source.name!r} (split {source.split!r}) cannot be loaded: {first}") from error
    for column in (source.image_column, source.caption_column):
        if column not in table.column_names:
            raise SourceError(
                f"dataset {source.name!r} has no column {column!r}. Its columns: {', '.join(table.column_names)}"
            )
    return table.cast_column(source.image_column, datasets.Image(decode=False))
