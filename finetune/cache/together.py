"""Sharing the work of filling a store among the processes of a run."""

from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator

from finetune.cache.values import Store

Fill = Callable[[Sequence[str]], None]
"""Encodes what is missing of some keys and puts it into the store."""


def fill_together(store: Store, keys: Sequence[str], fill: Fill, accelerator: Accelerator) -> None:
    """Let every process encode a part of `keys`; afterwards each can read all. One process alone just fills.

    Where processes on several machines do not see one folder, those of each machine then encode what it lacks.
    """
    try:
        fill(keys[accelerator.process_index :: accelerator.num_processes])
    finally:
        store.flush()  # whatever stopped it: what is encoded is kept
    if accelerator.num_processes == 1:
        return
    store.share(accelerator)
    missing = [key for key in keys if key not in store]
    if any_process(accelerator, bool(missing)):
        fill(missing[accelerator.local_process_index :: _processes_here(accelerator)])
        store.share(accelerator)


def any_process(accelerator: Accelerator, answer: bool) -> bool:
    """Whether any process says yes. All of them call it together."""
    if accelerator.num_processes == 1:
        return answer
    agreed: torch.Tensor = accelerator.reduce(torch.tensor(float(answer), device=accelerator.device), "sum")
    return bool(agreed > 0)


def _processes_here(accelerator: Accelerator) -> int:
    """Return how many of the run's processes are on this machine, as their local numbers tell."""
    highest: torch.Tensor = accelerator.gather(
        torch.tensor([accelerator.local_process_index], device=accelerator.device)
    )
    return int(highest.max()) + 1
