"""Who uses a cache: for each run folder, the keys that its recipe asked for when it was last prepared.

A record is written before anything is encoded, so that what an interrupted run has encoded is known to be wanted. It is
what pruning goes by: a value is of no use only when no record names it.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import AtelierError
from finetune.run.durable import disk_errors, write_json

_FOLDER = "users"


@dataclass(frozen=True)
class Use:
    """What one run asked for.

    Attributes:
        name: the recipe's.
        run: its run folder, absolute.
        seconds: when it was prepared, since 1970.
        keys: of each store, what it asked for.
    """

    name: str
    run: str
    seconds: float
    keys: Mapping[str, frozenset[str]]


def record_use(cache: Path, run: Path, keys: Mapping[str, Sequence[str]]) -> None:
    """Write down what a run asks for, in the place of what it asked for before.

    Args:
        cache: the cache's folder.
        run: the run's folder, which need not exist.
        keys: of each store, what it asks for.

    Raises:
        DiskError: it cannot be written.
    """
    path = _path(cache, run)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    content = {name: sorted(own) for name, own in keys.items()}
    write_json(
        path, {"name": run.name, "run": str(run.absolute()), "seconds": time.time(), "keys": content}, flush=False
    )


def read_uses(cache: Path) -> list[Use]:
    """Return all records, the newest first.

    Raises:
        AtelierError: one cannot be read, so that nobody knows what it names.
    """
    uses = [_read(path) for path in sorted((cache / _FOLDER).glob("*.json"))]
    return sorted(uses, key=lambda use: -use.seconds)


def forget_use(cache: Path, use: Use) -> None:
    """Remove a record. Raises DiskError."""
    path = _path(cache, Path(use.run))
    with disk_errors(path):
        path.unlink(missing_ok=True)


def _path(cache: Path, run: Path) -> Path:
    """Return a run's record: its name for people, a hash of its path so that two of one name keep apart."""
    digest = hashlib.sha256(str(run.absolute()).encode("utf-8", "surrogateescape")).hexdigest()
    return cache / _FOLDER / f"{run.name}-{digest[:12]}.json"


def _read(path: Path) -> Use:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        keys = {str(store): frozenset(map(str, own)) for store, own in content["keys"].items()}
        return Use(str(content["name"]), str(content["run"]), float(content["seconds"]), keys)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AtelierError(
            f"{path} cannot be read ({error!r}), so nobody knows what it keeps. Nothing was removed. Remove this file "
            "if its run no longer matters, or prepare it again: atelier data cache RECIPE"
        ) from error
