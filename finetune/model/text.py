"""SDXL's text conditioning: two encoders, their penultimate layers joined, and bigG's pooled embedding.

Podell et al. 2023 (arXiv 2307.01952), section 2.1: "we concatenate the penultimate text encoder outputs along the
channel-axis", and the pooled embedding of the second encoder conditions the U-Net as a whole.

Longer texts than an encoder reads are not in the paper. As A1111, ComfyUI and others have it, each chunk of 75 tokens
is encoded alone, the states are joined along the tokens, and the first chunk gives the pooled embedding. Weights
multiply the states, as in A1111.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from finetune.model.files import ModelFiles
from finetune.model.text_reader import TextReader, TokenChunks
from finetune.model.text_tokens import CHUNK_TOKENS, Reading

TOKENS_READ = CHUNK_TOKENS + 2
"""How many tokens a CLIP encoder reads at once, begin and end included."""

_SMALLEST_COUNTED = 0.1
"""Weights below it set no wider bounds to what restores the mean."""


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
        assert all(part.prompt_mask is None for part in parts), "what is joined is one text each"
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
    reading: Reading = field(default_factory=Reading)
    """How texts are read."""

    @staticmethod
    def load(
        files: ModelFiles, dtype: torch.dtype, device: torch.device, reading: Reading | None = None
    ) -> "TextStack":
        """Load a model's encoders onto `device`."""
        first = files.load_text_encoder(dtype)
        return TextStack(
            tokenizer=files.load_tokenizer(),
            tokenizer_2=files.load_tokenizer_2(),
            text_encoder=None if first is None else first.to(device),
            text_encoder_2=files.load_text_encoder_2(dtype).to(device),
            zero_when_empty=zero_when_empty(files),
            reading=Reading() if reading is None else reading,
        )

    @cached_property
    def reader(self) -> TextReader:
        """What cuts texts into chunks."""
        return TextReader(self.tokenizer, self.tokenizer_2, self.reading)

    @property
    def device(self) -> torch.device:
        """Where the encoders are."""
        return self.text_encoder_2.device

    def encode(self, captions: Sequence[str]) -> TextEmbeddings:
        """Encode captions; gradients flow, through all chunks, if an encoder has parameters that take them.

        Text beyond what is read is cut off.
        """
        read = self.reader.read(captions)
        states, pooled = encode_second(self.text_encoder_2, [each.second for each in read])
        first = [each.first for each in read if each.first is not None]
        if self.text_encoder is not None and first:
            firsts = encode_first(self.text_encoder, first)
            states = [torch.cat(both, dim=-1) for both in zip(firsts, states, strict=True)]
        return TextEmbeddings.cat([TextEmbeddings(*each) for each in zip(states, pooled.split(1), strict=True)])

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


def encode_first(encoder: CLIPTextModel, texts: Sequence[TokenChunks]) -> list[Tensor]:
    """Return the first encoder's penultimate hidden states of each text, (1, 77 * chunks, width)."""
    hidden: Tensor = encoder(_ids(texts, encoder.device), output_hidden_states=True).hidden_states[-2]
    return _joined(hidden, texts)


def encode_second(encoder: CLIPTextModelWithProjection, texts: Sequence[TokenChunks]) -> tuple[list[Tensor], Tensor]:
    """Return the second encoder's penultimate hidden states of each text, (1, 77 * chunks, width).

    With them the pooled projections of the texts' first chunks, (B, width), which no weight touches.
    """
    output = encoder(_ids(texts, encoder.device), output_hidden_states=True)
    begins = [sum(len(text.ids) for text in texts[:index]) for index in range(len(texts))]
    return _joined(output.hidden_states[-2], texts), output.text_embeds[begins]


def weigh(states: Tensor, weights: Tensor) -> Tensor:
    """Multiply the hidden states of each token by its weight and restore each chunk's mean, as A1111 does.

    The mean is taken over a chunk's tokens and channels, begin, end and padding included. It can lie so near to zero
    that the quotient of the means says nothing; what restores it is held to what the weights themselves can have
    moved states that all have one sign by.

    Args:
        states: (chunks, 77, width).
        weights: (chunks, 77).
    """
    exact = states.to(torch.promote_types(states.dtype, torch.float32))
    weights = weights.to(exact)
    weighted = exact * weights[..., None]
    before, after = (each.mean(dim=(1, 2)) for each in (exact, weighted))
    bound = torch.maximum(weights.amax(dim=1), 1.0 / weights.clamp(min=_SMALLEST_COUNTED).amin(dim=1))
    factor = (before / after.masked_fill(after == 0.0, 1.0)).clamp(1.0 / bound, bound)
    return (weighted * factor[:, None, None]).to(states.dtype)


def _ids(texts: Sequence[TokenChunks], device: torch.device) -> Tensor:
    """Return the ids of all texts' chunks, (chunks, 77)."""
    return torch.tensor([chunk for text in texts for chunk in text.ids], device=device)


def _joined(hidden: Tensor, texts: Sequence[TokenChunks]) -> list[Tensor]:
    """Weigh each text's states, (chunks, 77, width) for all texts, and join them along the tokens."""
    joined = []
    for text, states in zip(texts, hidden.split([len(text.ids) for text in texts]), strict=True):
        weights = None if text.weights is None else torch.tensor(text.weights, dtype=torch.float64)
        weighted = states if weights is None else weigh(states, weights)
        joined.append(weighted.reshape(1, -1, weighted.shape[-1]))
    return joined


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
