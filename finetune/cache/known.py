"""Values of a set of things that is known before the first step: found by key, filled in together, made again."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from accelerate import Accelerator

from finetune.cache.together import fill_together
from finetune.cache.values import Store, Value
from finetune.model.frozen_text import Progress, unseen

ItemT = TypeVar("ItemT")


class KnownValues(ABC, Generic[ItemT]):
    """What frozen models give for a known set of things, in a store.

    Args:
        store: where they are kept.
        wanted: everything that can be asked for, by its key.
    """

    def __init__(self, store: Store, wanted: Mapping[str, ItemT]) -> None:
        self._store = store
        self._wanted = wanted

    @property
    def keys(self) -> Sequence[str]:
        """The keys of everything that can be asked for, each once."""
        return list(self._wanted)

    def missing(self) -> list[ItemT]:
        """Return what has to be encoded."""
        return [item for key, item in self._wanted.items() if key not in self._store]

    def fill(self, progress: Progress, accelerator: Accelerator) -> None:
        """Encode what is missing, every process a part; models are loaded only where something is.

        Args:
            progress: called as encoding goes on.
            accelerator: knows the processes.

        Raises:
            DataError: a picture was changed or removed since it was scanned.
            DivergedError: a result is not finite.
            DiskError: the values cannot be written.
        """
        fill_together(self._store, self.keys, lambda keys: self._encode(keys, progress), accelerator)

    def _value(self, key: str) -> Value:
        """Return a value that was filled in. What was damaged on the disk since then is encoded again."""
        value = self._store.get(key)
        if value is None:
            assert key in self._wanted, "only what is known beforehand is asked for"
            self._encode(self.keys, unseen)  # all that is lost, while the models are there
            self._store.flush()
            value = self._store.get(key)
            assert value is not None, "it was encoded just now"
        return value

    @abstractmethod
    def _encode(self, keys: Sequence[str], progress: Progress) -> None:
        """Encode what is missing of some keys and put it into the store."""
