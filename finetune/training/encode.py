"""What frozen models give a run: encoded as `encode_plan` says, before the first step, or at every step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL

from finetune.cache.latents import LatentCache, picture_moments
from finetune.cache.masks import MaskCache, PictureMasks
from finetune.cache.text import TextCache
from finetune.model.files import ModelFiles
from finetune.model.frozen_text import Progress
from finetune.model.text import TextEmbeddings, TextStack
from finetune.model.text_tokens import reading_of
from finetune.model.vae import LatentMoments
from finetune.preview.encode import encode_guidance
from finetune.preview.requests import PictureRequest
from finetune.preview.sampling import Guidance
from finetune.recipe.schema import FullTraining, Recipe
from finetune.training.encode_plan import Encoding, load_vae
from finetune.training.stops import trains_text
from imagesets.framing import Frame
from imagesets.scan import Sample


@dataclass
class EncodedText:
    """What the text encoders have given, and the encoders themselves where they are trained.

    Attributes:
        source: a batch's embeddings.
        stack: the encoders, or None where they have been let go.
        guidance: the previews' prompts, or None where the encoders are there to encode them.
    """

    source: "TextCache | LiveText"
    stack: TextStack | None
    guidance: list[Guidance] | None


class LiveText:
    """Embeddings computed at every step: an encoder is being trained, or captions are not known ahead."""

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
        return replace(
            encoded,
            prompt_embeds=encoded.prompt_embeds * kept[:, None, None],
            pooled_prompt_embeds=encoded.pooled_prompt_embeds * kept[:, None],
        )


class PictureEncoder:
    """The VAE, and its latents for (picture, frame): cached, or encoded when asked for."""

    def __init__(self, vae: AutoencoderKL, cache: LatentCache | None) -> None:
        self.vae = vae
        self.cache = cache

    def __call__(self, sample: Sample, frame: Frame) -> LatentMoments:
        """Return the moments of a picture in a frame."""
        return picture_moments(self.vae, sample, frame) if self.cache is None else self.cache(sample, frame)

    def source(self) -> "LatentCache | PictureEncoder":
        """Return what gives latents in training: the cache alone where there is one, so that the VAE can be let go."""
        return self if self.cache is None else self.cache


def encode_text(
    recipe: Recipe,
    files: ModelFiles,
    encoding: Encoding,
    requests: Sequence[PictureRequest],
    dtype: torch.dtype,
    accelerator: Accelerator,
    progress: Progress,
) -> EncodedText:
    """Encode the captions and prompts that are missing and let the encoders go.

    They are kept where one is trained, or where captions are only known at the step that needs them.
    """
    if encoding.text is None:
        # A whole encoder in training has float32 weights, read as such: rounded ones would not come back.
        is_trained_whole = isinstance(recipe.adapter, FullTraining) and trains_text(recipe)
        weights = torch.float32 if is_trained_whole else dtype
        stack = TextStack.load(files, weights, accelerator.device, reading_of(recipe.training))
        return EncodedText(LiveText(stack), stack, None)
    encoding.text.fill(progress, accelerator)
    return EncodedText(encoding.text, None, encode_guidance(encoding.text, requests))


def encode_refiner_text(
    encoding: Encoding, requests: Sequence[PictureRequest], accelerator: Accelerator, progress: Progress
) -> list[Guidance]:
    """Encode the previews' prompts with the refiner's own encoder and let it go."""
    if encoding.refiner_text is None:
        return []
    encoding.refiner_text.fill(progress, accelerator)
    return encode_guidance(encoding.refiner_text, requests)


def encode_pictures(
    files: ModelFiles, encoding: Encoding, dtype: torch.dtype, accelerator: Accelerator, progress: Progress
) -> PictureEncoder:
    """Load the VAE and, where latents are cached, encode what is missing; several processes share the work.

    Raises:
        DataError: a picture was changed or removed since it was scanned.
        DivergedError: a picture's latents are not finite.
        DiskError: the cache cannot be written.
    """
    vae = load_vae(files, dtype, accelerator.device)
    if encoding.latents is not None:
        encoding.latents.fill_with(vae, progress, accelerator)
    return PictureEncoder(vae, encoding.latents)


def encode_masks(
    files: ModelFiles, encoding: Encoding, accelerator: Accelerator, progress: Progress
) -> MaskCache | PictureMasks:
    """Bring the masks that are missing to the latents' grid; without a cache, they are read at every step.

    Raises:
        DataError: a mask was changed or removed since it was scanned.
        DiskError: the cache cannot be written.
    """
    if encoding.masks is None:
        return PictureMasks(files.geometry().vae_factor)
    if encoding.masks.keys:
        encoding.masks.fill(progress, accelerator)
    return encoding.masks
