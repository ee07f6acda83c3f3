"""The cache as one run has it open: its stores, and what the models it encodes with are told apart by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.cache.folder import ShardFolder, Warn
from finetune.cache.identity import PartIdentities
from finetune.cache.place import STORES, WEIGHTS_FILE, cache_folder, locked
from finetune.cache.uses import record_use
from finetune.cache.values import DiskStore, MemoryStore, Store
from finetune.model.files import ModelFiles, ModelPart
from finetune.recipe import Recipe


@dataclass(frozen=True)
class OpenCache:
    """Where a run keeps what frozen models give.

    Attributes:
        folder: of the cache, or None where it is in this run's memory.
        stores: by name, `latents` and `text`.
        identities: of the models' parts on the disk; None in memory, where values last no longer than the models.
    """

    folder: Path | None
    stores: Mapping[str, Store]
    identities: PartIdentities | None

    def identity(self, files: ModelFiles, part: ModelPart) -> str:
        """Return what tells a part's weights from all others that may fill this cache."""
        return files.identity() if self.identities is None else self.identities.of(files, part)

    def record(self, run: Path, keys: Mapping[str, Sequence[str]]) -> None:
        """Write down what a run is about to ask for, then look what is there: pruning leaves it from here on.

        Raises:
            DiskError: it cannot be written.
        """
        if self.folder is None:
            return
        with locked(self.folder):
            record_use(self.folder, run, keys)
            for store in self.stores.values():
                assert isinstance(store, DiskStore), "a folder holds shards"
                store.folder.remove_leftovers()
                store.folder.refresh()


def open_cache(recipe: Recipe, warn: Warn) -> OpenCache:
    """Open a recipe's cache. Nothing is written yet.

    Args:
        recipe: whose `cache` section says where it is.
        warn: told in words what is found damaged, now or later.
    """
    folder = cache_folder(recipe)
    if folder is None:
        return OpenCache(None, {name: MemoryStore() for name in STORES}, None)
    stores = {name: DiskStore(ShardFolder(folder / name, warn)) for name in STORES}
    return OpenCache(folder, stores, PartIdentities(folder / WEIGHTS_FILE))
