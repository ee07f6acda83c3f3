"""Masks of pictures in frames on the latents' grid, from the cache, and how it is filled."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from finetune.cache.keys import MaskAddress
from finetune.cache.known import KnownValues
from finetune.cache.values import Store
from finetune.errors import DataError
from finetune.model.frozen_text import Progress
from imagesets import PictureError
from imagesets.framing import Frame
from imagesets.scan import Sample


def picture_mask(sample: Sample, frame: Frame, vae_factor: int) -> Tensor | None:
    """Read a picture's mask and cut it to its frame; return its mean over what each latent covers.

    Returns:
        (1, h, w), float32: from 0 to 1, before `weight_outside`; None where the picture has no mask.

    Raises:
        DataError: the mask was changed or removed since it was scanned.
    """
    try:
        levels = sample.render_mask(frame)
    except PictureError as error:
        raise DataError(f"{sample.name}: {error}") from error
    if levels is None:
        return None
    height, width = levels.shape[0] // vae_factor, levels.shape[1] // vae_factor
    # Whole numbers up to here: a white mask is exactly 1.
    sums = levels.reshape(height, vae_factor, width, vae_factor).sum(axis=(1, 3), dtype=np.int64)
    return torch.from_numpy(sums / (255 * vae_factor**2)).float().unsqueeze(0)


def with_floor(mask: Tensor, weight_outside: float) -> Tensor:
    """Return what each place counts: 1 where the mask is 1, exactly, and `weight_outside` where it is 0."""
    return mask + weight_outside * (1.0 - mask)


class PictureMasks:
    """Masks read when they are asked for, where frames are not known beforehand.

    Args:
        vae_factor: how many pixels a side a latent covers.
    """

    def __init__(self, vae_factor: int) -> None:
        self._vae_factor = vae_factor

    def __call__(self, sample: Sample, frame: Frame) -> Tensor | None:
        """Return what each place of a picture's latents counts, (1, h, w); None where all count whole."""
        mask = picture_mask(sample, frame, self._vae_factor)
        return None if mask is None or sample.mask is None else with_floor(mask, sample.mask.weight_outside)


class MaskCache(KnownValues[tuple[Sample, Frame]]):
    """The masks of a known set of pictures in frames.

    Args:
        store: where they are kept.
        address: what they depend on beside mask and frame.
        wanted: every picture and frame that can be asked for.
    """

    def __init__(self, store: Store, address: MaskAddress, wanted: Sequence[tuple[Sample, Frame]]) -> None:
        masked = [(sample, frame) for sample, frame in wanted if sample.mask is not None]
        super().__init__(store, {address.key(sample, frame): (sample, frame) for sample, frame in masked})
        self._address = address

    def __call__(self, sample: Sample, frame: Frame) -> Tensor | None:
        """Return what each place of a picture's latents counts, (1, h, w); None where all count whole."""
        if sample.mask is None:
            return None
        mask = self._value(self._address.key(sample, frame))["mask"]
        return with_floor(mask, sample.mask.weight_outside)

    def _encode(self, keys: Sequence[str], progress: Progress) -> None:
        missing = [key for key in keys if key not in self._store]
        found = len(keys) - len(missing)
        for done, key in enumerate(missing):
            progress(found + done, len(keys))
            sample, frame = self._wanted[key]
            mask = picture_mask(sample, frame, self._address.vae_factor)
            assert mask is not None, "only pictures with masks are wanted"
            self._store.put(key, {"mask": mask})
        progress(len(keys), len(keys))
