"""Where the pictures are drawn: processes of one thread each, and a memory of what has been drawn already.

Rows that ask for the same pictures share them. What is measured on them is not known here.
"""

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from finetune.miniature.effects.asking import Ask, draw_asks
from finetune.miniature.effects.drawing import SQUARE, Batch, draw_batch
from finetune.miniature.effects.rows import Pixels
from finetune.miniature.effects.worker import Trained, begin_worker, train

_CHUNK = 32
"""Pictures drawn at once: more are no faster."""

T = TypeVar("T")


@dataclass
class Studio:
    """What rows are measured with. Use it as a context: the processes end with it.

    Attributes:
        base: the folder of the base.
        refiner: the folder of the refiner.
        scratch: a folder for what is trained and thrown away.
        num_prompts: how many prompts a rate is measured over.
        seed: of prompts and noise.
        num_processes: how many draw side by side.
        previous: the folder of the base as it was before its last stage, or None.
    """

    base: Path
    refiner: Path
    scratch: Path
    num_prompts: int = 256
    seed: int = 0
    num_processes: int = 2
    previous: Path | None = None
    _pool: ProcessPoolExecutor = field(init=False, repr=False)
    _drawn: dict[Batch, list[Future[list[Pixels]]]] = field(default_factory=dict, repr=False)
    _trained: dict[tuple[str, ...], Future[Trained]] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __enter__(self) -> Self:
        self._pool = ProcessPoolExecutor(
            self.num_processes, mp_context=multiprocessing.get_context("spawn"), initializer=begin_worker
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(wait=True, cancel_futures=error is not None)

    def asks(self, num_things: int = 1, num: int | None = None) -> list[Ask]:
        """Return what every row asks for that has so many things; `num` takes fewer of them."""
        return draw_asks(self.seed, self.num_prompts if num is None else num, num_things=num_things)

    def batch(self, asks: Sequence[Ask], prompts: Sequence[str] | None = None, **settings: Any) -> Batch:
        """Return the batch that draws what is asked for with the shipped base; `prompts` replaces theirs."""
        texts = tuple(ask.prompt for ask in asks) if prompts is None else tuple(prompts)
        size = settings.get("size", SQUARE)
        # Written out, so that batches that come to the same are equal and drawn once.
        told: dict[str, Any] = {"base": self.base, "size": size, "original_size": size, "target_size": size}
        return Batch(texts, tuple(ask.seed for ask in asks), **(told | settings))

    def draw(self, batches: Sequence[Batch]) -> list[list[Pixels]]:
        """Draw batches side by side.

        Returns:
            For each batch its pictures one by one, uint8 (height, width, 3); with a refiner those of the first
            aesthetic score, then those of the second, and so on.
        """
        pending = [self._submitted(batch) for batch in batches]
        return [_joined([chunk.result() for chunk in chunks]) for chunks in pending]

    def train(self, reference: str, overrides: Sequence[str]) -> Future[Trained]:
        """Begin a run of the kit's trainer in the scratch folder; the same line trains once."""
        fixed = (f"output_dir={self.scratch / 'runs'}", "training.device=cpu", "preview.prompts=[]", "refiner=null")
        line = (reference, *fixed, *overrides)
        with self._lock:
            if line not in self._trained:
                self._trained[line] = self._pool.submit(train, reference, line[1:])
            return self._trained[line]

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call a function in one of the processes."""
        return self._pool.submit(function, *arguments)

    def _submitted(self, batch: Batch) -> list[Future[list[Pixels]]]:
        with self._lock:
            if batch not in self._drawn:
                self._drawn[batch] = [
                    self._pool.submit(draw_batch, batch.part(start, start + _CHUNK))
                    for start in range(0, len(batch.prompts), _CHUNK)
                ]
            return self._drawn[batch]


def _joined(chunks: Sequence[Sequence[Pixels]]) -> list[Pixels]:
    """Put chunks of (variant, picture) together: all pictures of the first variant, then of the next."""
    return [picture for variants in zip(*chunks, strict=True) for pictures in variants for picture in pictures]
