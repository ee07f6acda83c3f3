"""Encoding ahead of a run what its recipe needs, without training: the same plan, models and cache as a run's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator

from finetune.cache.opened import OpenCache
from finetune.cache.values import DiskStore
from finetune.model.frozen_text import Progress, unseen
from finetune.model.precision import choose_device
from finetune.recipe import Recipe
from finetune.run.events import Event
from finetune.training.denoising_plan import plan_denoising
from finetune.training.job import say_warning
from finetune.training.pictures import TrainingPictures
from finetune.training.signals import StoppedEarlyError, StopRequest

Listener = Callable[[Event], None]


@dataclass(frozen=True)
class Prepared:
    """What preparing a recipe came to.

    Attributes:
        cache: where the values lie.
        wanted: how many values the recipe asks for, by store.
        encoded: how many of them were not there.
        reasons: by store, why it is not asked where it is not.
        is_main_process: whether this process is the one that speaks.
    """

    cache: OpenCache
    wanted: Mapping[str, int]
    encoded: Mapping[str, int]
    reasons: Mapping[str, str]
    is_main_process: bool

    def counts(self) -> dict[str, Any]:
        """Return the numbers as plain data."""
        stores = [store.folder for store in self.cache.stores.values() if isinstance(store, DiskStore)]
        counts = {name: {"wanted": self.wanted[name], "encoded": self.encoded[name]} for name in self.wanted}
        return {**counts, "bytes": sum(store.num_bytes() for store in stores)}


def prepare(
    recipe: Recipe,
    pictures: TrainingPictures,
    listener: Listener | None,
    stop: StopRequest | None,
    *,
    only_record: bool = False,
) -> Prepared:
    """Encode what a recipe needs and is not in its cache; several processes share the work.

    Args:
        recipe: the recipe; it trains no VAE.
        pictures: its pictures.
        listener: sees how far it is, as events of stages.
        stop: asks to end; what is encoded by then is kept.
        only_record: find out what it needs and write that down, but encode nothing.

    Raises:
        StoppedEarlyError: a stop was asked for.
        AtelierError: as a run's beginning.
    """
    if pictures.has_finite_frames and recipe.training.cache_latents == "auto":
        # To be asked for is to be wanted: without room on the disk this stops rather than doing nothing.
        always = recipe.training.model_copy(update={"cache_latents": "always"})
        recipe = recipe.model_copy(update={"training": always})
    device = choose_device(recipe.training.device)
    accelerator = Accelerator(cpu=device.type == "cpu")
    encoding = plan_denoising(recipe, pictures, accelerator, say_warning).encoding
    texts = [each for each in (encoding.text, encoding.refiner_text) if each is not None]
    latents = [encoding.latents] if encoding.latents is not None else []
    wanted = {"text": sum(len(each.keys) for each in texts), "latents": sum(len(each.keys) for each in latents)}
    encoded = {
        "text": sum(len(each.missing()) for each in texts),
        "latents": sum(len(each.missing()) for each in latents),
    }
    masks = encoding.masks
    if masks is not None and masks.keys:
        wanted["masks"], encoded["masks"] = len(masks.keys), len(masks.missing())
    if not only_record:
        shown = listener if accelerator.is_main_process else None
        for name, each in (("captions", encoding.text), ("prompts", encoding.refiner_text)):
            if each is not None:
                each.fill(_progress(shown, stop, name), accelerator)
        for own in latents:
            own.fill(_progress(shown, stop, "latents"), accelerator)
        if masks is not None and masks.keys:
            masks.fill(_progress(shown, stop, "masks"), accelerator)
    never = recipe.training.cache_latents == "never"
    reasons = {
        "text": "an encoder is trained",
        "latents": "training.cache_latents is never" if never else "data.crop is random without data.crops_per_picture",
    }
    return Prepared(encoding.cache, wanted, encoded, reasons, accelerator.is_main_process)


def _progress(listener: Listener | None, stop: StopRequest | None, name: str) -> Progress:
    """Return a progress callback that tells a listener, and leaves when a stop is asked for."""
    if listener is None and stop is None:
        return unseen

    def progress(done: int, total: int) -> None:
        if stop:
            raise StoppedEarlyError(stop.exit_code)
        if listener is not None:
            listener({"kind": "stage", "step": None, "name": name, "done": done, "total": total})

    return progress
