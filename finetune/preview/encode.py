"""Encode the prompts of previews, once where the encoders are frozen."""

from collections.abc import Callable, Collection, Sequence

import torch

from finetune.model.text import FrozenEncoder, TextEmbeddings
from finetune.model.text_tokens import Reading
from finetune.preview.requests import PictureRequest
from finetune.preview.sampling import Guidance


def texts_of(requests: Sequence[PictureRequest]) -> list[str]:
    """Return every text that drawing these requests encodes."""
    prompts = [request.prompt for request in requests]
    return prompts + [request.negative_prompt for request in requests if request.negative_prompt]


def warn_of_long_prompts(
    reading: Reading, cut_off: Collection[str], requests: Sequence[PictureRequest], warn: Callable[[str], None]
) -> None:
    """Say which prompts are among the texts that lose their end."""
    long = [text for text in dict.fromkeys(texts_of(requests)) if text in cut_off]
    if long:
        warn(reading.describe_cut(len(long), "prompt", f"“{long[0][:40]}…”"))


@torch.no_grad()
def encode_guidance(encoder: FrozenEncoder, requests: Sequence[PictureRequest]) -> list[Guidance]:
    """Encode each request's prompt and negative prompt with the model that will draw it, and keep them on the CPU."""
    return [
        Guidance(
            encoder.encode_frozen([request.prompt])[0].to("cpu"), _negative(encoder, request.negative_prompt).to("cpu")
        )
        for request in requests
    ]


def _negative(encoder: FrozenEncoder, negative_prompt: str) -> TextEmbeddings:
    return encoder.encode_frozen([negative_prompt])[0] if negative_prompt else encoder.empty()
