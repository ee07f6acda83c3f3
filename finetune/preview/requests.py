"""What is to be drawn: one prompt with its seed, sizes and micro-conditioning, resolved against the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune.errors import RecipeError
from finetune.model.geometry import Geometry
from finetune.recipe.preview import PreviewPrompt

Size = tuple[int, int]


@dataclass(frozen=True)
class PictureRequest:
    """One picture. Sizes are (height, width) in pixels; the conditioning is what the model is told, not what is drawn.

    Attributes:
        prompt: what to draw.
        negative_prompt: what to steer away from.
        seed: of the noise it starts from.
        size: of the picture.
        original_size: the size the model is told its picture once had.
        crop_top_left: where the model is told it was cut.
        target_size: the size the model is told it draws.
        negative_original_size: the same for the side that is steered away from.
        negative_crop_top_left: the same.
        negative_target_size: the same.
    """

    prompt: str
    negative_prompt: str
    seed: int
    size: Size
    original_size: Size
    crop_top_left: Size
    target_size: Size
    negative_original_size: Size
    negative_crop_top_left: Size
    negative_target_size: Size

    def conditioning(self) -> dict[str, Any]:
        """Return the micro-conditioning as diffusers' SDXL pipelines take it."""
        return {
            "original_size": self.original_size,
            "crops_coords_top_left": self.crop_top_left,
            "target_size": self.target_size,
            "negative_original_size": self.negative_original_size,
            "negative_crops_coords_top_left": self.negative_crop_top_left,
            "negative_target_size": self.negative_target_size,
        }


def resolve_request(prompt: PreviewPrompt, default_size: Size, size_multiple: int) -> PictureRequest:
    """Fill in what a recipe leaves open: the size is the model's own, the conditioning says the size.

    Raises:
        RecipeError: the size is no multiple of what the model can draw.
    """
    size = prompt.size or default_size
    if any(side % size_multiple for side in size):
        near = tuple(max(size_multiple, round(side / size_multiple) * size_multiple) for side in size)
        raise RecipeError(
            f"preview size {size[0]} x {size[1]} (height x width): this model draws multiples of {size_multiple}. "
            f"Nearest: [{near[0]}, {near[1]}]"
        )
    original = prompt.original_size or size
    target = prompt.target_size or size
    return PictureRequest(
        prompt=prompt.prompt,
        negative_prompt=prompt.negative_prompt,
        seed=prompt.seed,
        size=size,
        original_size=original,
        crop_top_left=prompt.crop_top_left,
        target_size=target,
        negative_original_size=prompt.negative_original_size or original,
        negative_crop_top_left=prompt.negative_crop_top_left,
        negative_target_size=prompt.negative_target_size or target,
    )


def resolve_requests(prompts: Sequence[PreviewPrompt], geometry: Geometry) -> list[PictureRequest]:
    """Return the previews' pictures with all sizes filled in. Raises RecipeError as `resolve_request` does."""
    default = (geometry.default_side, geometry.default_side)
    return [resolve_request(prompt, default, geometry.size_multiple) for prompt in prompts]
