"""metadata.parquet: a table with the columns of metadata.jsonl, read by a process of its own.

The library that reads Parquet ends its process over one flipped byte, and a small file can fill the memory; so a child
of bounded memory and time reads it, and what it says is judged here like the lines of a stranger's file.
"""

import threading
import time

from imagesets.errors import PictureError
from imagesets.files import FileInFolder, shown_name
from imagesets.opening.decoding_process import DecodingFailure, DecodingLimits, DecodingProcess, Request

CHILD_MODULE = "imagesets.reading.parquet_child"
MAX_ANSWER_BYTES = 256 * 2**20
LIMITS = DecodingLimits(
    memory_bytes=1536 * 2**20, cpu_seconds=120.0, wall_seconds=600.0, max_pixels=MAX_ANSWER_BYTES // 3 + 2**16
)

_WATCH_SECONDS = 0.1
_MAX_REASON = 1000


def parquet_as_lines(file: FileInFolder, limits: DecodingLimits = LIMITS, module: str = CHILD_MODULE) -> bytes:
    """Return the rows of a Parquet file as lines of metadata.jsonl, the first row in line 1.

    Args:
        file: the table.
        limits: what reading it may cost.
        module: whose `main` the process runs.

    Raises:
        PictureError: it cannot be read; the message reads well after its name.
        DecoderError: no process can be started.
    """
    process = DecodingProcess(limits, module)
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(process, done), name="parquet watch", daemon=True)
    watch.start()
    try:
        request = Request({"path": str(file.root.absolute() / file.name), "root": str(file.root.absolute())})
        (answer,) = process.answers([request])
    except DecodingFailure as failure:
        raise PictureError(_reason(failure, limits)) from failure
    finally:
        done.set()
        watch.join()
        process.kill()
    if isinstance(answer, PictureError):
        raise answer
    message, lines = answer
    if "refused" in message:
        raise PictureError(shown_name(str(message["refused"])[:_MAX_REASON]))
    return lines


def _watch(process: DecodingProcess, done: threading.Event) -> None:
    """End the process where it takes too long, or more memory than the system itself sees to."""
    while not done.wait(_WATCH_SECONDS):
        process.check(time.monotonic())


def _reason(failure: DecodingFailure, limits: DecodingLimits) -> str:
    mend = "split it up, or write it again"
    if failure.kind == "time":
        return f"reading it takes more than {limits.cpu_seconds:g} seconds of work: {mend}"
    if failure.kind == "memory":
        return f"reading it takes more than {limits.memory_bytes // 2**20} MiB of memory: {mend}"
    return "reading it ends the process that does so: it is damaged, or made to do harm. Write it again, or remove it"
