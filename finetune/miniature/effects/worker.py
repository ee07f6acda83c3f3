"""What runs in the processes of the studio: drawing, training and measuring errors, one thread each.

The functions here are plain and take plain data, so that they can be handed to another process.
"""

import multiprocessing
import os
import threading
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Trained:
    """What one run of the kit's trainer left behind.

    Attributes:
        export: the file of an adapter, or the folder of a model.
        losses: of every step.
    """

    export: Path
    losses: tuple[float, ...]


def begin_worker() -> None:
    """Set a fresh process up: one thread, no bars of the libraries, and no life without its parent."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    torch.set_num_threads(1)  # two processes of one thread are faster than one of two
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def _end_with_parent() -> None:
    """Wait until the parent is gone, also by a kill, and end this process at once: nobody wants its work any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def train(reference: str, overrides: tuple[str, ...]) -> Trained:
    """Train a recipe as `atelier train REFERENCE OVERRIDES…` does, in this process.

    Raises:
        AtelierError: as the trainer.
    """
    from finetune.recipe import load_recipe
    from finetune.run.events import read_events
    from finetune.training.data import plan_pictures, require_usable, scan_pictures
    from finetune.training.trainer import train as train_run

    recipe = load_recipe(reference, overrides)
    report = scan_pictures(recipe)
    require_usable(report, recipe.data.on_bad_image)
    result = train_run(recipe, plan_pictures(recipe, report))
    events, _ = read_events(result.run.events)
    losses = tuple(float(event["loss"]) for event in events if event["kind"] == "step")
    return Trained(result.exports[0], losses)
