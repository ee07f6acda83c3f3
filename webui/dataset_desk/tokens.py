"""How many tokens a caption has while it is written, by both tokenizers of a model, and what of it is not read."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from finetune.model.token_counts import TokenCounter

Model = Literal["sdxl", "miniature"]
LIMITS = (75, 150, 225)
"""What `training.max_caption_tokens` may be; with begin and end each chunk of 75 is one of 77."""

_SDXL = "stabilityai/stable-diffusion-xl-base-1.0"


@dataclass(frozen=True)
class Counted:
    """A caption as tokenizers cut it.

    Attributes:
        counts: of tokens, begin and end not counted, by tokenizer.
        limit: how many are read.
        chunks: the text that is read, in the chunks that the tokenizer makes which counts more; together with `beyond`
            it is the caption as it is trained.
        beyond: the end that is not read.
        origin: in words, whose tokenizers these are.
    """

    counts: dict[str, int]
    limit: int
    chunks: tuple[str, ...]
    beyond: str
    origin: str

    @property
    def line(self) -> str:
        """The counts in words."""
        different = set(self.counts.values())
        if len(different) == 1 and len(self.counts) > 1:
            counts = f"{different.pop()} tokens by both tokenizers"
        else:
            counts = ", ".join(f"{count} tokens by {name}" for name, count in self.counts.items())
        chunks = f", in {len(self.chunks)} chunks of 75" if len(self.chunks) > 1 else ""
        return f"{counts}; up to {self.limit} are read{chunks}"


def count_tokens(text: str, model: Model = "sdxl", limit: int = 225) -> Counted:
    """Count a caption's tokens as training does, which puts it on one line.

    Args:
        text: as it is written.
        model: whose tokenizers count.
        limit: one of `LIMITS`.

    Raises:
        CaptionError: it cannot be a caption.
    """
    from finetune.model.text_tokens import read_texts
    from imagesets.captions import clean_caption

    assert limit in LIMITS, "chosen from these"
    counter, caption = _counter(model, limit), clean_caption(text)
    cut = {name: read_texts(tokenizer, [caption], counter.reading)[0] for name, tokenizer in counter.tokenizers.items()}
    longest = max(cut.values(), key=lambda tokens: len(tokens.ids))
    begins = [longest.begin_of(begin) for begin, _ in longest.chunks[1:]]
    end = longest.begin_of(longest.num_read) if longest.num_cut_off else len(caption)
    places = [0, *begins, end]
    return Counted(
        counts={name: len(tokens.ids) for name, tokens in cut.items()},
        limit=limit,
        chunks=tuple(caption[first:behind] for first, behind in pairwise(places)),
        beyond=caption[end:],
        origin=counter.origin,
    )


@lru_cache(maxsize=len(LIMITS) * 2)
def _counter(model: Model, limit: int) -> "TokenCounter":
    """Open tokenizers as they are first asked for: reading CLIP's vocabulary takes a moment."""
    from finetune.model.text_tokens import Reading
    from finetune.model.token_counts import open_token_counter
    from finetune.recipe.schema import HubModel, MiniatureModel

    chosen = MiniatureModel(kind="miniature") if model == "miniature" else HubModel(kind="hub", id=_SDXL)
    return open_token_counter(chosen, Reading(limit))
