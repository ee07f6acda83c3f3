"""Texts encoded once by encoders that are not trained: one encoder is in memory at a time, and none afterwards."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from finetune.model.files import ModelFiles
from finetune.model.text import TextEmbeddings, encode_first, encode_second

Progress = Callable[[int, int], None]
"""(done, total), called as encoding goes on; it may raise to stop it."""


class FrozenText:
    """The embeddings of a known set of texts, on the CPU. It answers as a `TextStack` does for these texts."""

    def __init__(self, embeddings: dict[str, TextEmbeddings], *, zero_when_empty: bool) -> None:
        self._embeddings = embeddings
        self._zero_when_empty = zero_when_empty

    @staticmethod
    def build(
        files: ModelFiles, texts: Iterable[str], dtype: torch.dtype, device: torch.device, progress: Progress
    ) -> "FrozenText":
        """Encode every distinct text with the first encoder, then with the second, and keep the results in `dtype`.

        Each text is encoded alone: an embedding never depends on its neighbours.
        """
        zero_when_empty = bool(files.pipeline_config().get("force_zeros_for_empty_prompt", True))
        distinct = sorted(set(texts) if zero_when_empty else {*texts, ""})
        first = _encode_by_first(files, distinct, dtype, device, progress)
        encoder, tokenizer = files.load_text_encoder_2(dtype), files.load_tokenizer_2()
        encoder = encoder.to(device, text_dtype(dtype, device))
        embeddings = {}
        with torch.no_grad():
            for done, text in enumerate(distinct):
                progress(len(first) + done, len(first) + len(distinct))
                hidden, pooled = encode_second(encoder, tokenizer, [text])
                joined = torch.cat([*first.get(text, []), hidden.cpu()], dim=-1)
                embeddings[text] = TextEmbeddings(joined, pooled).to("cpu", dtype)
        progress(len(first) + len(distinct), len(first) + len(distinct))
        return FrozenText(embeddings, zero_when_empty=zero_when_empty)

    def encode_frozen(self, captions: Sequence[str]) -> list[TextEmbeddings]:
        """Return the embeddings of texts that were encoded."""
        return [self._embeddings[caption] for caption in captions]

    def empty(self) -> TextEmbeddings:
        """Return what stands for 'no caption': zeros on the base, the encoded empty text on a refiner."""
        if not self._zero_when_empty:
            return self._embeddings[""]
        return next(iter(self._embeddings.values())).zeros_like()


def text_dtype(weight_dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the precision frozen encoders compute in: float32 on a CPU, the run's own elsewhere.

    Few CPUs multiply in bf16; where they do not, it is emulated and takes three times as long (measured).
    """
    return torch.float32 if device.type == "cpu" else weight_dtype


def _encode_by_first(
    files: ModelFiles, texts: Sequence[str], dtype: torch.dtype, device: torch.device, progress: Progress
) -> dict[str, list[Tensor]]:
    """Return each text's hidden states by the first encoder, or nothing where the model has none."""
    encoder, tokenizer = files.load_text_encoder(dtype), files.load_tokenizer()
    if encoder is None or tokenizer is None:
        return {}
    encoder = encoder.to(device, text_dtype(dtype, device))
    hidden = {}
    with torch.no_grad():
        for done, text in enumerate(texts):
            progress(done, 2 * len(texts))
            hidden[text] = [encode_first(encoder, tokenizer, [text]).cpu()]
    return hidden
