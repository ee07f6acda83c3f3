"""What a cached value is addressed by: everything it depends on, and nothing else.

A value is found only under the key of exactly what it was computed from, so there is no stale value: a change of the
picture's bytes, its frame, the model's weights, the precision or the code asks for another key. What a key leaves out
is the processor and its number of threads, which move a result's last bits.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from imagesets.framing import Frame
from imagesets.scan import Sample

LATENT_CODE_VERSION = 1
"""Raise it when the way from a picture's bytes to its latents gives other numbers than before."""

TEXT_CODE_VERSION = 2
"""Raise it when the way from a caption to its embeddings gives other numbers than before."""

MASK_CODE_VERSION = 1
"""Raise it when the way from a mask's bytes to its amounts gives other numbers than before."""

_MASK_PACKAGES = ("pillow",)
_LATENT_PACKAGES = ("pillow", "torch", "diffusers")
_TEXT_PACKAGES = ("tokenizers", "torch", "transformers")


@dataclass(frozen=True)
class LatentAddress:
    """What the latents of all pictures of a run depend on.

    Attributes:
        vae: the identity of the VAE's weights and configuration.
        dtype: what it computes in, as 'float32'.
        device: the kind of device it computes on, as 'cuda'.
        packages: the versions of the libraries that compute.
        code: the version of our own part.
    """

    vae: str
    dtype: str
    device: str
    packages: Mapping[str, str]
    code: int

    @staticmethod
    def here(vae: str, dtype: str, device: str) -> "LatentAddress":
        """Return the address with the libraries that are installed."""
        return LatentAddress(vae, dtype, device, package_versions(_LATENT_PACKAGES), LATENT_CODE_VERSION)

    def key(self, sample: Sample, frame: Frame) -> str:
        """Return the key of a picture in a frame.

        The colour under see-through parts counts where the picture may have such parts.
        """
        background = sample.background if sample.facts.has_alpha else None
        return _hash([self._hash, sample.sha256, background, vars(frame)])

    @cached_property
    def _hash(self) -> str:
        return _hash(["latents", asdict(self)])


@dataclass(frozen=True)
class MaskAddress:
    """What the masks of all pictures of a run depend on.

    Attributes:
        vae_factor: how many pixels a side a latent covers.
        packages: the versions of the libraries that compute.
        code: the version of our own part.
    """

    vae_factor: int
    packages: Mapping[str, str]
    code: int

    @staticmethod
    def here(vae_factor: int) -> "MaskAddress":
        """Return the address with the libraries that are installed."""
        return MaskAddress(vae_factor, package_versions(_MASK_PACKAGES), MASK_CODE_VERSION)

    def key(self, sample: Sample, frame: Frame) -> str:
        """Return the key of a picture's mask in a frame, before `weight_outside`, which is put in when it is used."""
        assert sample.mask is not None, "there is a mask to have a key"
        return _hash([self._hash, sample.mask.sha256, sample.mask.is_alpha, vars(frame)])

    @cached_property
    def _hash(self) -> str:
        return _hash(["mask", asdict(self)])


@dataclass(frozen=True)
class TextAddress:
    """What the embeddings of all captions of a run depend on.

    Attributes:
        encoders: the identity of both encoders' weights and configurations and of the tokenizers.
        weights: the precision the weights are rounded to and the result is kept in, as 'bfloat16'.
        dtype: what the encoders compute in.
        device: the kind of device they compute on.
        packages: the versions of the libraries that compute.
        code: the version of our own part.
    """

    encoders: str
    weights: str
    dtype: str
    device: str
    packages: Mapping[str, str]
    code: int

    @staticmethod
    def here(encoders: str, weights: str, dtype: str, device: str) -> "TextAddress":
        """Return the address with the libraries that are installed."""
        return TextAddress(encoders, weights, dtype, device, package_versions(_TEXT_PACKAGES), TEXT_CODE_VERSION)

    def key(self, facts: Sequence[Any]) -> str:
        """Return the key of a text by what the encoders are given of it, its tokens and weights, as plain data.

        So texts that are read alike share a value, however long a recipe lets them be and whatever brackets mean in it.
        """
        return _hash([self._hash, facts])

    @cached_property
    def _hash(self) -> str:
        return _hash(["text", asdict(self)])


def package_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of installed packages, without the part that says for which device one was built."""
    found = {}
    for name in names:
        try:
            found[name] = version(name).partition("+")[0]
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def _hash(facts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
