"""Captions: text files beside pictures, metadata.jsonl as in Hugging Face's imagefolder, and the trigger word."""

import json
from pathlib import Path, PurePosixPath

from imagesets.errors import PictureError, SourceError

METADATA_FILE = "metadata.jsonl"
_MAX_CAPTION_BYTES = 64 * 1024


def read_caption_file(path: Path) -> str:
    """Read a caption; line breaks become spaces. A file that is not there is an empty caption.

    Raises:
        PictureError: it is no UTF-8 text, or too long to be a caption.
    """
    if not path.is_file():
        return ""
    try:
        size = path.stat().st_size
        if size > _MAX_CAPTION_BYTES:
            raise PictureError(f"its caption {path.name} has {size} bytes; at most {_MAX_CAPTION_BYTES} are read")
        return clean_caption(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise PictureError(f"its caption {path.name} is not UTF-8 text: byte {error.start} is wrong") from error
    except OSError as error:
        raise PictureError(f"its caption {path.name} cannot be read: {error.strerror}") from error


def clean_caption(text: str) -> str:
    """Put a caption on one line without spaces around it."""
    return " ".join(text.replace("\x00", " ").split())


def with_trigger(caption: str, trigger: str) -> str:
    """Put the trigger word in front of a caption that does not have it as a word."""
    if not trigger or _has_words(caption, trigger):
        return caption
    return f"{trigger}, {caption}" if caption else trigger


def read_metadata(path: Path) -> dict[str, str]:
    """Read `file_name` and `text` of every line of a metadata.jsonl.

    Returns:
        Captions by file name, as written there.

    Raises:
        SourceError: a line is not such an object, with its number.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")  # JSON may hold U+2028 and its like as they are
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    captions: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, text = _metadata_line(path, number, line)
        if name in captions:
            raise SourceError(f"{path}:{number}: file_name {name!r} stands twice")
        captions[name] = clean_caption(text)
    return captions


def leads_outside(name: str) -> bool:
    """Whether a file name of a metadata file is absolute or climbs out of its folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    has_drive = len(name) > 1 and name[1] == ":"
    return path.is_absolute() or has_drive or ".." in path.parts


def _metadata_line(path: Path, number: int, line: str) -> tuple[str, str]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}:{number}: is not JSON: {error}") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
        raise SourceError(f'{path}:{number}: needs an object with a text "file_name"')
    text = entry.get("text", "")
    if not isinstance(text, str):
        raise SourceError(f'{path}:{number}: "text" of {entry["file_name"]!r} is not a text')
    return entry["file_name"], text


def _has_words(caption: str, words: str) -> bool:
    """Whether `words` stand in the caption, not as a part of a longer word."""
    caption, words = caption.casefold(), words.casefold()
    start = caption.find(words)
    while start >= 0:
        before, after = caption[:start], caption[start + len(words) :]
        if not before[-1:].isalnum() and not after[:1].isalnum():
            return True
        start = caption.find(words, start + 1)
    return False
