"""Posterior moments of pictures in frames, from the cache, and how it is filled."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from accelerate import Accelerator
from diffusers import AutoencoderKL

from finetune.cache.keys import LatentAddress
from finetune.cache.known import KnownValues
from finetune.cache.values import MemoryStore, Store, Value
from finetune.errors import DataError, DivergedError
from finetune.model.frozen_text import Progress
from finetune.model.vae import LatentMoments, Pixels, encode_moments
from imagesets import PictureError
from imagesets.ahead import rendered_ahead
from imagesets.framing import Frame
from imagesets.scan import Sample

LoadVae = Callable[[], AutoencoderKL]


def picture_moments(
    vae: AutoencoderKL, sample: Sample, frame: Frame, rendered: Iterator[Pixels] | None = None
) -> LatentMoments:
    """Read a picture, cut it to its frame and encode it.

    Args:
        vae: the model.
        sample: the picture.
        frame: how it is cut.
        rendered: gives its pixels next, where it was read ahead.

    Raises:
        DataError: the picture was changed or removed since it was scanned.
        DivergedError: the VAE gives a number that is not finite, with the picture's name.
    """
    try:
        pixels = sample.render(frame) if rendered is None else next(rendered)
    except PictureError as error:
        raise DataError(str(error)) from error
    moments = encode_moments(vae, pixels)
    if not (moments.mean.isfinite().all() and moments.std.isfinite().all()):
        raise DivergedError(
            f"{sample.name}: the VAE encodes this picture to numbers that are not finite ({vae.dtype}). "
            "Nothing was trained on it. Look at the picture, or remove it."
        )
    return moments


class LatentCache(KnownValues[tuple[Sample, Frame]]):
    """The moments of a known set of pictures in frames: mean and standard deviation, a sample is drawn at each step.

    Args:
        store: where they are kept.
        address: what they depend on beside picture and frame.
        wanted: every picture and frame that can be asked for.
        load_vae: loads the VAE where a value has to be computed and none is lent.
    """

    def __init__(
        self, store: Store, address: LatentAddress, wanted: Sequence[tuple[Sample, Frame]], load_vae: LoadVae
    ) -> None:
        super().__init__(store, {address.key(sample, frame): (sample, frame) for sample, frame in wanted})
        self._address = address
        self._load_vae = load_vae

    @property
    def is_in_memory(self) -> bool:
        """Whether the values are kept in this process's memory, and not on the disk."""
        return isinstance(self._store, MemoryStore)

    def fill_with(self, vae: AutoencoderKL, progress: Progress, accelerator: Accelerator) -> None:
        """Fill in as `fill` does, with a VAE that is in memory anyway; it is not kept."""
        own, self._load_vae = self._load_vae, lambda: vae
        try:
            self.fill(progress, accelerator)
        finally:
            self._load_vae = own

    def __call__(self, sample: Sample, frame: Frame) -> LatentMoments:
        """Return the moments of a picture in a frame. What was damaged on the disk since `fill` is encoded again."""
        value = self._value(self._address.key(sample, frame))
        return LatentMoments(value["mean"], value["std"])

    def _encode(self, keys: Sequence[str], progress: Progress) -> None:
        missing = [key for key in keys if key not in self._store]
        found = len(keys) - len(missing)
        if missing:
            vae = self._load_vae()
            with closing(rendered_ahead(self._wanted[key] for key in missing)) as rendered:
                for done, key in enumerate(missing):
                    progress(found + done, len(keys))
                    self._store.put(key, as_value(picture_moments(vae, *self._wanted[key], rendered)))
        progress(len(keys), len(keys))


def as_value(moments: LatentMoments) -> Value:
    """Return moments as they are kept."""
    return {"mean": moments.mean, "std": moments.std}
