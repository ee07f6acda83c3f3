"""Encode the prompts of previews, once where the encoders are frozen."""

from collections.abc import Sequence

import torch

from finetune.model.text import TextEmbeddings, TextStack
from finetune.preview.requests import PictureRequest
from finetune.preview.sampling import Guidance


@torch.no_grad()
def encode_guidance(stack: TextStack, requests: Sequence[PictureRequest]) -> list[Guidance]:
    """Encode each request's prompt and negative prompt with the model that will draw it, and keep them on the CPU."""
    return [
        Guidance(
            stack.encode_frozen([request.prompt])[0].to("cpu"), _negative(stack, request.negative_prompt).to("cpu")
        )
        for request in requests
    ]


def _negative(stack: TextStack, negative_prompt: str) -> TextEmbeddings:
    return stack.encode_frozen([negative_prompt])[0] if negative_prompt else stack.empty()
