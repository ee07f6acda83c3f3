"""The captions of a folder as they are written: where each stands, and writing some of them anew, all or none.

Read as training reads them: a metadata file goes before text files. Nothing outside the folder is read or written, no
link is followed, and what was changed elsewhere since it was read is not written over.
"""

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from finetune.cli.data_inspect import source_meant
from finetune.errors import AtelierError, DiskError
from finetune.recipe.shipped import samples_folder
from finetune.run.durable import disk_errors, fsync_path, write_bytes
from imagesets.captions import MAX_CAPTION_BYTES
from imagesets.files import name_problem
from imagesets.reading.beside import caption_name
from imagesets.reading.kohya import CAPTION_EXTENSIONS
from imagesets.reading.metadata import METADATA_FILES
from imagesets.reading.walk import Found, walk
from webui.dataset_desk.errors import ConflictError, EditError
from webui.dataset_desk.slots import FORMS, Raw, Slot, require_writable
from webui.paths import open_plain

EXTENSIONS = (".txt", ".caption")
"""Endings of caption files to choose from."""

_MAX_METADATA_BYTES = 64 * 2**20
_READ_AGAIN = "Read the captions again, and look at what they say now"


@dataclass(frozen=True)
class WrittenCaption:
    """What is written of a picture.

    Attributes:
        picture: its path below the folder, with forward slashes.
        text: the caption, its lines apart by line feeds; '' where there is none.
        slot: where it stands, or would; None where it cannot be changed.
        raw: what stands there, byte for byte.
        problem: why it cannot be changed; '' where it can.
    """

    picture: str
    text: str = ""
    slot: Slot | None = None
    raw: Raw = field(default=None, repr=False)
    problem: str = ""


@dataclass(frozen=True)
class Put:
    """One caption to be written: `after` where `before` is expected to stand."""

    slot: Slot
    before: Raw
    after: Raw

    def reversed(self) -> "Put":
        """Return what takes it back."""
        return Put(self.slot, self.after, self.before)


def reason_not_to_write(folder: Path) -> str:
    """Say why the captions of a folder are not to be changed here; '' where they may be."""
    if folder.is_relative_to(samples_folder().resolve()):
        return "These pictures ship with Atelier and are not changed here. Copy the folder to edit its captions."
    if not os.access(folder, os.W_OK):
        return "You may not write in this folder. Change its permissions, or copy it, to edit captions."
    return ""


def read_captions(folder: Path, extension: str = ".txt") -> list[WrittenCaption]:
    """Return what is written of every picture of a folder, in the order of their names.

    Args:
        folder: the folder, without links in its path.
        extension: the ending of caption files; folders `N_name` of kohya's take both.

    Raises:
        SourceError: the folder cannot be read.
        EditError: it has two metadata files in one place, or one that cannot be read.
    """
    assert extension in EXTENSIONS, "chosen from these"
    kind = (source_meant(str(folder)) or {"kind": "folder"})["kind"]
    if kind not in ("folder", "kohya"):
        return []
    found = walk(folder, recursive=True)
    extensions = CAPTION_EXTENSIONS if kind == "kohya" else (extension,)
    named = {} if kind == "kohya" else _named(folder, found)
    names = [name for name in found.pictures if name_problem(name) is None]
    return [named[name] if name in named else _beside(folder, name, found, extensions) for name in names]


def read_caption(folder: Path, caption: WrittenCaption) -> WrittenCaption:
    """Read one caption again, where it stood before.

    Raises:
        EditError: it does not stand there any more, or cannot be changed.
    """
    if caption.slot is None:
        return caption
    return _read_slot(folder, caption.picture, caption.slot)


def plan_puts(captions: Iterable[WrittenCaption], texts: Mapping[str, str]) -> list[Put]:
    """Return what is to be written so that pictures have new captions; what stays as it is is left out.

    Args:
        captions: as they were read.
        texts: the new ones, by picture.

    Raises:
        EditError: one of them cannot be changed.
    """
    puts: dict[Slot, Put] = {}
    for caption in captions:
        text = texts.get(caption.picture)
        if text is None or text == caption.text:
            continue
        if caption.slot is None:
            raise EditError(f"{caption.picture}: {caption.problem}. Nothing was changed")
        require_writable(text, caption.picture)
        try:
            put = Put(caption.slot, caption.raw, FORMS[caption.slot.kind].raw_of(text, caption.raw))
        except EditError as error:
            raise EditError(f"{caption.picture}: {error}") from error
        if puts.setdefault(put.slot, put) != put:
            raise EditError(f"{caption.picture}: another picture has the same caption file, {put.slot.file}, and they "
                            "would differ. Give one of the pictures another name")  # fmt: skip
    return [put for put in puts.values() if put.before != put.after]


