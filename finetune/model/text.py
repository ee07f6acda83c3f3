"""SDXL's text conditioning: two encoders, their penultimate layers joined, and bigG's pooled embedding.

Podell et al. 2023 (arXiv 2307.01952), section 2.1: "we concatenate the penultimate text encoder outputs along the
channel-axis", and the pooled embedding of the second encoder conditions the U-Net as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from finetune.model.files import ModelFiles


@dataclass(frozen=True)
class TextEmbeddings:
    """What the U-Net sees of a batch of captions.

    Attributes:
        prompt_embeds: (B, 77, width of the first + width of the second encoder); a refiner has the second's only.
        pooled_prompt_embeds: (B, projection width of the second encoder).
    """

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor

    def __getitem__(self, index: int) -> "TextEmbeddings":
        """Return the embeddings of one caption, still with its batch dimension."""
        return TextEmbeddings(self.prompt_embeds[index : index + 1], self.pooled_prompt_embeds[index : index + 1])

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "TextEmbeddings":
        """Return the embeddings on `device`, in `dtype` if one is given."""
        return TextEmbeddings(
            self.prompt_embeds.to(device=device, dtype=dtype), self.pooled_prompt_embeds.to(device=device, dtype=dtype)
        )

    @staticmethod
    def cat(parts: "Sequence[TextEmbeddings]") -> "TextEmbeddings":
        """Join the embeddings of several captions into one batch."""
        return TextEmbeddings(
            torch.cat([part.prompt_embeds for part in parts]), torch.cat([part.pooled_prompt_embeds for part in parts])
        )


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
            zero_when_empty=bool(files.pipeline_config().get("force_zeros_for_empty_prompt", True)),
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
            ids = tokenize(self.tokenizer, captions).to(self.device)
            hidden.append(self.text_encoder(ids, output_hidden_states=True).hidden_states[-2])
        ids_2 = tokenize(self.tokenizer_2, captions).to(self.device)
        output = self.text_encoder_2(ids_2, output_hidden_states=True)
        hidden.append(output.hidden_states[-2])
        return TextEmbeddings(torch.cat(hidden, dim=-1), output.text_embeds)

    @torch.no_grad()
    def encode_frozen(self, captions: Sequence[str]) -> list[TextEmbeddings]:
        """Encode captions one by one without gradients: an embedding never depends on its neighbours."""
        return [self.encode([caption]) for caption in captions]

    def empty(self) -> TextEmbeddings:
        """Return what stands for 'no caption': zeros on the base, the encoded empty text on a refiner."""
        embeddings = self.encode_frozen([""])[0]
        if not self.zero_when_empty:
            return embeddings
        return TextEmbeddings(
            torch.zeros_like(embeddings.prompt_embeds), torch.zeros_like(embeddings.pooled_prompt_embeds)
        )


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
