"""Removing from a cache what no run that is known asks for. Torch is not needed for it.

Everything that ever used the cache has left a record of what it asks for. A value is removed when no record names it:
an old caption's, an old cut's, another model's. What a record names stays, also if its run is finished or gone, until
the record is forgotten by name.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.cache.folder import ShardFolder, Warn
from finetune.cache.place import STORES, locked
from finetune.cache.uses import Use, forget_use, read_uses
from finetune.errors import RecipeError


@dataclass(frozen=True)
class UseSize:
    """What one run's values take.

    Attributes:
        use: the run.
        num_values: how many of the values it asks for are there.
        num_bytes: what they take; a value that several runs share counts for each.
        forgotten: whether it no longer counts.
    """

    use: Use
    num_values: int
    num_bytes: int
    forgotten: bool


@dataclass(frozen=True)
class Pruning:
    """What pruning removes, or with `dry_run` would remove.

    Attributes:
        folder: the cache.
        dry_run: whether nothing was touched.
        users: everything that has used the cache.
        num_values: how many values are there, by store.
        unused_values: how many of them nobody asks for, by store.
        unused_bytes: what those take.
        num_bytes: what all shards took before.
        freed_bytes: how much smaller the shards are now; 0 with `dry_run`.
    """

    folder: Path
    dry_run: bool
    users: Sequence[UseSize]
    num_values: dict[str, int]
    unused_values: dict[str, int]
    unused_bytes: int
    num_bytes: int
    freed_bytes: int


def prune(folder: Path, forget: Collection[str], *, dry_run: bool, warn: Warn) -> Pruning:
    """Remove the values of a cache that no run asks for.

    Args:
        folder: the cache.
        forget: names of runs whose records count no longer.
        dry_run: touch nothing.
        warn: told in words what is found damaged.

    Raises:
        RecipeError: there is no cache, nothing is known of its users, or a name to forget is none of theirs.
        AtelierError: a record cannot be read.
        DiskError: the disk cannot be written.
    """
    if not any((folder / name).is_dir() for name in STORES):
        raise RecipeError(f"{folder} holds no cache. Give its recipe, or its folder: --folder FOLDER")
    with locked(folder):
        uses = read_uses(folder)
        _require_known(folder, uses, forget)
        stores = {name: ShardFolder(folder / name, warn) for name in STORES}
        kept = {name: _asked_for(uses, name, forget) for name in STORES}
        unused = {name: set(store.keys()) - kept[name] for name, store in stores.items()}
        before = sum(store.num_bytes() for store in stores.values())
        found = Pruning(
            folder=folder,
            dry_run=dry_run,
            users=[_size(use, stores, forgotten=use.name in forget) for use in uses],
            num_values={name: len(store.keys()) for name, store in stores.items()},
            unused_values={name: len(keys) for name, keys in unused.items()},
            unused_bytes=sum(store.size_of(key) for name, store in stores.items() for key in unused[name]),
            num_bytes=before,
            freed_bytes=0,
        )
        if dry_run:
            return found
        leftovers = sum(_clear(store, kept[name]) for name, store in stores.items())
        for use in uses:
            if use.name in forget:
                forget_use(folder, use)
        after = sum(store.num_bytes() for store in stores.values())
    return Pruning(**{**vars(found), "freed_bytes": before - after + leftovers})


def _require_known(folder: Path, uses: Sequence[Use], forget: Collection[str]) -> None:
    known = sorted({use.name for use in uses})
    if not known:
        raise RecipeError(
            f"{folder}: no recipe is known to use this cache, so all of it would go. Name the recipes whose values "
            "stay: atelier data cache --prune RECIPE …, or remove the folder yourself"
        )
    wrong = sorted(set(forget) - set(known))
    if wrong:
        raise RecipeError(f"--forget: {', '.join(wrong)} never used {folder}. Known: {', '.join(known)}")


def _asked_for(uses: Sequence[Use], store: str, forget: Collection[str]) -> set[str]:
    return {key for use in uses if use.name not in forget for key in use.keys.get(store, ())}


def _size(use: Use, stores: dict[str, ShardFolder], *, forgotten: bool) -> UseSize:
    sizes = [store.size_of(key) for name, store in stores.items() for key in use.keys.get(name, ()) if key in store]
    return UseSize(use, len(sizes), sum(sizes), forgotten)


def _clear(store: ShardFolder, kept: Collection[str]) -> int:
    """Pack every shard that holds something unused anew, without it; return the bytes of what killed writers left."""
    for path, index in list(store.shards().items()):
        if not index.places.keys() <= set(kept):
            store.repack(path, kept)
    return store.remove_leftovers()