def write_puts(folder: Path, puts: Sequence[Put]) -> None:
    """Write captions, each file whole or not at all; where one fails, those before it are put back.

    Args:
        folder: the folder, without links in its path.
        puts: at most one for each slot.

    Raises:
        ConflictError: what stands there is not what was expected; nothing was written.
        EditError: a place must not be written to, or cannot be.
    """
    by_file: dict[str, list[Put]] = defaultdict(list)
    for put in puts:
        by_file[put.slot.file].append(put)
    planned, conflicts = [], []
    for file, of_file in by_file.items():
        form, content = FORMS[of_file[0].slot.kind], _read_content(folder, of_file[0].slot)
        standing = form.raws(content)
        changed = [put for put in of_file if standing.get(put.slot.key) != put.before]
        conflicts += [f"{file} ({put.slot.key})" if put.slot.key else file for put in changed]
        if not changed:
            new = form.put(content, {put.slot.key: put.after for put in of_file})
            _require_kept(file, standing, form.raws(new), of_file)
            planned.append((of_file[0].slot, content, new))
    if conflicts:
        raise ConflictError(conflicts, _READ_AGAIN)
    done: list[tuple[Slot, Raw, Raw]] = []
    try:
        for slot, old, new in planned:
            _exchange(folder, slot, old, new)
            done.append((slot, old, new))
    except (AtelierError, OSError) as error:
        _put_back(folder, done, error)


def _named(folder: Path, found: Found) -> dict[str, WrittenCaption]:
    """Return what metadata files say of pictures; a folder's own file comes after its parents'."""
    named: dict[str, WrittenCaption] = {}
    seen: set[str] = set()
    pictures = found.picture_names
    for file in sorted(name for name in found.others if PurePosixPath(name).name in METADATA_FILES):
        above = file.removesuffix(PurePosixPath(file).name)
        if above in seen:
            raise EditError(f"{folder / above} holds two metadata files, and nobody knows which one counts. Remove one")
        seen.add(above)
        for key, caption in _of_metadata(folder, file).items():
            if above + key in pictures:
                named[above + key] = WrittenCaption(
                    above + key, caption.text, caption.slot, caption.raw, caption.problem
                )
    return named


def _of_metadata(folder: Path, file: str) -> dict[str, WrittenCaption]:
    """Return what one metadata file says, by its own names for pictures."""
    if file.endswith(".parquet"):
        from imagesets.files import FileInFolder
        from imagesets.reading.metadata_tables import read_metadata_file

        problem = f"its caption stands in {file}, a table that is not edited here. Write a metadata.jsonl in its place"
        lines = read_metadata_file(FileInFolder(folder, file))
        return {
            line.file_name: WrittenCaption(line.file_name, line.caption, problem=problem)
            for line in lines
            if line.problem is None and line.caption is not None
        }
    slot = Slot(file, "csv" if file.endswith(".csv") else "jsonl")
    form = FORMS[slot.kind]
    return {
        key: WrittenCaption(key, form.text_of(raw), Slot(file, slot.kind, key), raw)
        for key, raw in form.raws(_read_content(folder, slot)).items()
    }


def _beside(folder: Path, name: str, found: Found, extensions: Sequence[str]) -> WrittenCaption:
    """Return what the text file beside a picture says; where there is none, where it would be."""
    files = [file for file in (caption_name(name, extension) for extension in extensions)
             if file in found.others or file in found.odd]  # fmt: skip
    if len(files) > 1:
        return WrittenCaption(name, problem=f"it has two captions, {' and '.join(files)}: remove one of them")
    slot = Slot(files[0] if files else caption_name(name, extensions[0]), "text")
    if not files:
        return WrittenCaption(name, "", slot)
    try:
        return _read_slot(folder, name, slot)
    except EditError as error:
        return WrittenCaption(name, problem=str(error))


