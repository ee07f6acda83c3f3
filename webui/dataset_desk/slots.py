r"""Where a caption is written, and how: in a text file, in a line of metadata.jsonl, in a cell of metadata.csv.

A `Slot` names the place; what stands there, byte for byte, is its *raw*: a whole text file, a JSON text with its
quotes, a cell. Only the raw is exchanged, everything around it stays byte for byte. Nothing here reads or writes files.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from imagesets.captions import decode_caption
from imagesets.errors import CaptionError
from imagesets.reading.metadata import parse_metadata
from imagesets.reading.metadata_tables import parse_csv
from webui.dataset_desk.errors import EditError

Raw = bytes | None
"""None where there is nothing: no such file."""

Kind = Literal["text", "jsonl", "csv"]

_BOM = b"\xef\xbb\xbf"
_END = re.compile(r"\r\n|\r|\n")
_SPACE = re.compile(r"[ \t\r\n]*")
_NEEDS_QUOTES = re.compile(r'[",\r\n]|^\s|\s$')


@dataclass(frozen=True, order=True)
class Slot:
    """A place where a caption is written.

    Attributes:
        file: its path below the folder of pictures, with forward slashes.
        kind: how it is written there.
        key: what the file calls the picture, normalised; '' where the whole file is one caption.
    """

    file: str
    kind: Kind
    key: str = ""


class Form(Protocol):
    """A way of writing captions in a file."""

    def raws(self, content: Raw) -> dict[str, bytes]:
        """Return what stands in a file, by keys; only captions that are read from it."""
        ...

    def put(self, content: Raw, new: Mapping[str, Raw]) -> Raw:
        """Return the file's content with other raws in the places of some of its own."""
        ...

    def text_of(self, raw: Raw) -> str:
        r"""Return a raw as text whose lines end in `\n`, without line ends at its end.

        Raises:
            EditError: it is no text.
        """
        ...

    def raw_of(self, text: str, old: Raw) -> Raw:
        """Return a text as it is written in the place of `old`, in that one's manner.

        Raises:
            EditError: it cannot be written there.
        """
        ...


class TextForm:
    """A file that holds one caption."""

    def raws(self, content: Raw) -> dict[str, bytes]:
        """Return the whole file, under the key ''."""
        return {} if content is None else {"": content}

    def put(self, content: Raw, new: Mapping[str, Raw]) -> Raw:
        """Return the new content."""
        return new.get("", content)

    def text_of(self, raw: Raw) -> str:
        """Return the text; a file that is not there says nothing."""
        return "" if raw is None else "\n".join(_END.split(_body(raw)[0]))

    def raw_of(self, text: str, old: Raw) -> Raw:
        """Keep a byte order mark, the kinds of line ends, and what the last line ends with; no file where both lack."""
        lines = _END.split(text.rstrip("\r\n"))
        if old is None:
            return ("\n".join(lines) + "\n").encode() if lines != [""] else None
        if "\n".join(lines) == self.text_of(old):
            return old
        body, tail = _body(old)
        ends = _END.findall(body)
        usual = Counter(ends or _END.findall(tail) or ["\n"]).most_common(1)[0][0]
        between = [*ends, *[usual] * len(lines)][: len(lines) - 1]
        joined = "".join(line + end for line, end in zip(lines, [*between, tail], strict=True))
        return (_BOM if old.startswith(_BOM) else b"") + joined.encode()


class JsonLinesForm:
    """metadata.jsonl: the value of `text` of a line."""

    def raws(self, content: Raw) -> dict[str, bytes]:
        """Return the values of `text`, with their quotes."""
        content = content or b""
        begins = _begins_of_lines(content)
        found = {}
        for line in parse_metadata(content):
            if line.problem is None and line.caption is not None:
                begin, end = begins[line.number - 1]
                first, behind = _json_text(content[begin:end])
                found[line.file_name] = content[begin + first : begin + behind]
        return found

    def put(self, content: Raw, new: Mapping[str, Raw]) -> Raw:
        """Exchange values of `text`."""
        content = content or b""
        begins = _begins_of_lines(content)
        spans = {}
        for line in parse_metadata(content):
            if line.problem is None and line.file_name in new:
                begin, end = begins[line.number - 1]
                first, behind = _json_text(content[begin:end])
                spans[line.file_name] = (begin + first, begin + behind)
        return _exchanged(content, spans, new)

    def text_of(self, raw: Raw) -> str:
        """Return the value."""
        return "" if raw is None else _one_kind_of_ends(str(json.loads(raw)))

    def raw_of(self, text: str, old: Raw) -> Raw:
        r"""Write it with `\u` where the old one has such signs, else as it is."""
        assert old is not None, "a line that says nothing has no slot"
        text = text.rstrip("\r\n")
        return old if text == self.text_of(old) else json.dumps(text, ensure_ascii=b"\\u" in old).encode()


