"""Teaching a U-Net to denoise: a micro batch is collated, then goes through the training step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor

from finetune.model.vae import LatentMoments
from finetune.training.batch import TrainBatch
from finetune.training.objective import Objective
from finetune.training.pictures import PlannedSample
from finetune.training.prior import PriorPreservation, TextSource
from finetune.training.randomness import BatchGenerator
from finetune.training.step import StepOutput, train_step
from imagesets.framing import Frame
from imagesets.scan import Sample


class MaskSource(Protocol):
    """Where masks come from: a cache, or the pictures' files."""

    def __call__(self, sample: Sample, frame: Frame) -> Tensor | None:
        """Return what each place of a picture's latents counts, (1, h, w) in float32; None where all count whole."""
        ...


@dataclass
class Denoising:
    """The task of a LoRA or of full training: predict the noise in latents of pictures, given their captions.

    Attributes:
        unet: the model, with or without adapters.
        noise_scheduler: the noise levels it is trained at.
        objective: what it predicts and how errors are weighted.
        latents: the VAE's moments of a picture in a frame.
        text: the captions' embeddings.
        masks: what parts of a picture count.
        vae_scaling_factor: what latents are multiplied by (0.13025 in SDXL).
        is_refiner: whether the U-Net is told an aesthetic score in place of the target size.
        prior: how the base is asked what is to stay; None where it is not.
    """

    unet: UNet2DConditionModel
    noise_scheduler: DDPMScheduler
    objective: Objective
    latents: Callable[[Sample, Frame], LatentMoments]
    text: TextSource
    masks: MaskSource
    vae_scaling_factor: float
    is_refiner: bool = False
    prior: PriorPreservation | None = None

    def forward(
        self, planned: Sequence[PlannedSample], generator: BatchGenerator, weight: float, device: torch.device
    ) -> StepOutput:
        """Collate one micro batch and take it through the step, each sample counting `weight` times its own."""
        batch = self.make_batch(planned, generator, weight).to(device)
        return train_step(self.unet, self.noise_scheduler, self.objective, batch, generator)

    def make_batch(self, planned: Sequence[PlannedSample], generator: BatchGenerator, weight: float) -> TrainBatch:
        """Collate one micro batch: latents drawn from their posteriors, captions encoded, time ids off the frames."""
        moments = [self.latents(item.sample, item.frame) for item in planned]
        noise = generator.normal("posterior", moments[0].mean.shape)  # (B, 4, h, w)
        text = self.text.encode([item.caption for item in planned])
        return TrainBatch(
            latents=torch.stack([
                moment.sample(drawn, self.vae_scaling_factor) for moment, drawn in zip(moments, noise, strict=True)
            ]),
            prompt_embeds=text.prompt_embeds,
            pooled_prompt_embeds=text.pooled_prompt_embeds,
            add_time_ids=torch.tensor([self.time_ids(item) for item in planned], dtype=torch.float32),
            sample_weights=torch.tensor([weight * item.sample.loss_weight for item in planned]),
            sample_names=tuple(item.sample.name for item in planned),
            prompt_mask=text.prompt_mask,
            loss_mask=joined_masks([self.masks(item.sample, item.frame) for item in planned], moments[0].mean),
            prior=None if self.prior is None else self.prior.text(self.text, planned, text),
        )  # fmt: skip

    def time_ids(self, item: PlannedSample) -> tuple[float, ...]:
        """Return what the U-Net is told of one picture's sizes and cut, in the order of diffusers' pipelines.

        Six numbers for a base (Podell et al. 2023, section 2.2). A refiner has the original size, the cut and the
        aesthetic score: five, as diffusers' StableDiffusionXLImg2ImgPipeline with `requires_aesthetics_score`.
        """
        if not self.is_refiner:
            return item.frame.add_time_ids()
        return (*item.frame.original_size, *item.frame.crop_top_left, item.sample.aesthetic_score)

    @property
    def has_prior(self) -> bool:
        """Whether its steps also measure how far the model is from its base."""
        return self.prior is not None

    def facts(self) -> dict[str, str]:
        """Return the prediction type: whoever exports a checkpoint needs it."""
        return {"prediction_type": self.objective.prediction_type}


def joined_masks(masks: Sequence[Tensor | None], latents: Tensor) -> Tensor | None:
    """Return a batch's masks, (B, 1, h, w), with ones for a picture without; None where no picture has one."""
    if all(mask is None for mask in masks):
        return None
    whole = torch.ones(1, *latents.shape[1:])
    return torch.stack([whole if mask is None else mask for mask in masks])