def _read_slot(folder: Path, picture: str, slot: Slot) -> WrittenCaption:
    form = FORMS[slot.kind]
    raw = form.raws(_read_content(folder, slot)).get(slot.key)
    if raw is None and slot.key:
        raise EditError(f"{slot.file}: says nothing of {slot.key} any more. {_READ_AGAIN}")
    try:
        return WrittenCaption(picture, form.text_of(raw), slot, raw)
    except EditError as error:
        raise EditError(f"{slot.file}: {error}") from error


def _place(folder: Path, slot: Slot) -> Path:
    """Return the path of a slot's file.

    Raises:
        EditError: a link is on the way to it, or it is no plain file.
    """
    name = PurePosixPath(slot.file)
    if name.is_absolute() or ".." in name.parts or name_problem(slot.file) is not None:
        raise EditError(f"{slot.file!r:.80}: is no file of this folder")
    path = folder.joinpath(*name.parts)
    if os.path.realpath(path.parent) != str(path.parent):
        raise EditError(f"{slot.file}: lies behind a link. Give the folder that it leads to")
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return path
    except OSError as error:
        raise EditError(f"{slot.file}: cannot be read: {error.strerror}") from error
    if stat.S_ISLNK(mode):
        raise EditError(f"{slot.file}: is a link, and links are not written through. Put a copy in its place")
    if not stat.S_ISREG(mode):
        raise EditError(f"{slot.file}: is not a plain file")
    return path


def _read_content(folder: Path, slot: Slot) -> Raw:
    """Return the content of a slot's file, or None where there is none.

    Raises:
        EditError: it must not be read, or cannot be.
    """
    path = _place(folder, slot)
    limit = MAX_CAPTION_BYTES if slot.kind == "text" else _MAX_METADATA_BYTES
    try:
        file = open_plain(path)
        if file is None:
            return None
        with file:
            content = file.read(limit + 1)
    except OSError as error:
        raise EditError(f"{slot.file}: cannot be read: {error.strerror or error}") from error
    if len(content) > limit:
        raise EditError(f"{slot.file}: has more than {limit} bytes, and is not edited here")
    return content


def _require_kept(file: str, before: Mapping[str, bytes], after: Mapping[str, bytes], puts: Sequence[Put]) -> None:
    """Refuse to write a file that would not say just what it is to say.

    Raises:
        EditError: it would not.
    """
    meant = {**before, **{put.slot.key: put.after for put in puts if put.after is not None}}
    gone = {put.slot.key for put in puts if put.after is None}
    if after != {key: raw for key, raw in meant.items() if key not in gone}:
        raise EditError(f"{file}: would not be read as it was meant. Nothing was changed; edit it in a text editor")


def _exchange(folder: Path, slot: Slot, old: Raw, new: Raw) -> None:
    """Write a file, or remove it, if it still holds what was read.

    Raises:
        EditError: it does not, or cannot be written.
    """
    if _read_content(folder, slot) != old:
        raise ConflictError([slot.file], _READ_AGAIN)
    path = _place(folder, slot)
    try:
        if new is None:
            with disk_errors(path):
                path.unlink()
                fsync_path(path.parent)
            return
        mode = None if old is None else stat.S_IMODE(path.stat().st_mode)
        write_bytes(path, new)
        if mode is not None:
            path.chmod(mode)
    except (DiskError, OSError) as error:
        cause = error.__cause__ if isinstance(error, DiskError) else error
        raise EditError(f"{slot.file}: cannot be written: {getattr(cause, 'strerror', None) or cause}") from error


def _put_back(folder: Path, done: Sequence[tuple[Slot, Raw, Raw]], error: Exception) -> None:
    """Put back what was written before something failed, and say what failed.

    Raises:
        EditError: always.
    """
    left = []
    for slot, old, new in reversed(done):
        try:
            _exchange(folder, slot, new, old)
        except (AtelierError, OSError):
            left.append(slot.file)
    if left:
        raise EditError(f"{error}. Already changed, and not put back: {', '.join(left)}") from error
    if isinstance(error, EditError):
        raise error
    raise EditError(f"{error}. Nothing was changed") from error
