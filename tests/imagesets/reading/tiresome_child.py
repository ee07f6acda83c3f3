"""A reader of tables that ends itself, or never ends."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagesets.opening.decoding_child import Reply, serve


def main(memory_bytes: int, cpu_seconds: float) -> None:
    """Answer as a reader of tables does."""
    serve(_answer, memory_bytes, cpu_seconds)


def _answer(request: Mapping[str, Any], _: bytes) -> Reply:
    if Path(request["path"]).read_bytes() == b"abort":
        os.abort()
    while True:
        pass
