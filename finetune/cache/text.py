"""Embeddings of captions and prompts, from the cache, and how it is filled. Encoders in training are not cached."""

from collections.abc import Iterable, Sequence

import torch

from finetune.cache.keys import TextAddress
from finetune.cache.known import KnownValues
from finetune.cache.values import Store
from finetune.model.files import ModelFiles
from finetune.model.frozen_text import Progress, encode_texts
from finetune.model.text import TextEmbeddings, zero_when_empty
from finetune.model.text_reader import TextReader


class TextCache(KnownValues[str]):
    """The embeddings of a known set of texts by one model's frozen encoders, on the CPU, with that of 'no caption'.

    It answers as a `TextStack` does for these texts.

    Attributes:
        cut_off: the texts that are not read to their end.

    Args:
        store: where they are kept.
        address: what they depend on beside the text.
        texts: every text that can be asked for; 'no caption' is thought of here.
        reader: how the model reads them.
        files: the model.
        dtype: the precision of the weights and of what is kept.
        device: where encoders compute.
    """

    def __init__(
        self,
        store: Store,
        address: TextAddress,
        texts: Iterable[str],
        reader: TextReader,
        files: ModelFiles,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._zero_when_empty = zero_when_empty(files)
        distinct = sorted(set(texts) if self._zero_when_empty else {*texts, ""})
        self.cut_off: set[str] = set()
        self._keys: dict[str, str] = {}
        for text, given in zip(distinct, reader.read_each(distinct), strict=True):
            self._keys[text] = address.key(given.facts())
            if given.num_cut_off:
                self.cut_off.add(text)
        super().__init__(store, {key: text for text, key in self._keys.items()})
        self._reader = reader
        self._files = files
        self._dtype = dtype
        self._device = device
        self._empty: TextEmbeddings | None = None

    def encode(self, captions: Sequence[str | None]) -> TextEmbeddings:
        """Return the embeddings of a batch; None stands for a dropped caption."""
        return TextEmbeddings.cat([self.empty() if caption is None else self._get(caption) for caption in captions])

    def encode_frozen(self, captions: Sequence[str]) -> list[TextEmbeddings]:
        """Return each text's embeddings."""
        return [self._get(caption) for caption in captions]

    def empty(self) -> TextEmbeddings:
        """Return what stands for 'no caption': zeros on the base, the encoded empty text on a refiner."""
        if self._empty is None:
            known = self._get(next(iter(self._wanted.values())) if self._zero_when_empty else "")
            self._empty = known.zeros_like() if self._zero_when_empty else known
        return self._empty

    def _get(self, text: str) -> TextEmbeddings:
        assert text in self._keys, "only what is known beforehand is asked for"
        value = self._value(self._keys[text])
        return TextEmbeddings(value["prompt_embeds"], value["pooled_prompt_embeds"])

    def _encode(self, keys: Sequence[str], progress: Progress) -> None:
        """Encode what is missing; progress counts each text once an encoder."""
        missing = [key for key in keys if key not in self._store]
        passes = 2 if self._files.has_first_encoder() else 1
        total, found = passes * len(keys), passes * (len(keys) - len(missing))
        if missing:
            texts = {self._wanted[key]: key for key in missing}
            encoded = encode_texts(
                self._files,
                self._reader,
                list(texts),
                self._dtype,
                self._device,
                lambda done, _: progress(found + done, total),
            )
            for text, embeddings in encoded:
                value = {
                    "prompt_embeds": embeddings.prompt_embeds,
                    "pooled_prompt_embeds": embeddings.pooled_prompt_embeds,
                }
                self._store.put(texts[text], value)
        progress(total, total)
