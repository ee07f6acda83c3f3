"""The pictures drawn at intervals while training. Drawing them is the work of `finetune.preview`."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from finetune.recipe.base import (
    AnySize,
    Count,
    DefaultKind,
    Flag,
    FractionAboveZero,
    FractionInside,
    Needs,
    NumberOrZero,
    Offset,
    PictureSize,
    Score,
    Seed,
    Settings,
    Shorthand,
    Text,
    before,
)


class PreviewPrompt(Settings):
    """One picture that is drawn each time, always from the same noise. A plain text stands for its prompt."""

    prompt: Text
    """What to draw."""
    negative_prompt: Text = ""
    """What to steer away from."""
    seed: Seed = 0
    """The noise it starts from; the same each time, so that only the training shows."""
    size: PictureSize | None = None
    """[height, width] of the picture in pixels; null is the model's own size."""
    original_size: AnySize | None = None
    """The [height, width] the model is told its picture once had; null is `size`. Small values give soft pictures."""
    crop_top_left: Offset = (0, 0)
    """The [top, left] the model is told its picture was cut at; [0, 0] gives well-centred pictures."""
    target_size: AnySize | None = None
    """The [height, width] the model is told it draws; null is `size`."""
    negative_original_size: AnySize | None = None
    """original_size on the side that is steered away from; null is the same as there."""
    negative_crop_top_left: Offset = (0, 0)
    """crop_top_left on the side that is steered away from."""
    negative_target_size: AnySize | None = None
    """target_size on the side that is steered away from; null is the same as there."""


class EnsembleRefiner(Settings):
    """Base and refiner as an ensemble of experts: the base draws the noisy part, the refiner finishes its latents."""

    kind: Literal["ensemble"] = "ensemble"
    """Let the refiner take over the base's unfinished latents."""
    switch_at: FractionInside = 0.8
    """The share of the way that the base draws; the refiner was trained for the last fifth."""
    aesthetic_score: Score = 6.0
    """The aesthetic score the refiner is told to reach."""
    negative_aesthetic_score: Score = 2.5
    """The aesthetic score it is told to steer away from."""


class ImageToImageRefiner(Settings):
    """The refiner draws over the base's finished picture."""

    kind: Literal["image_to_image"] = "image_to_image"
    """Let the refiner draw over the finished picture."""
    strength: FractionAboveZero = 0.3
    """How much noise is put on the finished picture first; more changes more."""
    aesthetic_score: Score = 6.0
    """The aesthetic score the refiner is told to reach."""
    negative_aesthetic_score: Score = 2.5
    """The aesthetic score it is told to steer away from."""


PreviewRefiner = Annotated[
    EnsembleRefiner | ImageToImageRefiner,
    Field(discriminator="kind"),
    before(DefaultKind("ensemble")),
    DefaultKind("ensemble"),
]
"""How the refiner is used: ensemble or image_to_image."""


_TEXT_IS_A_PROMPT = Shorthand("prompt")


class Preview(Settings):
    """Pictures drawn with the same prompts and seeds at intervals: by the base, and by base and refiner."""

    every_steps: Count | None = 250
    """Draw after every so many optimizer steps, and at the end; null: not in between."""
    at_start: Flag = True
    """Draw once before training too, with the adapter off: what the base makes of the prompts."""
    prompts: tuple[
        Annotated[
            PreviewPrompt,
            BeforeValidator(_TEXT_IS_A_PROMPT, json_schema_input_type=str | PreviewPrompt),
            _TEXT_IS_A_PROMPT,
            Needs("a prompt in quotes, or a mapping with prompt, seed, size and so on"),
        ],
        ...,
    ] = ()
    """What to draw, a text or a mapping each; none draws nothing."""
    num_inference_steps: Count = 30
    """How many denoising steps a picture takes."""
    guidance_scale: NumberOrZero = 5.0
    """How strongly a picture follows its prompt; SDXL likes 5 to 8."""
    refiner: PreviewRefiner = EnsembleRefiner()
    """How the refiner is used, where the recipe has one."""

    @model_validator(mode="after")
    def _refiner_draws_something(self) -> "Preview":
        if isinstance(self.refiner, ImageToImageRefiner) and int(self.num_inference_steps * self.refiner.strength) < 1:
            raise PydanticCustomError(
                "plain",
                f"refiner.strength {self.refiner.strength:g} of num_inference_steps {self.num_inference_steps} "
                "is less than one step, needs at least one: raise either",
            )
        return self
