"""The cache's folder: where it lies, what is in it, and its lock. Torch is not needed for it.

OUTPUT_DIR/_cache/
  latents/shard-….safetensors    the VAE's mean and standard deviation, by picture and frame
  text/shard-….safetensors       embeddings, by caption
  users/NAME-….json              what each run asks for: `finetune.cache.uses`
  weights.json                   hashes of weight files: `finetune.cache.identity`
  CACHEDIR.TAG                   tells backup programs to pass by
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from finetune.recipe import Recipe
from finetune.recipe.schema import DiskCache
from finetune.run.durable import disk_errors, write_bytes

STORES = ("latents", "masks", "text")
WEIGHTS_FILE = "weights.json"

_DEFAULT_NAME = "_cache"  # a run's name begins with a letter or a digit, so none can be called so
_LOCK_NAME = ".lock"
_TAG = """\
Signature: 8a477f597d28d172789f06886806bc55
# This folder holds what atelier can compute again. See https://bford.info/cachedir/
"""


def cache_folder(recipe: Recipe) -> Path | None:
    """Return the folder a recipe's cache lies in, or None where it keeps nothing on the disk."""
    if not isinstance(recipe.cache, DiskCache):
        return None
    if recipe.cache.folder is not None:
        return Path(recipe.cache.folder).expanduser()
    return Path(recipe.output_dir).expanduser() / _DEFAULT_NAME


def run_folder(recipe: Recipe) -> Path:
    """Return the folder of a recipe's run, under which its use of the cache is recorded."""
    return Path(recipe.output_dir).expanduser() / recipe.name


@contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Keep pruning and the beginning of a run apart: for the length of the block this process alone does either.

    Makes the folder where there is none. The lock ends with the process, however that ends.

    Raises:
        DiskError: the folder cannot be made or written.
    """
    with disk_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
        if not (cache / "CACHEDIR.TAG").exists():
            write_bytes(cache / "CACHEDIR.TAG", _TAG.encode(), flush=False)
        lock = filelock.FileLock(cache / _LOCK_NAME)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
