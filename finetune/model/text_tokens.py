"""From a text to the tokens an encoder is given: weights read off, tokens counted out in chunks of 75.

One rule for training, previews and counting, without torch. A chunk ends before the word that would not fit whole, so
that no word is torn; only the last chunk that is read is filled to its end, as CLIP's own truncation fills its one, and
a word longer than a chunk is torn where the chunk ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Encoding, Tokenizer

from finetune.recipe.schema import Training
from imagesets.emphasis import Segment, parse_weights

CHUNK_TOKENS = 75
"""How many tokens of a text a CLIP encoder reads at once; begin and end make 77."""

MAX_CAPTION_TOKENS = 225
"""The largest limit a recipe can set."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How texts are read.

    Attributes:
        max_tokens: how many tokens at most, begin and end not counted; a multiple of 75.
        weighted: whether brackets are weights.
    """

    max_tokens: int = MAX_CAPTION_TOKENS
    weighted: bool = False

    def __post_init__(self) -> None:
        assert self.max_tokens > 0, "something is read"
        assert self.max_tokens % CHUNK_TOKENS == 0, "text is read in whole chunks"

    def describe_cut(self, num_texts: int, what: str, first: str) -> str:
        """Return a warning that texts are cut off.

        Args:
            num_texts: how many.
            what: they are, as 'caption'.
            first: which is the first of them.
        """
        are = f"{what} is" if num_texts == 1 else f"{what}s are"
        more = "" if self.max_tokens == MAX_CAPTION_TOKENS else ", or raise training.max_caption_tokens"
        return (
            f"{num_texts} {are} longer than the {self.max_tokens} tokens that are read, the first: {first}. What is "
            f"beyond is cut off; put first what matters{more}"
        )


@dataclass(frozen=True, slots=True)
class TextTokens:
    """A text as one tokenizer cuts it, without begin and end.

    Attributes:
        ids: of all tokens.
        weights: of all tokens; None where all are 1.
        chunks: (first, behind the last) token of each chunk that is read; at least one, which may be empty.
        segments: the pieces of the text that the tokens are of, in their order.
        encodings: what the tokenizer said of each piece.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...] | None
    chunks: tuple[tuple[int, int], ...]
    segments: tuple[Segment, ...]
    encodings: tuple[Encoding, ...]

    @property
    def text(self) -> str:
        """The text without weights' brackets."""
        return "".join(segment.text for segment in self.segments)

    @property
    def num_read(self) -> int:
        """How many tokens are read."""
        return self.chunks[-1][1]

    @property
    def num_cut_off(self) -> int:
        """How many tokens are not read."""
        return len(self.ids) - self.num_read

    def begin_of(self, token: int) -> int:
        """Return where a token begins in the text, weights' brackets not counted."""
        before = 0
        for segment, encoding in zip(self.segments, self.encodings, strict=True):
            if token < len(encoding.ids):
                return before + int(encoding.offsets[token][0])
            token -= len(encoding.ids)
            before += len(segment.text)
        return before


def reading_of(training: Training) -> Reading:
    """Return how a recipe has its texts read."""
    return Reading(training.max_caption_tokens, training.weighted_captions)


def read_texts(tokenizer: Tokenizer, texts: Sequence[str], reading: Reading) -> list[TextTokens]:
    """Cut texts into tokens and chunks.

    Pieces of different weight are cut apart, as A1111 does: `red(dress:1.2)` is two words.

    Args:
        tokenizer: without truncation and padding.
        texts: as they are written.
        reading: how they are read.
    """
    segments = [parse_weights(text) if reading.weighted else [Segment(text, 1.0)] for text in texts]
    flat = [segment.text for own in segments for segment in own]
    encodings = iter(tokenizer.encode_batch(flat, add_special_tokens=False))
    return [_read(own, [next(encodings) for _ in own], reading) for own in segments]


def _read(segments: Sequence[Segment], encodings: Sequence[Encoding], reading: Reading) -> TextTokens:
    ids = tuple(token for encoding in encodings for token in encoding.ids)
    weights = None
    if any(segment.weight != 1.0 for segment in segments):
        pairs = zip(segments, encodings, strict=True)
        weights = tuple(segment.weight for segment, encoding in pairs for _ in encoding.ids)
    chunks = [(0, len(ids))]
    if len(ids) > CHUNK_TOKENS:
        # Numbered over all pieces: a word of one is not the next one's.
        words = [(piece, word) for piece, encoding in enumerate(encodings) for word in encoding.word_ids]
        chunks = cut_into_chunks(words, reading.max_tokens // CHUNK_TOKENS)
    return TextTokens(ids, weights, tuple(chunks), tuple(segments), tuple(encodings))


def cut_into_chunks(words: Sequence[object], max_chunks: int) -> list[tuple[int, int]]:
    """Return (first, behind the last) token of each chunk, one at least and `max_chunks` at most.

    Args:
        words: what tells the word each token belongs to from its neighbours.
        max_chunks: how many chunks are read.
    """
    chunks = [_chunk(words, 0, is_last=max_chunks == 1)]
    while len(chunks) < max_chunks and chunks[-1][1] < len(words):
        chunks.append(_chunk(words, chunks[-1][1], is_last=len(chunks) == max_chunks - 1))
    return chunks


def _chunk(words: Sequence[object], begin: int, *, is_last: bool) -> tuple[int, int]:
    """Return the chunk that begins at a token: as many whole words as fit, or a part of one that is longer."""
    end = min(begin + CHUNK_TOKENS, len(words))
    if end == len(words) or is_last or words[end] != words[end - 1]:
        return begin, end
    whole = words.index(words[end], begin)
    return begin, whole if whole > begin else end
