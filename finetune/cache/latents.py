"""Posterior moments of pictures in frames, from the cache, and how it is filled."""

from collections.abc import Callable, Sequence

from accelerate import Accelerator
from diffusers import AutoencoderKL

from finetune.cache.keys import LatentAddress
from finetune.cache.together import fill_together
from finetune.cache.values import Store, Value
from finetune.errors import DataError, DivergedError
from finetune.model.frozen_text import Progress, unseen
from finetune.model.vae import LatentMoments, encode_moments
from imagesets import PictureError
from imagesets.framing import Frame
from imagesets.scan import Sample

LoadVae = Callable[[], AutoencoderKL]


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
    """The moments of a known set of pictures in frames: mean and standard deviation, a sample is drawn at each step.

    Args:
        store: where they are kept.
        address: what they depend on beside picture and frame.
        wanted: every picture and frame that can be asked for.
        load_vae: loads the VAE where a value has to be computed again.
    """

    def __init__(
        self, store: Store, address: LatentAddress, wanted: Sequence[tuple[Sample, Frame]], load_vae: LoadVae
    ) -> None:
        self._store = store
        self._address = address
        self._wanted = {address.key(sample, frame): (sample, frame) for sample, frame in wanted}
        self._load_vae = load_vae

    @property
    def keys(self) -> Sequence[str]:
        """The keys of everything that can be asked for, each once."""
        return list(self._wanted)

    def missing(self) -> list[tuple[Sample, Frame]]:
        """Return what has to be encoded."""
        return [item for key, item in self._wanted.items() if key not in self._store]

    def fill(self, progress: Progress, accelerator: Accelerator, vae: AutoencoderKL | None = None) -> None:
        """Encode what is missing, every process a part.

        Args:
            progress: called as encoding goes on.
            accelerator: knows the processes.
            vae: the model; without it, a process that has something to encode loads it, and lets it go.

        Raises:
            DataError: a picture was changed or removed since it was scanned.
            DivergedError: a picture's latents are not finite.
            DiskError: the values cannot be written.
        """
        fill_together(self._store, self.keys, lambda keys: self._encode(keys, progress, vae), accelerator)

    def __call__(self, sample: Sample, frame: Frame) -> LatentMoments:
        """Return the moments of a picture in a frame. What was damaged on the disk since `fill` is encoded again."""
        key = self._address.key(sample, frame)
        value = self._store.get(key)
        if value is None:
            assert key in self._wanted, "only what is known beforehand is asked for"
            self._encode(self.keys, unseen)  # all that is lost, while the VAE is there
            self._store.flush()
            value = self._store.get(key)
            assert value is not None, "it was encoded just now"
        return LatentMoments(value["mean"], value["std"])

    def _encode(self, keys: Sequence[str], progress: Progress, vae: AutoencoderKL | None = None) -> None:
        missing = [key for key in keys if key not in self._store]
        found = len(keys) - len(missing)
        for done, key in enumerate(missing):
            progress(found + done, len(keys))
            vae = vae or self._load_vae()
            self._store.put(key, as_value(picture_moments(vae, *self._wanted[key])))
        progress(len(keys), len(keys))


def as_value(moments: LatentMoments) -> Value:
    """Return moments as they are kept."""
    return {"mean": moments.mean, "std": moments.std}
