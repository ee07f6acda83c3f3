"""metadata.jsonl, as Hugging Face's imagefolder has it: `file_name`, `text` and `aesthetic_score` on each line."""

import json
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath

from imagesets.captions import clean_caption
from imagesets.errors import CaptionError

METADATA_FILE = "metadata.jsonl"


@dataclass(frozen=True)
class MetadataLine:
    """What one line says.

    Attributes:
        number: of the line, from 1.
        file_name: the picture's path below the folder of the metadata file, normalised; '' where there is none.
        caption: clean; None where the line has no `text` or null.
        aesthetic_score: from 0 to 10; None where the line has none or null.
        problem: why the line cannot be used, or None.
    """

    number: int
    file_name: str = ""
    caption: str | None = None
    aesthetic_score: float | None = None
    problem: str | None = None


def parse_metadata(content: bytes) -> list[MetadataLine]:
    """Read every line; a wrong one is returned with its problem, so that all are known at once."""
    lines = []
    first: dict[str, int] = {}
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not raw.strip():
            continue
        line = _parse_line(number, raw)
        earlier = first.setdefault(line.file_name, number) if line.problem is None else number
        if earlier != number:
            line = MetadataLine(number, problem=f"names {line.file_name!r} again, after line {earlier}: remove one")
        lines.append(line)
    return lines


def _parse_line(number: int, raw: bytes) -> MetadataLine:
    try:
        entry = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return MetadataLine(number, problem=f"is not UTF-8 (byte {error.start} of the line): save the file as UTF-8")
    except (ValueError, RecursionError) as error:
        return MetadataLine(number, problem=f"is not JSON: {error}")
    name = entry.get("file_name") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not name:
        return MetadataLine(number, problem='needs a "file_name", as {"file_name": "a.png", "text": "…"}')
    problem = _path_problem(name)
    if problem is not None:
        return MetadataLine(number, problem=f"names {name!r}, {problem}")
    text = entry.get("text")
    if text is not None and not isinstance(text, str):
        return MetadataLine(number, problem=f'gives {name!r} a "text" that is no text: {text!r:.40}')
    try:
        caption = None if text is None else clean_caption(text)
    except CaptionError as error:
        return MetadataLine(number, problem=f"names {name!r}, but {error}")
    score = entry.get("aesthetic_score")
    is_number = isinstance(score, int | float) and not isinstance(score, bool)
    if score is not None and not (is_number and 0 <= score <= 10):
        shown = f"{score!r:.40}"
        return MetadataLine(
            number, problem=f'gives {name!r} an "aesthetic_score" of {shown}: needs a number from 0 to 10'
        )
    return MetadataLine(number, _normal(name), caption, None if score is None else float(score))


def _path_problem(name: str) -> str | None:
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


def _normal(name: str) -> str:
    """Take out `.`, `..` and doubled slashes, of a name that stays inside."""
    parts: list[str] = []
    for part in PurePosixPath(name).parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)
