"""What frozen models will give a run: found out before one is loaded, under the keys it is kept by.

Latents and embeddings lie in the recipe's cache (`finetune.cache`), so that their models can leave memory. Where there
are too many different cuts, or an encoder is trained, they are computed at every step instead.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL

from finetune.cache.keys import LatentAddress, MaskAddress, TextAddress
from finetune.cache.latents import LatentCache
from finetune.cache.masks import MaskCache
from finetune.cache.opened import OpenCache
from finetune.cache.text import TextCache
from finetune.cache.together import any_process
from finetune.cache.values import MemoryStore
from finetune.errors import DiskError
from finetune.model.files import ModelFiles
from finetune.model.frozen_text import text_dtype
from finetune.model.text_reader import TextReader
from finetune.model.text_tokens import Reading, reading_of
from finetune.model.vae import vae_dtype
from finetune.preview.encode import texts_of
from finetune.preview.requests import PictureRequest
from finetune.recipe.schema import Recipe
from finetune.training.pictures import Pictures, TrainingPictures
from finetune.training.stops import require_cacheable_cuts, require_finite_captions, trains_text
from imagesets.class_captions import class_caption
from imagesets.framing import Frame

MEMORY_SHARE = 0.25
"""What part of the memory that is free now cached values may take."""

DISK_SHARE = 0.9
"""What part of the disk space that is free now latents may take under `cache_latents: auto`."""

BYTES_PER_LATENT = 2 * 4 * 4
"""Mean and standard deviation, four channels, float32."""

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Encoding:
    """What a recipe has encoded once, before its first step.

    Attributes:
        cache: where it is kept.
        text: captions and prompts by the trained model's encoders; None where an encoder is trained, or captions are
            not known ahead.
        refiner_text: prompts by the refiner's encoder; None without a refiner or prompts.
        latents: pictures in their frames; None where they are encoded at every step.
        masks: what counts of them; None where masks are read at every step.
    """

    cache: OpenCache
    text: TextCache | None
    refiner_text: TextCache | None
    latents: LatentCache | None
    masks: MaskCache | None

    def found(self) -> dict[str, Any]:
        """Return where the cache lies and how many of the values that are asked for are there already."""
        missing = total = 0
        for cache in (self.text, self.refiner_text, self.latents, self.masks):
            if cache is not None:
                missing += len(cache.missing())
                total += len(cache.keys)
        folder = None if self.cache.folder is None else str(self.cache.folder)
        return {"done": total - missing, "total": total, "folder": folder}

    def record(self, run: Path, accelerator: Accelerator) -> None:
        """Write down what the run is about to ask for, on each machine once. Raises DiskError."""
        if accelerator.is_local_main_process:
            texts = [cache.keys for cache in (self.text, self.refiner_text) if cache is not None]
            latents = [] if self.latents is None else self.latents.keys
            masks = [] if self.masks is None else self.masks.keys
            wanted = {"text": [key for keys in texts for key in keys], "latents": latents, "masks": masks}
            self.cache.record(run, wanted)
        accelerator.wait_for_everyone()


def plan_encoding(
    recipe: Recipe,
    pictures: Pictures,
    files: ModelFiles,
    refiner_files: ModelFiles | None,
    requests: Sequence[PictureRequest],
    cache: OpenCache,
    dtype: torch.dtype,
    accelerator: Accelerator,
    warn: Warn,
) -> Encoding:
    """Find out what is encoded ahead, and under which keys. No model is loaded; weight files may be hashed.

    Of a stream nothing is known ahead: its pictures and captions are encoded at every step.

    Raises:
        RecipeError: caching latents was demanded and cannot be done, or captions without number are to be encoded
            beforehand.
        DiskError: caching latents was demanded, and the disk has no room for them.
    """
    device = accelerator.device
    prompts, reading = texts_of(requests), reading_of(recipe.training)
    listed = pictures if isinstance(pictures, TrainingPictures) else None
    latents = None if listed is None else _latent_cache(recipe, listed, files, cache, dtype, accelerator, warn)
    return Encoding(
        cache=cache,
        text=None
        if listed is None or trains_text(recipe)
        else _text_cache(cache, files, [*_finite_captions(recipe, listed), *prompts], reading, dtype, device),
        refiner_text=None
        if refiner_files is None or not requests
        else _text_cache(cache, refiner_files, prompts, reading, dtype, device),
        latents=latents,
        masks=None if listed is None or latents is None else _mask_cache(latents, listed, files, cache),
    )


def latents_fit(frames: Iterable[Frame], vae_factor: int) -> bool:
    """Whether the moments of all frames fit in the share of free memory that `auto` allows."""
    return _latent_bytes(frames, vae_factor) <= MEMORY_SHARE * psutil.virtual_memory().available


def _finite_captions(recipe: Recipe, pictures: TrainingPictures) -> list[str]:
    """Return every caption a run can ask for, and where the base is asked what is to stay, every class caption."""
    require_finite_captions(recipe, pictures)
    prior = recipe.training.prior_preservation
    if prior is None:
        return pictures.captions()
    own = [(sample, pictures.captions_of(index)) for index, sample in enumerate(pictures.samples)]
    of_class = [class_caption(text, sample.trigger, prior.class_word) for sample, texts in own for text in texts]
    return [text for _, texts in own for text in texts] + of_class


def _text_cache(
    cache: OpenCache,
    files: ModelFiles,
    texts: Iterable[str],
    reading: Reading,
    dtype: torch.dtype,
    device: torch.device,
) -> TextCache:
    identity = cache.identity(files, "text")
    address = TextAddress.here(identity, _name(dtype), _name(text_dtype(dtype, device)), device.type)
    reader = TextReader.load(files, reading)
    return TextCache(cache.stores["text"], address, texts, reader, files, dtype, device)


def _latent_cache(
    recipe: Recipe,
    pictures: TrainingPictures,
    files: ModelFiles,
    cache: OpenCache,
    dtype: torch.dtype,
    accelerator: Accelerator,
    warn: Warn,
) -> LatentCache | None:
    """Return the cache of latents, on the disk or in memory, or None where they are encoded at every step."""
    wish = recipe.training.cache_latents
    if wish == "never":
        return None
    if not pictures.has_finite_frames:
        require_cacheable_cuts(recipe)
        return None
    device = accelerator.device
    wanted = pictures.frames()
    address = LatentAddress.here(cache.identity(files, "vae"), _name(vae_dtype(dtype, device)), device.type)
    planned = LatentCache(cache.stores["latents"], address, wanted, partial(load_vae, files, dtype, device))
    factor = files.geometry().vae_factor
    lacks_room = cache.folder is not None and not _has_room(
        cache.folder, _latent_bytes((frame for _, frame in planned.missing()), factor)
    )
    if cache.folder is not None and not any_process(accelerator, lacks_room):
        return planned
    if cache.folder is not None:
        message = (
            f"{cache.folder}: the disk has no room for the latents of {len(planned.missing())} cuts. Free some space, "
            "or set cache.folder to another disk, or cache.kind=memory"
        )
        if wish == "always":
            raise DiskError(message)
        warn(f"{message}. They are kept in memory where they fit, or encoded at every step")
    fits = wish == "always" or latents_fit([frame for _, frame in wanted], factor)
    if any_process(accelerator, not fits):  # each sees the machine's free memory at another moment
        return None
    return LatentCache(MemoryStore(), address, wanted, partial(load_vae, files, dtype, device))


def _mask_cache(latents: LatentCache, pictures: TrainingPictures, files: ModelFiles, cache: OpenCache) -> MaskCache:
    """Return the cache of masks, kept where the latents are."""
    store = MemoryStore() if latents.is_in_memory else cache.stores["masks"]
    return MaskCache(store, MaskAddress.here(files.geometry().vae_factor), pictures.frames())


def load_vae(files: ModelFiles, dtype: torch.dtype, device: torch.device) -> AutoencoderKL:
    """Load a model's VAE onto a device, in the precision it computes in."""
    return files.load_vae(vae_dtype(dtype, device)).to(device)


def _latent_bytes(frames: Iterable[Frame], vae_factor: int) -> int:
    pixels = sum(frame.target_size[0] * frame.target_size[1] for frame in frames)
    return pixels // vae_factor**2 * BYTES_PER_LATENT


def _has_room(folder: Path, num_bytes: int) -> bool:
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    return num_bytes <= DISK_SHARE * shutil.disk_usage(there).free


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
