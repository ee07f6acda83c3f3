"""The sizes pictures are cut to, as a recipe names them. Which of them a picture takes is the work of `imagesets`."""

from typing import Annotated, Literal

from annotated_types import MinLen
from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from finetune.recipe.base import AspectRatio, Count, DefaultKind, Needs, PictureSize, Resolution, Settings, before


class PaperBuckets(Settings):
    """The 40 sizes SDXL itself was trained on (arXiv 2307.01952, appendix I)."""

    kind: Literal["paper"] = "paper"
    """Cut pictures to the 40 sizes of the SDXL paper."""


class SymmetricBuckets(Settings):
    """The paper's sizes and the one mirrored size it lacks: 41, so portrait and landscape are treated alike."""

    kind: Literal["symmetric"] = "symmetric"
    """Cut pictures to the paper's sizes and the mirrored one it lacks."""


class GeneratedBuckets(Settings):
    """Sizes of about one area, worked out from a resolution, a step and the longest aspect allowed."""

    kind: Literal["generated"] = "generated"
    """Cut pictures to sizes worked out from the three settings below."""
    resolution: Resolution = 1024
    """The side, in pixels, of the square whose area every size keeps to."""
    step: Count = 64
    """Heights and widths are multiples of this many pixels. SDXL's VAE divides sizes by 8: use a multiple of 8."""
    max_aspect: AspectRatio = 4.0
    """The longest side divided by the shortest, at most."""

    @field_validator("step")
    @classmethod
    def _step_fits(cls, step: int, info: ValidationInfo) -> int:
        resolution = info.data.get("resolution")
        if resolution is not None and step > resolution:
            raise PydanticCustomError("plain", f"got {step}, needs at most the resolution ({resolution})")
        return step


class ListedBuckets(Settings):
    """Sizes you name yourself."""

    kind: Literal["listed"] = "listed"
    """Cut pictures to the sizes listed below."""
    sizes: Annotated[tuple[PictureSize, ...], MinLen(1), Needs("a list of at least one size, [height, width]")]
    """[height, width] of each size in pixels, multiples of 8 (of 64 for the best use of SDXL)."""


Buckets = Annotated[
    PaperBuckets | SymmetricBuckets | GeneratedBuckets | ListedBuckets,
    Field(discriminator="kind"),
    before(DefaultKind("paper")),
    DefaultKind("paper"),
]
"""The sizes pictures are cut to: paper, symmetric, generated or listed."""
