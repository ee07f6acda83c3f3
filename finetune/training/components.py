"""Load the models a run needs, in the order that keeps memory low: encoders, VAE, U-Net, each let go when done with."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from finetune.adapters.dropout import DropoutKey
from finetune.adapters.lora import LoraSettings, inject_lora
from finetune.adapters.weights import Component
from finetune.errors import DataError, RecipeError
from finetune.model.files import Geometry, ModelFiles
from finetune.model.frozen_text import FrozenText, Progress
from finetune.model.open import open_model
from finetune.model.text import TextStack
from finetune.model.vae import LatentMoments, vae_dtype
from finetune.preview.encode import encode_guidance, texts_of
from finetune.preview.requests import PictureRequest, resolve_request
from finetune.preview.sampling import Guidance
from finetune.recipe.schema import FullTraining, LoraAdapter, Recipe, TextLora, UNetLora
from finetune.training.encode import LatentCache, LiveText, TextCache, latents_fit, picture_moments
from finetune.training.groups import TrainedGroup
from finetune.training.pictures import TrainingPictures
from imagesets.framing import Frame
from imagesets.scan import Sample


@dataclass
class EncodedText:
    """What the text encoders have given, and the encoders themselves where they are trained.

    Attributes:
        source: a batch's embeddings.
        stack: the encoders, or None where they have been let go.
        guidance: the previews' prompts, or None where an encoder is trained and they change.
    """

    source: TextCache | LiveText
    stack: TextStack | None
    guidance: list[Guidance] | None


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


def open_trained_model(recipe: Recipe) -> ModelFiles:
    """Find the files of the model that is trained: a base or a refiner.

    Raises:
        RecipeError: nothing there, or previews are asked of a refiner.
    """
    files = open_model(recipe.model, refiner=None)
    if not files.has_first_encoder() and recipe.preview.prompts:
        raise RecipeError(
            "preview.prompts: the model is a refiner, which goes on with what a base has begun and draws nothing from "
            "a prompt alone. Leave preview.prompts out"
        )
    return files


def trains_text(recipe: Recipe) -> bool:
    """Whether a text encoder is trained, by an adapter or by its own weights."""
    adapter = recipe.adapter
    assert isinstance(adapter, LoraAdapter | FullTraining), "other kinds have no text"
    return adapter.text_encoder is not None or adapter.text_encoder_2 is not None


def encode_text(
    recipe: Recipe,
    files: ModelFiles,
    captions: Sequence[str],
    requests: Sequence[PictureRequest],
    dtype: torch.dtype,
    device: torch.device,
    progress: Progress,
) -> EncodedText:
    """Encode all captions and prompts and let the encoders go, or keep them where they are trained."""
    if trains_text(recipe):
        # A whole encoder in training has float32 weights, read as such: rounded ones would not come back.
        stack = TextStack.load(files, torch.float32 if isinstance(recipe.adapter, FullTraining) else dtype, device)
        return EncodedText(LiveText(stack), stack, None)
    frozen = FrozenText.build(files, [*captions, *texts_of(requests)], dtype, device, progress)
    return EncodedText(TextCache.build(frozen, captions, _unseen), None, encode_guidance(frozen, requests))


def encode_refiner_text(
    files: ModelFiles | None, requests: Sequence[PictureRequest], dtype: torch.dtype, device: torch.device
) -> list[Guidance]:
    """Encode the previews' prompts with the refiner's own encoder and let it go."""
    if files is None or not requests:
        return []
    frozen = FrozenText.build(files, texts_of(requests), dtype, device, _unseen)
    return encode_guidance(frozen, requests)


def _unseen(_done: int, _total: int) -> None:
    """Report no progress: there is nothing to wait for."""


def encode_pictures(
    recipe: Recipe,
    files: ModelFiles,
    pictures: TrainingPictures,
    dtype: torch.dtype,
    accelerator: Accelerator,
    progress: Progress,
) -> PictureEncoder:
    """Load the VAE and, where latents are cached, encode every picture; several processes share the work.

    Raises:
        DataError: a bucket is not a multiple of what the VAE and the U-Net need.
        RecipeError: caching was demanded and cannot be done.
    """
    device = accelerator.device
    vae = files.load_vae(vae_dtype(dtype, device)).to(device)
    wish = recipe.training.cache_latents
    if not pictures.has_finite_frames:
        if wish == "always":
            raise RecipeError(
                "training.cache_latents: got 'always', but data.crop=random cuts every picture anew each time. "
                "Set data.crops_per_picture=8 or data.crop=center, or training.cache_latents=auto"
            )
        return PictureEncoder(vae, None)
    wanted = pictures.frames()
    fits = latents_fit([frame for _, frame in wanted], files.geometry().vae_factor)
    if wish == "never" or (wish == "auto" and not _all_agree(accelerator, fits)):
        return PictureEncoder(vae, None)
    cache = LatentCache()
    cache.fill_together(vae, wanted, progress, accelerator)
    return PictureEncoder(vae, cache)


def _all_agree(accelerator: Accelerator, answer: bool) -> bool:
    """Whether every process says yes: each sees the machine's free memory at another moment."""
    if accelerator.num_processes == 1:
        return answer
    agreed: torch.Tensor = accelerator.reduce(torch.tensor(float(answer), device=accelerator.device), "sum")
    return int(agreed) == accelerator.num_processes


