"""A folder of shards as one store of values by key. It only ever adds whole files and removes whole files.

Any number of processes, of one run or of several, may use a folder at once: each writes shards of its own under names
nobody else has, and sees what others wrote when it looks again. A value that two of them wrote is there twice for a
while, and either will do, since its key says everything it depends on.
"""

import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from finetune.cache.shards import (
    DamagedShardError,
    ForeignShardError,
    Layout,
    MappedShards,
    RawValue,
    ShardIndex,
    read_index,
    write_shard,
)
from finetune.errors import DiskError
from finetune.run.durable import disk_errors

SHARD_BYTES = 32 * 2**20
"""A shard is written when so much has come together."""

SHARD_VALUES = 4096
"""A shard is written when so many values have come together, however small."""

FLUSH_SECONDS = 30.0
"""A shard is written when its first value has waited so long: a killed build loses no more than that."""

_LEFTOVER_SECONDS = 3600.0
_PATTERN = "shard-*.safetensors"

Warn = Callable[[str], None]


class ShardFolder:
    """Values by key in one folder's shards. What is damaged is warned of, removed, and then simply not there.

    Args:
        path: the folder; made when something is written.
        warn: told in words what was damaged.
    """

    def __init__(self, path: Path, warn: Warn) -> None:
        self.path = path
        self._warn = warn
        self._shards: dict[Path, ShardIndex] = {}
        self._shard_of: dict[str, Path] = {}
        self._waiting: dict[str, RawValue] = {}
        self._waiting_bytes = 0
        self._waiting_since = 0.0
        self._layouts: dict[Layout, Layout] = {}
        self._mapped = MappedShards()
        self.refresh()

    def __contains__(self, key: str) -> bool:
        """Whether there is a value; whether it is whole is seen when it is read."""
        return key in self._shard_of or key in self._waiting

    def keys(self) -> Collection[str]:
        """Return the keys of all values that are written."""
        return self._shard_of.keys()

    def num_bytes(self) -> int:
        """Return the size of all shards together."""
        return sum(index.num_bytes for index in self._shards.values())

    def size_of(self, key: str) -> int:
        """Return the bytes one written value takes."""
        return self._shards[self._shard_of[key]].places[key].num_bytes

    def shards(self) -> Mapping[Path, ShardIndex]:
        """Return what each shard holds."""
        return self._shards

    def refresh(self) -> None:
        """Look for shards that others have written or removed; remove damaged ones."""
        there = set(self.path.glob(_PATTERN)) if self.path.is_dir() else set()
        for gone in self._shards.keys() - there:
            self._forget(gone)
        for path in sorted(there - self._shards.keys()):
            try:
                index = read_index(path, self._layouts)
            except FileNotFoundError:
                continue
            except ForeignShardError:
                continue
            except DamagedShardError as error:
                self._warn(f"cache: {path} is damaged: {error}. It is removed, and what it held is encoded again")
                self._remove(path)
                continue
            self._take(path, index)

    def get(self, key: str) -> RawValue | None:
        """Return a value that has been checked, or None where there is none, or no whole one."""
        while True:
            if key in self._waiting:
                return self._waiting[key]
            shard = self._shard_of.get(key)
            if shard is None:
                return None
            index = self._shards[shard]
            try:
                return self._mapped.read(shard, index.num_bytes, index.places[key])
            except FileNotFoundError:
                self._forget(shard)
                self.refresh()  # another process has packed its values anew, or removed them
            except DamagedShardError as error:
                self._salvage(shard, str(error))

    def put(self, key: str, value: RawValue) -> None:
        """Take a value in; it is on the disk after the next `flush`, which comes by itself now and then.

        Raises:
            DiskError: the disk is full or cannot be written.
        """
        if key in self:
            return
        if not self._waiting:
            self._waiting_since = time.monotonic()
        self._waiting[key] = value
        self._waiting_bytes += len(value.data)
        waited = time.monotonic() - self._waiting_since
        if self._waiting_bytes >= SHARD_BYTES or len(self._waiting) >= SHARD_VALUES or waited >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits as a shard.

        Raises:
            DiskError: the disk is full or cannot be written.
        """
        if self._waiting:
            self._take(*self._write(self._waiting))
            self._waiting, self._waiting_bytes = {}, 0

    def close(self) -> None:
        """Close the files; the next read opens what it needs."""
        self._mapped.close()

    def repack(self, path: Path, kept: Collection[str]) -> None:
        """Replace a shard by one that holds only `kept` of its values, or by none. Damaged values are left out.

        Raises:
            DiskError: the disk is full or cannot be written; the shard is then as it was.
        """
        values = dict(self._whole_values(path, kept))
        if values:
            self._take(*self._write(values))
        self._remove(path)

    def remove_leftovers(self) -> int:
        """Remove what killed writers left half written, and return its bytes. What is being written is younger."""
        removed = 0
        for path in self.path.glob(".shard-*.tmp") if self.path.is_dir() else ():
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            if time.time() - found.st_mtime > _LEFTOVER_SECONDS:
                path.unlink(missing_ok=True)
                removed += found.st_size
        return removed

    def _write(self, values: Mapping[str, RawValue]) -> tuple[Path, ShardIndex]:
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / f"shard-{uuid.uuid4().hex}.safetensors"
        try:
            return path, write_shard(path, values)
        except DiskError as error:
            raise DiskError(
                f"{error} The cache may lie on another disk, or in memory alone: cache.folder=…, cache.kind=memory"
            ) from error

    def _take(self, path: Path, index: ShardIndex) -> None:
        self._shards[path] = index
        self._shard_of.update(dict.fromkeys(index.places, path))

    def _forget(self, path: Path) -> None:
        """Let go of a shard; values that lie in another one, too, are found there."""
        self._mapped.forget(path)
        index = self._shards.pop(path, None)
        if index is None:
            return
        lost = {key for key in index.places if self._shard_of[key] == path}
        for key in lost:
            del self._shard_of[key]
        for other, own in self._shards.items():
            self._shard_of.update(dict.fromkeys(lost & own.places.keys(), other))

    def _remove(self, path: Path) -> None:
        self._forget(path)
        with disk_errors(path):
            path.unlink(missing_ok=True)

    def _whole_values(self, path: Path, kept: Collection[str]) -> Iterator[tuple[str, RawValue]]:
        index = self._shards[path]
        for key in index.places.keys() & set(kept):
            try:
                yield key, self._mapped.read(path, index.num_bytes, index.places[key])
            except (DamagedShardError, FileNotFoundError):
                continue

    def _salvage(self, path: Path, reason: str) -> None:
        """Keep what is whole of a damaged shard in a new one."""
        held = self._shards[path].places.keys()
        self.repack(path, held)
        lost = len(held - self._shard_of.keys())
        self._warn(f"cache: {path} is damaged: {reason}. {lost} of its {len(held)} values are encoded again")
