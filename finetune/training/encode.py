"""The frozen models' outputs, computed before training so that their weights can leave memory.

Latents are addressed by content: the picture's hash, its frame, the VAE. They are kept in memory here; a store on disk
needs only the same key. Text is addressed by the caption as it is encoded.
"""

import math
from collections.abc import Iterable, Sequence

import psutil
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from torch.distributed import broadcast

from finetune.errors import DataError, DivergedError
from finetune.model.frozen_text import Progress
from finetune.model.text import FrozenEncoder, TextEmbeddings, TextStack
from finetune.model.vae import LatentMoments, encode_moments
from imagesets import PictureError
from imagesets.framing import Frame
from imagesets.scan import Sample

MEMORY_SHARE = 0.25
"""What part of the memory that is free now cached latents may take under `cache_latents: auto`."""

BYTES_PER_LATENT = 2 * 4 * 4
"""Mean and standard deviation, four channels, float32."""


def picture_moments(vae: AutoencoderKL, sample: Sample, frame: Frame) -> LatentMoments:
    """Read a picture, cut it to its frame and encode it.

    Raises:
        DataError: the picture was changed or removed since it was scanned.
        DivergedError: the VAE gives a number that is not finite, with the picture's name.
    """
    try:
        pixels = sample.render(frame)
    except PictureError as error:
        raise DataError(f"{sample.name}: {error}") from error
    moments = encode_moments(vae, pixels)
    if not (moments.mean.isfinite().all() and moments.std.isfinite().all()):
        raise DivergedError(
            f"{sample.name}: the VAE encodes this picture to numbers that are not finite ({vae.dtype}). "
            "Nothing was trained on it. Look at the picture, or remove it."
        )
    return moments


class LatentCache:
    """Posterior moments by picture and frame, in memory."""

    def __init__(self) -> None:
        self._moments: dict[tuple[str, Frame], LatentMoments] = {}

    def fill(self, vae: AutoencoderKL, wanted: Sequence[tuple[Sample, Frame]], progress: Progress) -> None:
        """Encode what is not there yet. The same picture and frame are encoded once."""
        for done, (sample, frame) in enumerate(wanted):
            progress(done, len(wanted))
            key = (sample.sha256, frame)
            if key not in self._moments:
                self._moments[key] = picture_moments(vae, sample, frame)
        progress(len(wanted), len(wanted))

    def fill_together(
        self, vae: AutoencoderKL, wanted: Sequence[tuple[Sample, Frame]], progress: Progress, accelerator: Accelerator
    ) -> None:
        """Do as `fill`, every process a part of the work; then each has all. One process alone just fills."""
        rank, processes = accelerator.process_index, accelerator.num_processes
        self.fill(vae, wanted[rank::processes], progress)
        if processes == 1:
            return
        channels, factor = vae.config.latent_channels, 2 ** (len(vae.config.block_out_channels) - 1)
        for source in range(processes):
            part = wanted[source::processes]
            shapes = [(2, channels, *(side // factor for side in frame.target_size)) for _, frame in part]
            if source == rank:
                moments = [self(sample, frame) for sample, frame in part]
                flat = torch.cat([torch.empty(0), *(torch.stack([m.mean, m.std]).flatten() for m in moments)])
            else:
                flat = torch.empty(sum(math.prod(shape) for shape in shapes))
            flat = flat.to(accelerator.device)
            broadcast(flat, source)
            for (sample, frame), shape, values in zip(
                part, shapes, flat.cpu().split([math.prod(shape) for shape in shapes]), strict=True
            ):
                mean, std = values.view(shape)
                self._moments[sample.sha256, frame] = LatentMoments(mean.clone(), std.clone())

    def __call__(self, sample: Sample, frame: Frame) -> LatentMoments:
        """Return the moments of a picture that `fill` has encoded."""
        return self._moments[sample.sha256, frame]


class TextCache:
    """Embeddings by caption, in memory on the CPU, with those of 'no caption'."""

    def __init__(self, empty: TextEmbeddings) -> None:
        self._empty = empty
        self._embeddings: dict[str, TextEmbeddings] = {}

    @staticmethod
    def build(encoder: FrozenEncoder, captions: Iterable[str], progress: Progress) -> "TextCache":
        """Encode every distinct caption once."""
        cache = TextCache(encoder.empty().to("cpu"))
        distinct = sorted(set(captions))
        for done, caption in enumerate(distinct):
            progress(done, len(distinct))
            cache._embeddings[caption] = encoder.encode_frozen([caption])[0].to("cpu")
        progress(len(distinct), len(distinct))
        return cache

    def encode(self, captions: Sequence[str | None]) -> TextEmbeddings:
        """Return the embeddings of a batch; None stands for a dropped caption."""
        return TextEmbeddings.cat([
            self._empty if caption is None else self._embeddings[caption] for caption in captions
        ])  # fmt: skip


class LiveText:
    """Embeddings computed at every step, because an encoder is being trained."""

    def __init__(self, stack: TextStack) -> None:
        self._stack = stack

    def encode(self, captions: Sequence[str | None]) -> TextEmbeddings:
        """Encode a batch with gradients; None stands for a dropped caption.

        On the base a dropped caption is zeros, which no encoder has a part in.
        """
        encoded = self._stack.encode([caption or "" for caption in captions])
        if not self._stack.zero_when_empty:
            return encoded
        kept = torch.tensor([caption is not None for caption in captions], device=encoded.prompt_embeds.device)
        return TextEmbeddings(encoded.prompt_embeds * kept[:, None, None], encoded.pooled_prompt_embeds * kept[:, None])


def latents_fit(frames: Iterable[Frame], vae_factor: int) -> bool:
    """Whether the moments of all frames fit in the share of free memory that `auto` allows."""
    pixels = sum(frame.target_size[0] * frame.target_size[1] for frame in frames)
    return pixels // vae_factor**2 * BYTES_PER_LATENT <= MEMORY_SHARE * psutil.virtual_memory().available
