"""What the process does that reads a Parquet table of captions: it gives the rows as lines of metadata.jsonl.

pyarrow ends its process over a damaged file, so it is imported here alone. What the rows say is judged by the parent,
`parquet`, which trusts nothing that comes from here.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from imagesets.errors import PictureError
from imagesets.files import read_file
from imagesets.opening.decoding_child import Reply, serve
from imagesets.reading.metadata_tables import COLUMNS, columns_problem

MAX_ROWS = 5_000_000
MAX_FILE_BYTES = 256 * 2**20
MAX_ANSWER_BYTES = 256 * 2**20

_ROWS_AT_ONCE = 1024
_FOOTER_LIMITS = {"thrift_string_size_limit": 16 * 2**20, "thrift_container_size_limit": 1_000_000}


def main(memory_bytes: int, cpu_seconds: float) -> None:
    """Answer requests from standard input on standard output, as a decoding process does."""
    # The system's own allocator keeps to a limit of address space; the other reserves much more than it uses.
    pa.set_memory_pool(pa.system_memory_pool())
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    serve(answer, memory_bytes, cpu_seconds)


def answer(request: Mapping[str, Any], _: bytes) -> Reply:
    """Return a table's rows as lines of JSON; a table that cannot be read is an answer, too."""
    try:
        return {"done": True}, _answer(read_file(Path(request["path"]), Path(request["root"]), MAX_FILE_BYTES))
    except PictureError as error:
        return {"refused": str(error)}, b""
    except MemoryError:  # Arrow's own is one of these
        return {"out_of_memory": True}, b""


def _answer(content: bytes) -> bytes:
    try:
        return rows_as_lines(content)
    except (PictureError, MemoryError):
        raise
    # A damaged file makes the library stumble in any way.
    except Exception as error:
        said = str(error).strip().partition("\n")[0][:200].rstrip(".") or type(error).__name__
        raise PictureError(f"it cannot be read as Parquet: {said}. Write it again") from error


def rows_as_lines(content: bytes) -> bytes:
    """Return the rows of a Parquet file as lines of JSON with those of `COLUMNS` that it has.

    Raises:
        PictureError: its columns, or its size, do not allow that.
    """
    table = parquet.ParquetFile(pa.BufferReader(content), **_FOOTER_LIMITS)
    schema = table.schema_arrow
    problem = columns_problem(schema.names) or _types_problem(schema)
    if problem is not None:
        raise PictureError(f"it {problem}")
    if table.metadata.num_rows > MAX_ROWS:
        raise PictureError(f"it has {table.metadata.num_rows} rows; at most {MAX_ROWS} are read: split it up")
    names = [name for name in COLUMNS if name in schema.names]
    lines = bytearray()
    for batch in table.iter_batches(_ROWS_AT_ONCE, columns=names, use_threads=False):
        columns = [_values(batch.column(name)) for name in names]
        for row in range(batch.num_rows):
            lines += json.dumps({name: column[row] for name, column in zip(names, columns, strict=True)}).encode()
            lines += b"\n"
            if len(lines) > MAX_ANSWER_BYTES:
                raise PictureError(
                    f"its names and captions fill more than {MAX_ANSWER_BYTES // 2**20} MiB: split it up"
                )
    return bytes(lines)


def _types_problem(schema: Any) -> str | None:
    """Say which column holds what it must not."""
    for name in set(COLUMNS).intersection(schema.names):
        kind = schema.field(name).type
        if name == "aesthetic_score":
            fits, wanted = pa.types.is_floating(kind) or pa.types.is_integer(kind), "numbers"
        else:
            item = kind.value_type if name == "text" and _is_list(kind) else kind
            item = item.value_type if pa.types.is_dictionary(item) else item
            fits, wanted = pa.types.is_string(item) or pa.types.is_large_string(item), "text"
        if not fits and not pa.types.is_null(kind):
            return f'has a column "{name}" of {kind!s:.80}: needs one of {wanted}'
    return None


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _values(column: Any) -> Sequence[Any]:
    """Return a column's values. Bytes that are no UTF-8 become half characters, which are told row by row."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return [_text(value) for value in column.cast(_bytes_of(kind)).to_pylist()]
    if _is_list(kind):
        texts = iter(_values(column.flatten()))
        lengths = column.value_lengths().to_pylist()
        return [None if length is None else list(islice(texts, length)) for length in lengths]
    return list(column.to_pylist())


def _bytes_of(kind: Any) -> Any:
    return pa.large_binary() if pa.types.is_large_string(kind) else pa.binary()


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "surrogateescape")