class CsvForm:
    """metadata.csv: the cell of a row in the column `text`."""

    def raws(self, content: Raw) -> dict[str, bytes]:
        """Return the cells, with their quotes where they have some."""
        content = content or b""
        return {key: content[begin:end] for key, (begin, end) in self._spans(content).items()}

    def put(self, content: Raw, new: Mapping[str, Raw]) -> Raw:
        """Exchange cells."""
        content = content or b""
        return _exchanged(content, self._spans(content), new)

    def text_of(self, raw: Raw) -> str:
        """Return what the cell says."""
        return "" if raw is None else _one_kind_of_ends(_unquoted(raw.decode()))

    def raw_of(self, text: str, old: Raw) -> Raw:
        """Write it in quotes where the old one has some, or it needs them."""
        assert old is not None, "an empty cell has no slot"
        text = text.rstrip("\r\n")
        if text == self.text_of(old):
            return old
        if not text.strip():
            raise EditError("a cell of metadata.csv cannot hold an empty caption. Write a word, or take the row out")
        quoted = old.startswith(b'"') or _NEEDS_QUOTES.search(text)
        return ('"' + text.replace('"', '""') + '"' if quoted else text).encode()

    def _spans(self, content: bytes) -> dict[str, tuple[int, int]]:
        """Return where in the file the captions stand that are read from it."""
        wanted = {line.number: line.file_name for line in parse_csv(content) if line.caption and not line.problem}
        start = len(_BOM) if content.startswith(_BOM) else 0
        place, column, spans = start, -1, {}
        for number, row, cells in _csv_rows(content[start:].decode("utf-8", "surrogateescape")):
            width = len(_bytes(row))
            if column < 0 and cells:
                column = [cell.strip() for cell in cells].index("text") if "text" in map(str.strip, cells) else -2
            elif number in wanted and column >= 0:
                begin, end = _cell_spans(row)[column]
                spans[wanted[number]] = (place + len(_bytes(row[:begin])), place + len(_bytes(row[:end])))
            place += width
        return spans


FORMS: Mapping[Kind, Form] = {"text": TextForm(), "jsonl": JsonLinesForm(), "csv": CsvForm()}


def require_writable(text: str, name: str) -> None:
    """Refuse what could not be read as a caption again.

    Raises:
        EditError: it is too long, or no file can store it.
    """
    try:
        decode_caption(text.encode(), name)
    except UnicodeEncodeError as error:
        raise EditError(f"{name}: holds half a character (a lone surrogate). Write the caption again") from error
    except CaptionError as error:
        raise EditError(f"{name}: {error}") from error


def _body(raw: bytes) -> tuple[str, str]:
    """Return a file's text without its byte order mark, and the line ends at its end apart from it."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EditError("is not UTF-8: save it as UTF-8") from error
    body = text.rstrip("\r\n")
    return body, text[len(body) :]


def _one_kind_of_ends(text: str) -> str:
    return "\n".join(_END.split(text)).rstrip("\n")


def _begins_of_lines(content: bytes) -> list[tuple[int, int]]:
    """Return where each line begins and ends, as `parse_metadata` cuts them."""
    place = len(_BOM) if content.startswith(_BOM) else 0
    spans = []
    for line in content[place:].split(b"\n"):
        spans.append((place, place + len(line)))
        place += len(line) + 1
    return spans


def _json_text(line: bytes) -> tuple[int, int]:
    """Return where the value of `text` stands in a line that holds an object with one; of several, the last."""
    text, decoder = line.decode(), json.JSONDecoder()
    place, found = _behind_space(text, text.index("{") + 1), (0, 0)
    while text[place] != "}":
        key, place = decoder.raw_decode(text, place)
        place = _behind_space(text, _behind_space(text, place) + 1)  # the colon
        _, end = decoder.raw_decode(text, place)
        if key == "text":
            found = (place, end)
        place = _behind_space(text, end)
        if text[place] == ",":
            place = _behind_space(text, place + 1)
    return len(text[: found[0]].encode()), len(text[: found[1]].encode())


def _behind_space(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    assert match is not None, "it matches nothing at all, too"
    return match.end()


def _csv_rows(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """Yield the number of the line each row begins in, the row as it is written, and its cells."""
    lines = list(io.StringIO(text, newline=""))
    rows = csv.reader(lines, strict=True)
    begin = 0
    try:
        for cells in rows:
            yield begin + 1, "".join(lines[begin : rows.line_num]), cells
            begin = rows.line_num
    except csv.Error:
        return  # what comes after it is not read, by anybody


def _cell_spans(row: str) -> list[tuple[int, int]]:
    """Return where each cell of a row stands, with its quotes."""
    spans, place = [], 0
    while True:
        begin = place
        if row.startswith('"', place):
            place += 1
            while not row.startswith('"', place) or row.startswith('""', place):
                place += 2 if row.startswith('""', place) else 1
            place += 1
        else:
            while place < len(row) and row[place] not in ",\r\n":
                place += 1
        spans.append((begin, place))
        if not row.startswith(",", place):
            return spans
        place += 1


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if cell.startswith('"') else cell


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _exchanged(content: bytes, spans: Mapping[str, tuple[int, int]], new: Mapping[str, Raw]) -> bytes:
    """Put new bytes in place of spans, from the last to the first so that the places hold."""
    for key in sorted(new, key=lambda key: -spans[key][0]):
        raw = new[key]
        assert raw is not None, "a line is rewritten, not removed"
        begin, end = spans[key]
        content = content[:begin] + raw + content[end:]
    return content
