"""What training will do with a set, as far as an inspection has to know it.

The trainer fills it in; nothing is planned here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from imagesets.framing import Size


@dataclass(frozen=True)
class SourcePlan:
    """One source as training takes it.

    Attributes:
        label: its name, as samples have it.
        key: what it is called where it is set, as 'data.sources.0'.
        trigger: put before captions that do not have it.
        repeats: how often each of its pictures is seen in an epoch.
        caption_extension: the ending of caption files; None where captions do not come from files.
        place: where the source is described in a file that the key names; '' where the key itself does.
    """

    label: str
    key: str
    trigger: str = ""
    repeats: int = 1
    caption_extension: str | None = ".txt"
    place: str = ""

    def to_read(self, extension: str) -> str:
        """Say how caption files of another ending are read."""
        if self.place:
            return f"caption_extension = '{extension}' in {self.place}"
        return f"{self.key}.caption_extension={extension}"


@dataclass(frozen=True)
class TrainingPlan:
    """What training will do with the samples of a scan.

    Attributes:
        buckets: the (height, width) each sample is trained at, by index.
        sources: in their order.
        micro_batch_size: pictures in one forward pass.
        batches_per_step: forward passes in one optimizer step, over all processes.
        steps_per_epoch: as the trainer counts them.
        steps: optimizer steps of the whole run; None where nobody has said.
        crop: 'center' or 'random'.
        flip_probability: how often a picture is mirrored.
        background: the colour under see-through parts, as '#rrggbb'.
        stops_at_bad: whether a picture that cannot be used stops the run.
        max_tokens: how many tokens of a caption are read, begin and end not counted.
        weighted: whether brackets in captions are weights.
    """

    buckets: tuple[Size, ...]
    sources: tuple[SourcePlan, ...]
    micro_batch_size: int = 1
    batches_per_step: int = 1
    steps_per_epoch: int = 0
    steps: int | None = None
    crop: str = "center"
    flip_probability: float = 0.0
    background: str = "#ffffff"
    stops_at_bad: bool = True
    max_tokens: int = 225
    weighted: bool = False


@dataclass(frozen=True)
class TokenCount:
    """A caption as one tokenizer cuts it.

    Attributes:
        tokenizer: 'tokenizer' or 'tokenizer_2'.
        count: of tokens, begin and end not counted.
        beyond: the end of the caption that the encoder is not given; '' where it is given all.
    """

    tokenizer: str
    count: int
    beyond: str = ""


CountTokens = Callable[[Sequence[str]], Sequence[tuple[TokenCount, ...]]]
"""From captions to what every tokenizer of the model makes of each."""