def require_fitting_buckets(pictures: TrainingPictures, multiple: int) -> None:
    """Stop where a bucket in use has a side the model cannot take.

    Raises:
        DataError: with the bucket and what to set.
    """
    for index in range(len(pictures.samples)):
        bucket = pictures.bucket_of(index)
        if any(side % multiple for side in bucket):
            raise DataError(
                f"bucket {bucket[0]} x {bucket[1]} (height x width): this model takes multiples of {multiple}. "
                f"Set data.buckets.kind=generated data.buckets.step={max(multiple, 8)}"
            )


def resolve_requests(recipe: Recipe, geometry: Geometry) -> list[PictureRequest]:
    """Return the previews' pictures with all sizes filled in."""
    default = (geometry.default_side, geometry.default_side)
    return [resolve_request(prompt, default, geometry.size_multiple) for prompt in recipe.preview.prompts]


def trained_groups(
    recipe: Recipe, unet: UNet2DConditionModel, stack: TextStack | None, key: DropoutKey
) -> dict[str, TrainedGroup]:
    """Put the recipe's adapters into the models, or set their own weights free; return the groups, U-Net first."""
    models: dict[Component, nn.Module | None] = {
        "unet": unet,
        "text_encoder": None if stack is None else stack.text_encoder,
        "text_encoder_2": None if stack is None else stack.text_encoder_2,
    }
    key.seed = recipe.seed
    groups: dict[str, TrainedGroup] = {}
    for component, model in models.items():
        section = getattr(recipe.adapter, component)
        if section is None:
            continue
        if model is None:
            raise RecipeError(f"adapter.{component}: this model has no such encoder. Leave it out")
        if isinstance(recipe.adapter, LoraAdapter):
            inject_lora(model, component, lora_settings(recipe.adapter, section), recipe.seed, key)
        else:
            free_weights(model)
        groups[component] = TrainedGroup(component, model, section.learning_rate, section.stop_after_steps)
    return groups


def lora_settings(adapter: LoraAdapter, section: UNetLora | TextLora) -> LoraSettings:
    """Return how LoRA is put into one model."""
    return LoraSettings(
        rank=section.rank,
        alpha=float(section.rank) if section.alpha is None else section.alpha,
        targets=section.targets,
        dropout=section.dropout,
        use_dora=adapter.use_dora,
        use_rslora=adapter.use_rslora,
    )


def free_weights(model: nn.Module) -> None:
    """Let all of a model's own parameters take gradients. They have to be float32, whatever the run's precision.

    bf16 weights would lose most of an update at usual learning rates; the autocast around the step still lets matrix
    products run in the run's precision.
    """
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters()), "load it in float32"
    model.requires_grad_(requires_grad=True)
    if isinstance(model, UNet2DConditionModel):
        model.to(memory_format=torch.channels_last)  # its convolutions are faster so: 1.2 times on a CPU (measured)
    for parameter in model.parameters():
        # Out of the mapped file, where weights lie at odd places, which is slow, and end with the file.
        parameter.data = parameter.data.clone()


def prepare_for_training(recipe: Recipe, unet: UNet2DConditionModel, stack: TextStack | None) -> None:
    """Switch training mode on where adapters are, and gradient checkpointing where the recipe asks for it.

    The base has no dropout of its own, so training mode changes only LoRA's and checkpointing's behaviour.
    """
    unet.train()
    encoders = [] if stack is None else [e for e in (stack.text_encoder, stack.text_encoder_2) if e is not None]
    for encoder in encoders:
        encoder.train()
    if recipe.training.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        for encoder in encoders:
            # transformers 5.2x renamed it; the older name warns there and is the only one before.
            enable = getattr(encoder, "activation_checkpointing_enable", encoder.gradient_checkpointing_enable)
            enable({"use_reentrant": False})
