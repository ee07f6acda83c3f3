"""Captions of a folder in one JSON file, as kohya's tools write it: pictures' names with `caption` and `tags`.

A name is a path, absolute or below the folder, with or without the picture's ending. What else such a file holds
(sizes that latents were made at) is passed over.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from imagesets.captions import clean_caption
from imagesets.errors import CaptionError, SourceError
from imagesets.reading.metadata import MetadataLine, normal_name, path_problem

EXAMPLE = '{"a.png": {"caption": "…", "tags": "…"}}'


@dataclass
class JsonCaptions:
    """What such a file says.

    Attributes:
        lines: of each picture by its name below the folder.
        problems: what cannot be used, with the reason, by its name in the file.
    """

    lines: dict[str, MetadataLine] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def parse_json_captions(content: bytes, root: Path, pictures: Sequence[str], *, keep_lines: bool) -> JsonCaptions:
    """Read the file and find the picture each name means.

    Args:
        content: of the file.
        root: the folder of the pictures, absolute.
        pictures: their names below the folder.
        keep_lines: whether each line of a caption is one of its own; tags are then put behind each.

    Raises:
        SourceError: the file is no such one as a whole; the message reads well after its name.
    """
    entries = _read(content)
    names = _Names(root, pictures)
    read, first = JsonCaptions(), dict[str, str]()
    for key, values in entries:
        picture, problem = names.meant_by(key)
        if problem is None and picture in first:
            problem = f"means {picture!r} again, after {first[picture]!r}: remove one"
        caption = None
        if problem is None:
            first[picture] = key
            caption, problem = _caption(values, keep_lines=keep_lines)
        if problem is None:
            read.lines[picture] = MetadataLine(0, picture, caption)
        else:
            read.problems[key] = problem
    return read


def _read(content: bytes) -> list[tuple[str, Any]]:
    """Return what the file holds in its order; what it has twice stands there twice."""
    depth_first: list[list[tuple[str, Any]]] = []

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        depth_first.append(pairs)
        return dict(pairs)

    try:
        whole = json.loads(content.decode("utf-8-sig"), object_pairs_hook=keep)
    except UnicodeDecodeError as error:
        raise SourceError(f"is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"is not JSON: {error}") from error
    if not isinstance(whole, dict):
        raise SourceError(f"holds {type(whole).__name__}, not pictures by their names, as {EXAMPLE}")
    return depth_first[-1]  # the outermost ends last


class _Names:
    """Finds pictures by the names that such files give them."""

    def __init__(self, root: Path, pictures: Sequence[str]) -> None:
        self._roots = (root, root.resolve())
        self._pictures = set(pictures)
        self._by_stem: dict[str, list[str]] = {}
        for name in pictures:
            self._by_stem.setdefault(_stem(name), []).append(name)

    def meant_by(self, key: str) -> tuple[str, str | None]:
        """Return the picture, and a problem where there is none or more than one."""
        name = self._below(key)
        problem = path_problem(name)
        if problem is not None:
            return "", f"is {problem}" if problem.startswith("an ") else f"is a path {problem}"
        name = normal_name(name)
        found = [name] if name in self._pictures else self._by_stem.get(name, [])
        if len(found) > 1:
            return "", f"may mean {' or '.join(map(repr, sorted(found)))}: give the name with its ending"
        return (found[0], None) if found else ("", "names no picture that is read from the folder")

    def _below(self, key: str) -> str:
        """Return an absolute path as one below the folder, where it lies there; backslashes part folders."""
        if key in self._pictures:
            return key
        name = key.replace("\\", "/")
        for root in self._roots:
            if name.startswith(f"{root.as_posix().rstrip('/')}/"):
                return name[len(root.as_posix().rstrip("/")) + 1 :]
        return name


def _stem(name: str) -> str:
    return name[: len(name) - len(PurePosixPath(name).suffix)]


def _caption(values: object, *, keep_lines: bool) -> tuple[str | None, str | None]:
    """Return a picture's caption with its tags behind it, and a problem where it has none of the right form."""
    if not isinstance(values, Mapping):
        return None, f"has {values!r:.40}, needs {EXAMPLE[10:-1]}"
    caption, tags = values.get("caption"), values.get("tags")
    if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
        tags = ", ".join(tags)
    for name, text in (("caption", caption), ("tags", tags)):
        if text is not None and not isinstance(text, str):
            return None, f'gives "{name}" as {text!r:.40}, which is no text'
    try:
        words = None if caption is None else clean_caption(caption, keep_lines=keep_lines)
        more = "" if tags is None else clean_caption(tags)
    except CaptionError as error:
        return None, str(error)
    if words is None or not words:
        return (more if tags is not None else words), None
    return "\n".join(f"{line}, {more}" for line in words.split("\n")) if more else words, None
