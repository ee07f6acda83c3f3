"""metadata.csv: a table with the columns of metadata.jsonl, judged row by row as its lines are.

Files of every kind are handed to their readers here; `parquet` reads the one that takes a process of its own.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

from imagesets.files import FileInFolder
from imagesets.reading.metadata import MetadataLine, judge_line, name_once, parse_metadata
from imagesets.reading.parquet import parquet_as_lines

COLUMNS = ("file_name", "text", "aesthetic_score")
"""Others are passed over."""

MAX_WRONG_ROWS = 1000
"""A table of nothing but wrong rows is told of by the first ones: each is kept in memory with its reason."""

_CSV_EXAMPLE = ": the first line gives the columns, as file_name,text, and each line after it their values"


def read_metadata_file(file: FileInFolder, *, keep_lines: bool = False) -> list[MetadataLine]:
    """Read a metadata file of any kind; a wrong line or row is returned with its problem.

    Args:
        file: whose name ends as one of `METADATA_FILES` does.
        keep_lines: whether each line of a text is a caption of its own; otherwise all are put on one.

    Raises:
        PictureError: the file cannot be read at all.
        DecoderError: no process that reads Parquet can be started.
    """
    if file.name.endswith(".parquet"):
        lines = parse_metadata(parquet_as_lines(file), keep_lines=keep_lines, example="")
        return list(_few_wrong(lines))
    content = file()
    if file.name.endswith(".csv"):
        return parse_csv(content, keep_lines=keep_lines)
    return parse_metadata(content, keep_lines=keep_lines)


def parse_csv(content: bytes, *, keep_lines: bool = False) -> list[MetadataLine]:
    """Read a table of commas: UTF-8, columns in the first line. A row has the number of the line it begins in.

    An empty cell is as if it were not there. Each line of a text is a caption of its own where lines are kept.
    """
    # Bytes that are no UTF-8 become half characters, which are told where they stand.
    text = content.decode("utf-8-sig", errors="surrogateescape")
    return list(_few_wrong(name_once(_csv_lines(text, keep_lines=keep_lines))))


def _few_wrong(lines: Iterable[MetadataLine]) -> Iterator[MetadataLine]:
    num_wrong = 0
    for line in lines:
        yield line
        num_wrong += line.problem is not None
        if num_wrong == MAX_WRONG_ROWS:
            yield MetadataLine(line.number + 1, problem=f"is not read, after {num_wrong} wrong ones: mend those first")
            return


def _csv_lines(text: str, *, keep_lines: bool) -> Iterator[MetadataLine]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    while True:
        number = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            # Where a quote is open, nobody knows where the next row begins.
            yield MetadataLine(number, problem=f"is not CSV: {error}; the lines after it are not read")
            return
        if not row:
            continue
        if any(_is_broken(cell) for cell in row):
            yield MetadataLine(number, problem="is not UTF-8: save the file as UTF-8 (in Excel: 'CSV UTF-8')")
            if header is None:
                return
        elif header is None:
            header = [cell.strip() for cell in row]
            problem = columns_problem(header)
            if problem is not None:
                yield MetadataLine(number, problem=problem + _CSV_EXAMPLE)
                return  # without its columns no row can be read
        elif len(row) != len(header):
            yield MetadataLine(
                number,
                problem=f"has {len(row)} values for {len(header)} columns ({', '.join(header):.80}): put a text that "
                'holds commas in "double quotes"',
            )
        else:
            entry = {column: cell for column, cell in zip(header, row, strict=True) if cell}
            yield judge_line(number, entry | _score(entry), keep_lines=keep_lines)


def _is_broken(cell: str) -> bool:
    return not cell.isascii() and any("\ud800" <= character <= "\udfff" for character in cell)


def columns_problem(columns: Sequence[str]) -> str | None:
    """Say why a table's columns cannot be used."""
    twice = [column for column in COLUMNS if columns.count(column) > 1]
    if twice:
        return f'has the column "{twice[0]}" {columns.count(twice[0])} times'
    if "file_name" not in columns:
        return f'has no column "file_name", only {", ".join(map(repr, columns))[:200] or "none"}'
    return None


def _score(entry: Mapping[str, str]) -> dict[str, object]:
    """Return a cell's score as a number; what is none stays as it is, and is refused with the others."""
    text = entry.get("aesthetic_score", "").strip()
    try:
        return {"aesthetic_score": float(text)} if text.replace("_", "x") == text and text else {}
    except ValueError:
        return {}
