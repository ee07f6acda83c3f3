"""Imports Gradio in about half the time, and without its writing into the folder it is installed in.

As each of its components is imported, Gradio parses the component's source and writes a stub for editors (`.pyi`)
beside it: about a second of two, on every start, for what no running page needs. It leaves that out where a component
has no source file; so inside the block, and to that one function alone, none has. Should Gradio ask otherwise one day,
only the time is lost.
"""

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_WRITER = "gradio.component_meta"


@contextmanager
def without_stubs() -> Iterator[None]:
    """Keep Gradio from writing stubs while it is imported inside the block."""
    module: Any = inspect
    getfile = module.getfile

    def getfile_for_others(of: Any) -> str:
        if sys._getframe(1).f_globals.get("__name__") == _WRITER:
            raise OSError("no stub is wanted")
        answer: str = getfile(of)
        return answer

    module.getfile = getfile_for_others
    try:
        yield
    finally:
        module.getfile = getfile
