"""Training the VAE itself: how its reconstructions are judged. The training is `finetune.training.autoencoder`."""

from typing import Literal

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from finetune.recipe.base import NumberAboveZero, NumberOrZero, Settings


class VaeLoss(Settings):
    """What counts how much in a VAE's loss. Pixels are in [-1, 1]; every term is a mean, so sizes do not shift it."""

    l1: NumberOrZero = 1.0
    """How much the mean absolute error of the pixels counts."""
    l2: NumberOrZero = 1.0
    """How much the mean squared error of the pixels counts; it is what PSNR measures."""
    gradient: NumberOrZero = 0.5
    """How much the mean absolute error of the differences between neighbouring pixels counts; it keeps edges sharp."""
    chroma: NumberOrZero = 0.5
    """How much the mean absolute error of colour apart from brightness counts, over patches of 4 x 4 pixels; it keeps \
plain surfaces untinted."""
    kl: NumberOrZero = 1e-6
    """How strongly latents, before scaling, are pulled towards a standard normal; more makes them smoother and \
pictures blurrier."""
    decorrelation: NumberOrZero = 0.0
    """How strongly the latents' channels, before scaling, are pulled towards unit variance and no correlation. From \
scratch, 0.02 keeps channels from collapsing; SDXL's trained VAE has another variance and would be spoilt."""

    @model_validator(mode="after")
    def _pixels_count(self) -> "VaeLoss":
        if self.l1 == 0 and self.l2 == 0:
            raise PydanticCustomError("plain", "nothing asks for the right pixels: needs l1 or l2 above 0")
        return self


class VaeTraining(Settings):
    """The VAE is trained to give pictures back; the U-Net and the text encoders are not touched."""

    kind: Literal["vae"] = "vae"
    """Train the VAE."""
    parts: Literal["all", "decoder"] = "all"
    """all trains encoder and decoder; decoder leaves latents as they are, so that a U-Net that knows them, and every \
LoRA for it, goes on fitting."""
    learning_rate: NumberAboveZero = 1e-4
    """The size of the optimizer's steps, at its peak; from scratch about ten times that."""
    loss: VaeLoss = VaeLoss()
    """How reconstructions are judged."""
