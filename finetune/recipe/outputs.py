"""What a run leaves behind: checkpoints, exported files, tracked figures. Writing them is others' work."""

from typing import Annotated, Literal

from annotated_types import MinLen
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from finetune.recipe.base import Count, DefaultKind, Needs, Settings, Text, before

ExportFormat = Literal["kohya", "diffusers", "peft"]


class Checkpoint(Settings):
    """When the whole state is saved, so that a run can go on after any interruption."""

    every_steps: Count | None = 250
    """Save after every so many optimizer steps, and at the end; null: only at the end."""
    keep: Count = 2
    """How many checkpoints are kept; an older one goes only after a newer one is whole."""


class Export(Settings):
    """The files other programs load, written at the end of training."""

    formats: Annotated[
        tuple[ExportFormat, ...], MinLen(1), Needs("a list of one or more of kohya, diffusers, peft")
    ] = ("kohya",)
    """Of a LoRA: kohya is one file for ComfyUI, A1111, Forge, InvokeAI, kohya and diffusers; diffusers and peft are \
those libraries' own forms. A whole model is always a folder in diffusers' layout."""
    precision: Literal["fp16", "bf16", "fp32"] = "fp16"
    """The number format of the exported weights; fp16 is what most programs expect."""
    title: Text = ""
    """The title in the file's metadata; empty takes the recipe's name."""
    author: Text = ""
    """The author in the file's metadata; empty leaves it out."""
    license: Text = ""
    """The licence in the file's metadata; empty leaves it out."""
    metadata: Literal["full", "minimal"] = "full"
    """full writes tag counts, folder names and the recipe into the file; minimal only what programs need to load it. \
Tag counts and folder names tell others what was trained on."""

    @field_validator("formats")
    @classmethod
    def _each_format_once(cls, formats: tuple[ExportFormat, ...]) -> tuple[ExportFormat, ...]:
        repeated = sorted({name for name in formats if formats.count(name) > 1})
        if repeated:
            raise PydanticCustomError("plain", f"names {', '.join(repeated)} more than once, needs each at most once")
        return formats


class NoTracking(Settings):
    """Figures go to the run's own events only."""

    kind: Literal["none"] = "none"
    """Track nowhere else."""


class TensorBoardTracking(Settings):
    """Figures and previews go to TensorBoard too, in the run's folder."""

    kind: Literal["tensorboard"] = "tensorboard"
    """Track in TensorBoard (`pip install "atelier[tensorboard]"`)."""


Tracking = Annotated[
    NoTracking | TensorBoardTracking,
    Field(discriminator="kind"),
    before(DefaultKind("none")),
    DefaultKind("none"),
]
"""Where figures go besides the run folder: none or tensorboard."""
