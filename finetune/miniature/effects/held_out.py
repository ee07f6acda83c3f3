"""The error of noise prediction on photos that no training has seen: of the base, of the refiner, rightly told or not.

The models are called as diffusers' pipelines hold them; what they are told follows from each photo's frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DDPMScheduler
from PIL import Image

from finetune.miniature.effects.drawing import load_base, load_refiner
from imagesets.buckets import assign_bucket
from imagesets.framing import Frame, Size, make_frame
from imagesets.randomness import key_to_fraction, key_to_seed
from imagesets.world.photos import SHORTER_SIDES, Photo, Sides, draw_photo
from imagesets.world.render import render_scene

PHOTOS_SEED = 977
"""Another set than the miniature was trained on (`finetune.miniature.stages.PHOTO_SETS`)."""

_BATCH = 32


@dataclass(frozen=True)
class HeldOut:
    """What is measured.

    Attributes:
        model: the folder of a base or a refiner.
        is_refiner: which of the two.
        num_photos: the first of the set.
        shorter_sides: between which the photos' shorter sides lie, in pixels.
        buckets: that they are cut to, each to its nearest, at random.
        timesteps: ranges (first, after the last); each photo is noised once in each, at a place of its own.
        swap_target: tell the base the target size with height and width exchanged.
    """

    model: Path
    is_refiner: bool
    num_photos: int
    buckets: tuple[Size, ...]
    timesteps: tuple[tuple[int, int], ...]
    swap_target: bool = False
    shorter_sides: Sides = SHORTER_SIDES


def held_out_errors(job: HeldOut) -> npt.NDArray[np.float64]:
    """Return the mean squared error of the predicted noise, (photos, timesteps).

    Frames, noise and timesteps follow from the photo's number alone, so that two models are measured on the same.
    """
    pipeline = load_refiner(job.model) if job.is_refiner else load_base(job.model)
    config = pipeline.scheduler.config
    scheduler = DDPMScheduler(
        beta_start=config.beta_start, beta_end=config.beta_end, beta_schedule=config.beta_schedule,
        num_train_timesteps=config.num_train_timesteps,
    )  # fmt: skip
    photos = [draw_photo(PHOTOS_SEED, index, job.shorter_sides) for index in range(job.num_photos)]
    frames = [_frame(photo, index, job.buckets) for index, photo in enumerate(photos)]
    errors = np.zeros((job.num_photos, len(job.timesteps)))
    for bucket in job.buckets:
        chosen = [index for index, frame in enumerate(frames) if frame.target_size == bucket]
        for start in range(0, len(chosen), _BATCH):
            part = chosen[start : start + _BATCH]
            errors[part] = _errors(pipeline, scheduler, job, part, photos, frames)
    return errors


def _frame(photo: Photo, index: int, buckets: Sequence[Size]) -> Frame:
    return make_frame(photo.size, assign_bucket(photo.size, buckets), "random", key=(PHOTOS_SEED, "held out", index))


@torch.inference_mode()
def _errors(
    pipeline: Any,
    scheduler: DDPMScheduler,
    job: HeldOut,
    indices: Sequence[int],
    photos: Sequence[Photo],
    frames: Sequence[Frame],
) -> npt.NDArray[np.float64]:
    """Return the errors of photos of one bucket, (photos, timesteps)."""
    pixels = torch.stack([_pixels(photos[index], frames[index]) for index in indices])
    latents = pipeline.vae.encode(pixels).latent_dist.mean * pipeline.vae.config.scaling_factor  # (B, 4, h, w)
    embeds, _, pooled, _ = pipeline.encode_prompt(
        [photos[index].caption for index in indices],
        device=torch.device("cpu"),
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
    )
    ids = torch.tensor([_time_ids(photos[index], frames[index], job) for index in indices], dtype=torch.float32)
    columns = []
    for first, last in job.timesteps:
        shares = [key_to_fraction(PHOTOS_SEED, "held-out timestep", index, first) for index in indices]
        timesteps = torch.tensor([first + int(share * (last - first)) for share in shares])
        noise = torch.stack([_noise(index, first, latents.shape[1:]) for index in indices])
        noisy = scheduler.add_noise(latents, noise, timesteps).contiguous(memory_format=torch.channels_last)
        predicted = pipeline.unet(
            noisy, timesteps, encoder_hidden_states=embeds,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": ids}, return_dict=False,
        )[0]  # fmt: skip
        columns.append((predicted - noise).square().mean(dim=(1, 2, 3)).double().numpy())
    return np.stack(columns, axis=1)


def _time_ids(photo: Photo, frame: Frame, job: HeldOut) -> tuple[float, ...]:
    if job.is_refiner:
        return (*frame.original_size, *frame.crop_top_left, photo.scene.aesthetic_score)
    ids = frame.add_time_ids()
    return (*ids[:4], ids[5], ids[4]) if job.swap_target else ids


def _pixels(photo: Photo, frame: Frame) -> torch.Tensor:
    """Return a photo in its frame, (3, height, width) in [-1, 1]."""
    resized = Image.fromarray(render_scene(photo.scene, photo.size)).resize(
        frame.resized_size[::-1], Image.Resampling.LANCZOS
    )
    pixels = torch.from_numpy(np.array(resized.crop(frame.crop_box)))
    return pixels.permute(2, 0, 1).float() / 127.5 - 1.0


def _noise(index: int, first: int, shape: torch.Size) -> torch.Tensor:
    seed = key_to_seed(PHOTOS_SEED, "held-out noise", index, first)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
