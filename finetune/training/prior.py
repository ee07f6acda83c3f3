"""Prior preservation without pictures: the frozen base, the adapter switched off, teaches what is to stay as it was.

Ruiz et al. 2023 (arXiv 2208.12242, section 3.3) keep a class's look with pictures that the base has drawn of it. Here
the base is asked itself, at the same noisy latents, with the same caption but for its trigger word: no picture is
drawn, and no second copy of the weights is held.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from finetune.adapters.lora import lora_disabled
from finetune.model.prediction import predict
from finetune.model.text import TextEmbeddings
from finetune.training.pictures import PlannedSample
from imagesets.class_captions import class_caption


class TextSource(Protocol):
    """Where a batch's text embeddings come from: a cache, or encoders in memory."""

    def encode(self, captions: Sequence[str | None]) -> TextEmbeddings:
        """Return the embeddings of captions; None stands for a dropped one."""
        ...


@dataclass(frozen=True)
class PriorText:
    """What a batch's class captions say to the model in training and to its base.

    Attributes:
        student: encoded as the model in training has it; None where every class caption is the caption itself, about
            which the model has been asked already.
        teacher: encoded without adapters; the same where no encoder has one.
        weight: what the prior's error counts beside the loss.
    """

    student: TextEmbeddings | None
    teacher: TextEmbeddings
    weight: float

    def to(self, device: torch.device) -> "PriorText":
        """Return it on `device`."""
        student = None if self.student is None else self.student.to(device)
        return replace(self, student=student, teacher=self.teacher.to(device))


@dataclass(frozen=True)
class PriorPreservation:
    """Which captions the base is asked about.

    Attributes:
        weight: what the prior's error counts beside the loss.
        class_word: what a trigger word is replaced by; '' takes it out.
        encoders: those with adapters, which are switched off for the teacher.
    """

    weight: float
    class_word: str
    encoders: Sequence[nn.Module]

    def captions(self, planned: Sequence[PlannedSample]) -> list[str | None]:
        """Return the class captions of a batch; a dropped caption stays dropped."""
        return [
            None if item.caption is None else class_caption(item.caption, item.sample.trigger, self.class_word)
            for item in planned
        ]

    def text(self, source: TextSource, planned: Sequence[PlannedSample], own: TextEmbeddings) -> PriorText:
        """Encode the class captions of a batch for student and teacher.

        Args:
            source: encodes captions.
            planned: the batch.
            own: what its captions are encoded to.
        """
        captions = self.captions(planned)
        is_own = captions == [item.caption for item in planned]
        student = own if is_own else source.encode(captions)
        if self.encoders:
            with torch.no_grad(), lora_disabled(self.encoders):
                return PriorText(None if is_own else student, source.encode(captions), self.weight)
        return PriorText(None if is_own else student, student, self.weight)


def prior_error(
    unet: UNet2DConditionModel,
    noisy_latents: Tensor,
    timesteps: Tensor,
    prior: PriorText,
    add_time_ids: Tensor,
    model_pred: Tensor,
) -> Tensor:
    """Return each sample's mean squared distance from the base on its class caption, (B,).

    The base computes without gradients, adapters and their dropout. Where an adapter has learned nothing, both agree to
    the bit, and the gradient is zero. `model_pred` is what the model in training makes of the samples' own captions.
    """
    with torch.no_grad(), lora_disabled([unet]):
        teacher = predict(unet, noisy_latents, timesteps, prior.teacher, add_time_ids)
    student = model_pred
    if prior.student is not None:
        student = predict(unet, noisy_latents, timesteps, prior.student, add_time_ids)
    return (student.float() - teacher.float()).square().mean(dim=(1, 2, 3))
