"""SDXL's text conditioning: two encoders, their penultimate layers joined, and bigG's pooled embedding.

Podell et al. 2023 (arXiv 2307.01952), section 2.1: "we concatenate the penultimate text encoder outputs along the
channel-axis", and the pooled embedding of the second encoder conditions the U-Net as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from finetune.model.files import ModelFiles

TOKENS_READ = 77
"""How many tokens a CLIP encoder reads at once, begin and end included."""


@dataclass(frozen=True)
class TextEmbeddings:
    """What the U-Net sees of a batch of captions.

    Attributes:
        prompt_embeds: (B, 77 * chunks, width of the first + width of the second encoder); a refiner has the second's
            only. A shorter caption's end is filled with zeros.
        pooled_prompt_embeds: (B, projection width of the second encoder), of the first chunk.
        prompt_mask: (B, 77 * chunks), bool: which tokens are a caption's own; None where all captions have as many.
    """

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor
    prompt_mask: Tensor | None = None

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "TextEmbeddings":
        """Return the embeddings on `device`, in `dtype` if one is given."""
        return TextEmbeddings(
            self.prompt_embeds.to(device=device, dtype=dtype),
            self.pooled_prompt_embeds.to(device=device, dtype=dtype),
            None if self.prompt_mask is None else self.prompt_mask.to(device),
        )

    def zeros_like(self) -> "TextEmbeddings":
        """Return embeddings of one chunk that are all zero."""
        return TextEmbeddings(
            torch.zeros_like(self.prompt_embeds[:, :TOKENS_READ]), torch.zeros_like(self.pooled_prompt_embeds)
        )

    @staticmethod
    def cat(parts: "Sequence[TextEmbeddings]") -> "TextEmbeddings":
        """Join the embeddings of several captions, each with its batch dimension and no mask, into one batch."""
        pooled = torch.cat([part.pooled_prompt_embeds for part in parts])
        lengths = [part.prompt_embeds.shape[1] for part in parts for _ in part.prompt_embeds]
        if len(set(lengths)) == 1:
            return TextEmbeddings(torch.cat([part.prompt_embeds for part in parts]), pooled)
        longest = max(lengths)
        padded = [pad(part.prompt_embeds, (0, 0, 0, longest - part.prompt_embeds.shape[1])) for part in parts]
        mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
        return TextEmbeddings(torch.cat(padded), pooled, mask.to(pooled.device))


@dataclass
class TextStack:
    """Tokenizers and encoders of one model. A refiner has only the second of each."""

    tokenizer: CLIPTokenizer | None
    tokenizer_2: CLIPTokenizer
    text_encoder: CLIPTextModel | None
    text_encoder_2: CLIPTextModelWithProjection
    zero_when_empty: bool
    """Whether an empty text is encoded as zeros, as SDXL's base was trained with dropped captions."""

    @staticmethod
    def load(files: ModelFiles, dtype: torch.dtype, device: torch.device) -> "TextStack":
        """Load a model's encoders onto `device`."""
        first = files.load_text_encoder(dtype)
        return TextStack(
            tokenizer=files.load_tokenizer(),
            tokenizer_2=files.load_tokenizer_2(),
            text_encoder=None if first is None else first.to(device),
            text_encoder_2=files.load_text_encoder_2(dtype).to(device),
            zero_when_empty=zero_when_empty(files),
        )

    @property
    def device(self) -> torch.device:
        """Where the encoders are."""
        return self.text_encoder_2.device

    def encode(self, captions: Sequence[str]) -> TextEmbeddings:
        """Encode captions; gradients flow if an encoder has parameters that take them.

        Text beyond 77 tokens, begin and end included, is cut off.
        """
        hidden: list[Tensor] = []
        if self.text_encoder is not None and self.tokenizer is not None:
            hidden.append(encode_first(self.text_encoder, self.tokenizer, captions))
        hidden_2, pooled = encode_second(self.text_encoder_2, self.tokenizer_2, captions)
        return TextEmbeddings(torch.cat([*hidden, hidden_2], dim=-1), pooled)

    @torch.no_grad()
    def encode_frozen(self, captions: Sequence[str]) -> list[TextEmbeddings]:
        """Encode captions one by one without gradients: an embedding never depends on its neighbours."""
        return [self.encode([caption]) for caption in captions]

    def empty(self) -> TextEmbeddings:
        """Return what stands for 'no caption': zeros on the base, the encoded empty text on a refiner."""
        embeddings = self.encode_frozen([""])[0]
        return embeddings.zeros_like() if self.zero_when_empty else embeddings


class FrozenEncoder(Protocol):
    """What encodes texts without gradients: a `TextStack`, or a cache, which holds what one has given."""

    def encode_frozen(self, captions: Sequence[str]) -> list[TextEmbeddings]:
        """Return each caption's embeddings."""
        ...

    def empty(self) -> TextEmbeddings:
        """Return what stands for 'no caption'."""
        ...


def zero_when_empty(files: ModelFiles) -> bool:
    """Whether a model's 'no caption' is zeros rather than the encoded empty text."""
    return bool(files.pipeline_config().get("force_zeros_for_empty_prompt", True))


def encode_first(encoder: CLIPTextModel, tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Return the first encoder's penultimate hidden states, (B, 77, width)."""
    ids = tokenize(tokenizer, captions).to(encoder.device)
    hidden: Tensor = encoder(ids, output_hidden_states=True).hidden_states[-2]
    return hidden


def encode_second(
    encoder: CLIPTextModelWithProjection, tokenizer: CLIPTokenizer, captions: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Return the second encoder's penultimate hidden states, (B, 77, width), and its pooled projection, (B, width)."""
    ids = tokenize(tokenizer, captions).to(encoder.device)
    output = encoder(ids, output_hidden_states=True)
    return output.hidden_states[-2], output.text_embeds


def longer_than_read(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> list[int]:
    """Return the indices of captions with more tokens than an encoder reads, begin and end included."""
    counts = [len(ids) for ids in tokenizer(list(captions)).input_ids] if captions else []
    return [index for index, count in enumerate(counts) if count > tokenizer.model_max_length]


def tokenize(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Return the token ids of captions, (B, 77), padded and cut to CLIP's length."""
    ids: Tensor = tokenizer(
        list(captions),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return ids
