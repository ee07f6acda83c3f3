"""One picture through base and refiner, in latents, with diffusers' own pipelines.

Texts come in already encoded, so the encoders need not be in memory, and latents go out, so that the VAE can decode in
a precision of its own. Two ways to use the refiner (Podell et al. 2023, section 2.5, and diffusers' `denoising_end`):
as an ensemble of experts it takes the base's unfinished latents over; image to image it noises the finished ones again.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor

from finetune.model.text import TextEmbeddings
from finetune.preview.requests import PictureRequest
from finetune.recipe.preview import EnsembleRefiner, ImageToImageRefiner

Autocast = Callable[[], AbstractContextManager[Any]]


def _nothing() -> None:
    """Do nothing after a step."""


@dataclass(frozen=True)
class Guidance:
    """A prompt and its negative, encoded by the model that will draw."""

    positive: TextEmbeddings
    negative: TextEmbeddings

    def arguments(self, device: torch.device) -> dict[str, Tensor]:
        """Return the embeddings as diffusers' SDXL pipelines take them, in float32.

        The pipelines want both of one length and take no mask. Where lengths differ, each is repeated until they are
        one, as ComfyUI does: attention to tokens that are all there k times is attention to them once, so that each
        prompt guides as it does alone, and as it was trained.
        """
        positive, negative = self.positive.to(device, torch.float32), self.negative.to(device, torch.float32)
        length = math.lcm(positive.prompt_embeds.shape[1], negative.prompt_embeds.shape[1])
        return {
            "prompt_embeds": _repeated(positive.prompt_embeds, length),
            "pooled_prompt_embeds": positive.pooled_prompt_embeds,
            "negative_prompt_embeds": _repeated(negative.prompt_embeds, length),
            "negative_pooled_prompt_embeds": negative.pooled_prompt_embeds,
        }


@dataclass(frozen=True)
class BaseLatents:
    """What the base has drawn, (1, 4, h, w), scaled.

    Attributes:
        finished: after the last step.
        unfinished: where the refiner takes over, or None where nothing was to be handed over.
    """

    finished: Tensor
    unfinished: Tensor | None


@dataclass(frozen=True)
class Sampler:
    """How pictures are drawn, the same for all of them.

    Attributes:
        num_inference_steps: denoising steps from pure noise to a picture.
        guidance_scale: weight of classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598).
        autocast: the precision the U-Nets run in; latents and embeddings stay float32.
        on_step: called after every denoising step; what it raises ends the drawing.
    """

    num_inference_steps: int
    guidance_scale: float
    autocast: Autocast
    on_step: Callable[[], None] = _nothing

    @torch.no_grad()
    def base_latents(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        scheduler: EulerDiscreteScheduler,
        request: PictureRequest,
        guidance: Guidance,
        denoising_end: float | None = None,
    ) -> BaseLatents:
        """Draw latents with the base, finished and, where `denoising_end` is given, as they stood there.

        The unfinished ones are what the pipeline itself returns for that `denoising_end`: its steps are the first of
        the same schedule, so one pass gives both.
        """
        pipeline = StableDiffusionXLPipeline(
            vae=vae, text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None, unet=unet,
            scheduler=EulerDiscreteScheduler.from_config(scheduler.config), add_watermarker=False,
        )  # fmt: skip
        pipeline.set_progress_bar_config(disable=True)
        unfinished: list[Tensor] = []

        def keep(
            pipe: StableDiffusionXLPipeline, _index: int, timestep: Tensor, values: dict[str, Any]
        ) -> dict[str, Any]:
            if denoising_end is not None and timestep >= _cutoff(pipe.scheduler, denoising_end):
                unfinished[:] = [values["latents"]]
            self.on_step()
            return {}

        arguments = {
            **guidance.arguments(unet.device),
            **request.conditioning(),
            "height": request.size[0],
            "width": request.size[1],
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            "output_type": "latent",
        }
        with self.autocast():
            finished = pipeline(**arguments, generator=_noise_of(request), callback_on_step_end=keep).images
            if denoising_end is not None and not unfinished:  # before the first step: only the noise is handed over
                unfinished = [pipeline(**arguments, generator=_noise_of(request), denoising_end=denoising_end).images]
        return BaseLatents(finished, unfinished[0] if unfinished else None)

    @torch.no_grad()
    def refined_latents(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        scheduler: EulerDiscreteScheduler,
        request: PictureRequest,
        guidance: Guidance,
        latents: Tensor,
        refiner: EnsembleRefiner | ImageToImageRefiner,
    ) -> Tensor:
        """Go on from the base's latents with the refiner's U-Net, (1, 4, h, w), scaled."""
        pipeline = StableDiffusionXLImg2ImgPipeline(
            vae=vae, text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None, unet=unet,
            scheduler=EulerDiscreteScheduler.from_config(scheduler.config),
            requires_aesthetics_score=True, add_watermarker=False,
        )  # fmt: skip
        pipeline.set_progress_bar_config(disable=True)
        share = (
            {"denoising_start": refiner.switch_at}
            if isinstance(refiner, EnsembleRefiner)
            else {"strength": refiner.strength}
        )

        def step(
            _pipe: StableDiffusionXLImg2ImgPipeline, _index: int, _timestep: Tensor, _values: dict[str, Any]
        ) -> dict[str, Any]:
            self.on_step()
            return {}

        with self.autocast():
            return pipeline(
                **guidance.arguments(unet.device),
                **request.conditioning(),
                **share,
                image=latents.to(unet.device),
                aesthetic_score=refiner.aesthetic_score,
                negative_aesthetic_score=refiner.negative_aesthetic_score,
                num_inference_steps=self.num_inference_steps,
                guidance_scale=self.guidance_scale,
                generator=_noise_of(request),
                callback_on_step_end=step,
                output_type="latent",
            ).images


def _repeated(prompt_embeds: Tensor, length: int) -> Tensor:
    """Repeat a prompt's tokens, (1, tokens, width), until there are `length`, a multiple of their number."""
    times = length // prompt_embeds.shape[1]
    return prompt_embeds if times == 1 else prompt_embeds.repeat(1, times, 1)


def _cutoff(scheduler: EulerDiscreteScheduler, denoising_end: float) -> int:
    """Return the lowest timestep the base still draws, as diffusers' pipeline rounds it."""
    num_train_timesteps: int = scheduler.config.num_train_timesteps
    return round(num_train_timesteps - denoising_end * num_train_timesteps)


def base_share(refiner: EnsembleRefiner | ImageToImageRefiner | None) -> float | None:
    """Return where the base stops when a refiner takes its unfinished latents over, or None where it finishes."""
    return refiner.switch_at if isinstance(refiner, EnsembleRefiner) else None


def _noise_of(request: PictureRequest) -> torch.Generator:
    """Return the generator a request's noise is drawn from, afresh."""
    return torch.Generator().manual_seed(request.seed)
