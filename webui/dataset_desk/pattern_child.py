"""Replaces a regular expression in some texts: the whole of a process, which is ended where it takes too long.

Python's engine has no time limit, and an expression such as `(a+)+$` may take longer than anybody waits; so the page
never runs one itself. Started by `edits` alone, as a file: it imports nothing of ours. It reads one JSON object from
stdin and writes one to stdout.
"""

import json
import re
import sys
from contextlib import suppress
from typing import Any

_MAX_BYTES = 1 << 29
_MAX_SECONDS = 10


def main() -> None:
    """Replace, and say what came of it, or what is wrong with the expression."""
    _limit()
    asked = json.load(sys.stdin)
    json.dump(replace(asked), sys.stdout)


def replace(asked: dict[str, Any]) -> dict[str, Any]:
    """Return {"texts"}, or {"problem"} with what is wrong."""
    try:
        pattern = re.compile(asked["find"], re.IGNORECASE if asked["ignore_case"] else 0)
    except (re.error, RecursionError, OverflowError) as error:
        return {"problem": f"is no regular expression: {error}"}
    texts = []
    for text in asked["texts"]:
        try:
            new = pattern.sub(asked["replacement"], text)
        except (re.error, IndexError) as error:
            return {"problem": f"cannot be replaced by {asked['replacement']!r}: {error}"}
        except MemoryError:
            return {"problem": "takes more memory than it may: write it more simply, or replace it by less"}
        if len(new) > asked["max_characters"]:
            return {"problem": f"makes a caption of {len(new)} characters; at most {asked['max_characters']} are kept"}
        texts.append(new)
    return {"texts": texts}


def _limit() -> None:
    """Bound memory and time; Windows has no such limits, there only its time is bounded, by who started it."""
    try:
        import resource
    except ImportError:
        return
    for limit, value in ((resource.RLIMIT_AS, _MAX_BYTES), (resource.RLIMIT_CPU, _MAX_SECONDS)):
        with suppress(ValueError, OSError):  # macOS knows no bound of the memory
            resource.setrlimit(limit, (value, value))


if __name__ == "__main__":
    main()
