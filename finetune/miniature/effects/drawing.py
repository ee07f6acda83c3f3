"""Draw a batch of pictures with diffusers' own pipelines, as anyone would who has the folders and not this kit.

One batch has one size and one set of size and crop conditions, and a generator a picture, so that a picture depends
on its own prompt and seed. Pipelines stay loaded for the next batch. Which batches are drawn is decided elsewhere.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

from finetune.miniature.effects.rows import Pixels

Size = tuple[int, int]

SQUARE: Size = (64, 64)
"""The size the miniature was made for."""

NUM_STEPS = 20
SWITCH_AT = 0.8
"""The share of the way that the base draws where a refiner finishes its latents."""

NEGATIVE_AESTHETIC_SCORE = 2.5
_MAX_LOADED = 6


@dataclass(frozen=True)
class Batch:
    """Pictures to be drawn together. Sizes and places are (height, width) and (top, left).

    Attributes:
        prompts: one a picture.
        seeds: of each picture's noise.
        base: the folder of the base.
        size: of the pictures.
        original_size: what the base is told they once had.
        crop_top_left: what it is told they were cut at.
        target_size: what it is told they have.
        guidance: the guidance scale; 1 is without.
        lora: a file of an adapter that is on.
        refiner: the folder of a refiner that takes over at SWITCH_AT.
        aesthetic_scores: what the refiner is told to reach; it finishes the same latents once for each.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    base: Path
    size: Size = SQUARE
    original_size: Size = SQUARE
    crop_top_left: Size = (0, 0)
    target_size: Size = SQUARE
    guidance: float = 5.0
    lora: Path | None = None
    refiner: Path | None = None
    aesthetic_scores: tuple[float, ...] = ()

    def part(self, start: int, stop: int) -> "Batch":
        """Return the batch of some of its pictures."""
        return replace(self, prompts=self.prompts[start:stop], seeds=self.seeds[start:stop])


def draw_batch(batch: Batch) -> list[Pixels]:
    """Draw a batch.

    Returns:
        uint8 pictures (N, height, width, 3): one array, or with a refiner one for each aesthetic score.
    """
    pipeline = _base(batch.base, batch.lora)
    settings: dict[str, Any] = {
        "prompt": list(batch.prompts),
        "num_inference_steps": NUM_STEPS,
        "guidance_scale": batch.guidance,
    }
    conditions = {
        "original_size": batch.original_size,
        "crops_coords_top_left": batch.crop_top_left,
        "target_size": batch.target_size,
    }
    generators = [torch.Generator().manual_seed(seed) for seed in batch.seeds]
    with torch.inference_mode():
        if batch.refiner is None:
            drawn = pipeline(
                **settings, **conditions, height=batch.size[0], width=batch.size[1], generator=generators,
                output_type="np",
            ).images  # fmt: skip
            return [to_pixels(drawn)]
        latents = pipeline(
            **settings, **conditions, height=batch.size[0], width=batch.size[1], generator=generators,
            denoising_end=SWITCH_AT, output_type="latent",
        ).images  # fmt: skip
        refiner = _refiner(batch.refiner)
        return [
            to_pixels(
                refiner(
                    **settings, **conditions, image=latents, denoising_start=SWITCH_AT, aesthetic_score=score,
                    negative_aesthetic_score=NEGATIVE_AESTHETIC_SCORE, output_type="np",
                ).images
            )
            for score in batch.aesthetic_scores
        ]  # fmt: skip


_loaded: OrderedDict[tuple[Path, Path | None], Any] = OrderedDict()


def _base(folder: Path, lora: Path | None) -> Any:
    return _kept((folder, lora), lambda: load_base(folder, lora))


def _refiner(folder: Path) -> Any:
    return _kept((folder, None), lambda: load_refiner(folder))


def _kept(key: tuple[Path, Path | None], load: Any) -> Any:
    if key not in _loaded:
        while len(_loaded) >= _MAX_LOADED:
            _loaded.popitem(last=False)
        _loaded[key] = load()
    _loaded.move_to_end(key)
    return _loaded[key]


def load_base(folder: Path, lora: Path | None = None) -> Any:
    """Load a base pipeline, with an adapter where one is given, in float32 on the CPU."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True, add_watermarker=False)
    if lora is not None:
        pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name)
        pipeline.fuse_lora()  # the same pictures but for rounding, a third faster
    return _settled(pipeline)


def load_refiner(folder: Path) -> Any:
    """Load a refiner pipeline in float32 on the CPU."""
    return _settled(
        StableDiffusionXLImg2ImgPipeline.from_pretrained(folder, local_files_only=True, add_watermarker=False)
    )


def _settled(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(torch.float32)  # the folders ship fp16
    pipeline.unet.to(memory_format=torch.channels_last)  # a fifth faster on a CPU
    pipeline.vae.to(memory_format=torch.channels_last)
    return pipeline


def to_pixels(images: Any) -> Pixels:
    """Turn pictures of 0 to 1 into uint8."""
    return np.round(np.clip(images, 0.0, 1.0) * 255.0).astype(np.uint8)
