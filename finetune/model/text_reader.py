"""Texts as the encoders of one model are given them: chunks of 77 token ids, begin and end and padding included."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer
from transformers import CLIPTokenizer

from finetune.model.files import ModelFiles
from finetune.model.text_tokens import CHUNK_TOKENS, Reading, TextTokens, read_texts

_TEXTS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class TokenChunks:
    """A text as one encoder is given it.

    Attributes:
        ids: of each chunk, 77 tokens.
        weights: of each chunk's tokens; None where all are 1.
    """

    ids: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[float, ...], ...] | None


@dataclass(frozen=True, slots=True)
class EncoderTexts:
    """A text as both encoders are given it, in equally many chunks.

    Attributes:
        first: None where the model has no first encoder.
        second: what the second is given.
        num_cut_off: tokens that are not read.
    """

    first: TokenChunks | None
    second: TokenChunks
    num_cut_off: int

    def facts(self) -> tuple[object, ...]:
        """Return what tells this text's embeddings from those of other texts, as plain data."""
        return tuple(None if each is None else (each.ids, each.weights) for each in (self.first, self.second))


class TextReader:
    """Reads texts for one model.

    Args:
        tokenizer: the first encoder's, or None where there is none.
        tokenizer_2: the second's.
        reading: how texts are read.
    """

    def __init__(self, tokenizer: CLIPTokenizer | None, tokenizer_2: CLIPTokenizer, reading: Reading) -> None:
        self.reading = reading
        self._first = None if tokenizer is None else _Framer(tokenizer, reading)
        self._second = _Framer(tokenizer_2, reading)
        self._apart = None if self._first is None else self._first.tells_apart(self._second)

    @staticmethod
    def load(files: ModelFiles, reading: Reading) -> "TextReader":
        """Load a model's tokenizers."""
        return TextReader(files.load_tokenizer(), files.load_tokenizer_2(), reading)

    def read(self, texts: Sequence[str]) -> list[EncoderTexts]:
        """Return what the encoders are given of each text.

        The tokenizers may count differently ('!' pads SDXL's second, so '!!!' is one token of the first and three of
        the second): then the shorter one's text goes on with chunks that are empty.
        """
        second = self._second.read(texts)
        return [self._together(*both) for both in zip(self._read_first(texts, second), second, strict=True)]

    def _read_first(self, texts: Sequence[str], second: Sequence[TextTokens]) -> Sequence[TextTokens | None]:
        """Cut texts by the first tokenizer: SDXL's two differ in '!' alone, and cutting is what takes the time."""
        if self._first is None:
            return [None] * len(texts)
        if self._apart is None:
            return self._first.read(texts)
        first = list(second)
        other = [index for index, tokens in enumerate(second) if any(sign in tokens.text for sign in self._apart)]
        for index, tokens in zip(other, self._first.read([texts[index] for index in other]), strict=True):
            first[index] = tokens
        return first

    def read_each(self, texts: Sequence[str]) -> Iterator[EncoderTexts]:
        """Give what the encoders are given of each text, of a few texts at a time in memory."""
        for begin in range(0, len(texts), _TEXTS_AT_ONCE):
            yield from self.read(texts[begin : begin + _TEXTS_AT_ONCE])

    def cut_off(self, texts: Sequence[str]) -> set[str]:
        """Return the texts that are not read to their end."""
        return {text for text, given in zip(texts, self.read_each(texts), strict=True) if given.num_cut_off}

    def _together(self, first: TextTokens | None, second: TextTokens) -> EncoderTexts:
        num_chunks = max(len(each.chunks) for each in (first, second) if each is not None)
        return EncoderTexts(
            None if self._first is None or first is None else self._first.framed(first, num_chunks),
            self._second.framed(second, num_chunks),
            max(each.num_cut_off for each in (first, second) if each is not None),
        )


class _Framer:
    """One tokenizer, and how it frames a chunk."""

    def __init__(self, tokenizer: CLIPTokenizer, reading: Reading) -> None:
        # A copy: whoever calls a tokenizer sets how it cuts and pads from then on.
        self._tokenizer: Tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._begin: int = tokenizer.bos_token_id
        self._end: int = tokenizer.eos_token_id
        self._pad: int = tokenizer.pad_token_id
        self._reading = reading

    def tells_apart(self, other: "_Framer") -> set[str] | None:
        """Return the signs that the two tokenizers cut differently; None where they differ in more than signs."""
        own, others = (json.loads(each._tokenizer.to_str()) for each in (self, other))
        if any(own[part] != others[part] for part in ("normalizer", "pre_tokenizer", "model")):
            return None
        own, others = ({token["content"]: token for token in each["added_tokens"]} for each in (own, others))
        return {sign for sign in {*own, *others} if own.get(sign) != others.get(sign)}

    def read(self, texts: Sequence[str]) -> list[TextTokens]:
        """Cut texts into tokens and chunks."""
        return read_texts(self._tokenizer, texts, self._reading)

    def framed(self, tokens: TextTokens, num_chunks: int) -> TokenChunks:
        """Return a text's chunks between begin and end, padded to 77 and to `num_chunks`."""
        empty = (tokens.num_read, tokens.num_read)
        chunks = [*tokens.chunks, *[empty] * (num_chunks - len(tokens.chunks))]
        ids = tuple(
            (self._begin, *tokens.ids[first:last], self._end, *[self._pad] * (CHUNK_TOKENS - last + first))
            for first, last in chunks
        )
        if tokens.weights is None or all(weight == 1.0 for weight in tokens.weights[: tokens.num_read]):
            return TokenChunks(ids, None)
        weights = tuple(
            (1.0, *tokens.weights[first:last], 1.0, *[1.0] * (CHUNK_TOKENS - last + first)) for first, last in chunks
        )
        return TokenChunks(ids, weights)
