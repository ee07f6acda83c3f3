"""metadata.jsonl, as Hugging Face's imagefolder has it: `file_name`, `text` and `aesthetic_score` on each line.

What a line may say is judged here for tables, too (`metadata_tables` reads those).
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from imagesets.captions import caption_of
from imagesets.errors import CaptionError

METADATA_FILE = "metadata.jsonl"
METADATA_FILES = ("metadata.csv", METADATA_FILE, "metadata.parquet")
"""Of which a folder may have one."""

JSON_EXAMPLE = ', as {"file_name": "a.png", "text": "…"}'


@dataclass(frozen=True)
class MetadataLine:
    """What one line says.

    Attributes:
        number: of the line in its file, from 1.
        file_name: the picture's path below the folder of the metadata file, normalised; '' where there is none.
        caption: clean; where each line of it is a caption of its own, they are apart by a line feed. None where the
            line has no `text` or null.
        aesthetic_score: from 0 to 10; None where the line has none or null.
        problem: why the line cannot be used, or None.
    """

    number: int
    file_name: str = ""
    caption: str | None = None
    aesthetic_score: float | None = None
    problem: str | None = None


def parse_metadata(content: bytes, *, keep_lines: bool = False, example: str = JSON_EXAMPLE) -> list[MetadataLine]:
    """Read every line; a wrong one is returned with its problem, so that all are known at once.

    Args:
        content: of the file.
        keep_lines: whether each line of a text is a caption of its own; otherwise all are put on one.
        example: how a name is given in this kind of file, for a message that it is not.
    """
    raws = enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1)
    lines = (_parse_line(number, raw, example, keep_lines=keep_lines) for number, raw in raws if raw.strip())
    return list(name_once(lines))


def name_once(lines: Iterable[MetadataLine]) -> Iterator[MetadataLine]:
    """Yield the lines; one that names a picture again is a problem."""
    first: dict[str, int] = {}
    for line in lines:
        earlier = first.setdefault(line.file_name, line.number) if line.problem is None else line.number
        again = MetadataLine(line.number, problem=f"names {line.file_name!r} again, after line {earlier}: remove one")
        yield line if earlier == line.number else again


def _parse_line(number: int, raw: bytes, example: str, *, keep_lines: bool) -> MetadataLine:
    try:
        entry = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return MetadataLine(number, problem=f"is not UTF-8 (byte {error.start} of the line): save the file as UTF-8")
    except (ValueError, RecursionError) as error:
        return MetadataLine(number, problem=f"is not JSON: {error}")
    return judge_line(number, entry if isinstance(entry, dict) else {}, example, keep_lines=keep_lines)


def judge_line(number: int, entry: Mapping[str, Any], example: str = "", *, keep_lines: bool = False) -> MetadataLine:
    """Return what the values of a line or row say, or its problem.

    Args:
        number: of the line.
        entry: its values by the names of their columns.
        example: how a name is given in this kind of file, for a message that it is not.
        keep_lines: whether each line of a text is a caption of its own.
    """
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        return MetadataLine(number, problem=f'needs a "file_name"{example}')
    problem = path_problem(name)
    if problem is not None:
        return MetadataLine(number, problem=f"names {name!r}, {problem}")
    try:
        caption = caption_of(entry.get("text"), keep_lines=keep_lines)
    except CaptionError as error:
        return MetadataLine(number, problem=f"names {name!r}, but {error}")
    score = entry.get("aesthetic_score")
    is_number = isinstance(score, int | float) and not isinstance(score, bool)
    if score is not None and not (is_number and 0 <= score <= 10):
        shown = f"{score!r:.40}"
        return MetadataLine(
            number, problem=f'gives {name!r} an "aesthetic_score" of {shown}: needs a number from 0 to 10'
        )
    return MetadataLine(number, normal_name(name), caption, None if score is None else float(score))


def path_problem(name: str) -> str | None:
    """Say why a file name must not be followed: it is absolute, or climbs out of the folder."""
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.drive or windows.root:
        return "an absolute path: only files inside the folder are read"
    depth = 0
    for part in windows.parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return "which lies outside the folder: only files inside it are read"
    return None


def normal_name(name: str) -> str:
    """Take out `.`, `..` and doubled slashes, of a name that stays inside."""
    parts: list[str] = []
    for part in PurePosixPath(name).parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)
