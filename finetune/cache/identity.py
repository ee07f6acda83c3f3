"""Tell the weights of a model's parts apart by every byte, and hash each file once.

A hash is remembered with its file's size, times and number, as git's index does; a file that changed a moment ago is
hashed but not remembered, since another change in the same instant would not show in its times.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.cache.shards import DamagedShardError, read_header
from finetune.errors import RecipeError
from finetune.model.files import ModelFiles, ModelPart
from finetune.run.durable import write_json

_CHUNK_BYTES = 2**20
_FRESH_SECONDS = 3.0
_WRITERS_OWN = ("transformers_version", "torch_dtype", "dtype")
"""What a configuration says of the program that wrote it, beside the keys that begin with an underscore."""


class PartIdentities:
    """The identity of models' parts.

    Args:
        memory: a JSON file of hashes known so far; None remembers nothing.
    """

    def __init__(self, memory: Path | None) -> None:
        self._memory = memory
        self._known: Mapping[str, Any] = {} if memory is None else _read(memory)

    def of(self, files: ModelFiles, part: ModelPart) -> str:
        """Return a hash of all weights of a part and of the settings it is loaded with.

        Raises:
            RecipeError: a file cannot be read.
        """
        found = files.part_files(part)
        digest = hashlib.sha256(f"{part}:{found.note}".encode())
        for path, prefix in found.weights:
            digest.update(self._weights(path, prefix).encode())
        for path in found.settings:
            digest.update(_settings(path))
        return digest.hexdigest()

    def _weights(self, path: Path, prefix: str) -> str:
        resolved = path.resolve()
        stat = resolved.stat()
        facts = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        name = f"{resolved}|{prefix}"
        known = self._known.get(name)
        if isinstance(known, dict) and known.get("facts") == facts and isinstance(known.get("sha256"), str):
            return str(known["sha256"])
        found = hash_weights(resolved, prefix)
        if self._memory is not None and time.time() - max(stat.st_mtime, stat.st_ctime) > _FRESH_SECONDS:
            self._known = {**_read(self._memory), **self._known, name: {"facts": facts, "sha256": found}}
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._memory, self._known, flush=False)
        return found


def hash_weights(path: Path, prefix: str = "") -> str:
    """Return a hash of the tensors of a safetensors file whose names begin with `prefix`: names, shapes and bytes.

    Raises:
        RecipeError: the file is cut short or is none.
    """
    try:
        header, start = read_header(path)
        own = {name: entry for name, entry in header.items() if name != "__metadata__" and name.startswith(prefix)}
        digest = hashlib.sha256()
        with path.open("rb") as file:
            for name in sorted(own):
                begin, end = own[name]["data_offsets"]
                digest.update(f"{name}:{own[name]['dtype']}:{own[name]['shape']};".encode())
                file.seek(start + begin)
                for left in range(end - begin, 0, -_CHUNK_BYTES):
                    chunk = file.read(min(left, _CHUNK_BYTES))
                    if len(chunk) != min(left, _CHUNK_BYTES):
                        raise DamagedShardError("it is cut short")
                    digest.update(chunk)
    except (DamagedShardError, KeyError, TypeError, ValueError) as error:
        raise RecipeError(f"{path} is not a readable .safetensors file: {error}. Get it again.") from error
    return digest.hexdigest()


def _settings(path: Path) -> bytes:
    """Return a settings file's content; of a JSON object, what makes a difference to the numbers."""
    content = path.read_bytes()
    try:
        settings = json.loads(content)
    except ValueError:
        return content
    if isinstance(settings, dict):
        settings = {key: value for key, value in settings.items() if key[:1] != "_" and key not in _WRITERS_OWN}
    return json.dumps([path.name, settings], sort_keys=True).encode()


def _read(memory: Path) -> Mapping[str, Any]:
    """Return the hashes known so far; a file that is missing or damaged knows none, and costs only time."""
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
