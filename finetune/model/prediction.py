"""One forward pass of SDXL's U-Net with all that it is told."""

from diffusers import UNet2DConditionModel
from torch import Tensor

from finetune.model.text import TextEmbeddings


def predict(
    unet: UNet2DConditionModel, noisy_latents: Tensor, timesteps: Tensor, text: TextEmbeddings, add_time_ids: Tensor
) -> Tensor:
    """Return what the U-Net makes of noisy latents, (B, 4, h, w), given text and sizes."""
    prediction: Tensor = unet(
        noisy_latents,
        timesteps,
        encoder_hidden_states=text.prompt_embeds,
        encoder_attention_mask=text.prompt_mask,  # None where all texts are of one length
        added_cond_kwargs={
            "text_embeds": text.pooled_prompt_embeds,
            "time_ids": add_time_ids,  # (B, 6), or a refiner's (B, 5), float32
        },
        return_dict=False,
    )[0]
    return prediction
