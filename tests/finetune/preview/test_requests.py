"""What a recipe leaves open in a prompt, and sizes the model cannot draw."""

import pytest

from finetune.errors import RecipeError
from finetune.preview.requests import resolve_request
from finetune.recipe.preview import PreviewPrompt


def test_open_sizes_follow_the_pictures_and_the_pictures_the_models():
    request = resolve_request(PreviewPrompt(prompt="a cat"), (1024, 896), 64)
    assert request.size == request.original_size == request.target_size == (1024, 896)
    assert request.negative_original_size == request.negative_target_size == (1024, 896)
    assert request.crop_top_left == request.negative_crop_top_left == (0, 0)


def test_every_size_can_be_set_apart_from_the_others():
    given = {
        "size": (768, 1344),
        "original_size": (1366, 911),
        "crop_top_left": (5, 7),
        "target_size": (1024, 1000),
        "negative_original_size": (256, 255),
        "negative_crop_top_left": (11, 13),
        "negative_target_size": (512, 511),
    }
    request = resolve_request(PreviewPrompt.model_validate({"prompt": "a cat", **given}), (1024, 1024), 64)
    assert request.conditioning() == {
        "original_size": (1366, 911),
        "crops_coords_top_left": (5, 7),
        "target_size": (1024, 1000),
        "negative_original_size": (256, 255),
        "negative_crops_coords_top_left": (11, 13),
        "negative_target_size": (512, 511),
    }
    assert request.size == (768, 1344)


def test_negative_sizes_follow_the_positive_ones():
    prompt = PreviewPrompt(prompt="a cat", original_size=(300, 200), target_size=(512, 640))
    request = resolve_request(prompt, (1024, 1024), 64)
    assert (request.negative_original_size, request.negative_target_size) == ((300, 200), (512, 640))


@pytest.mark.parametrize(
    ("size", "multiple", "nearest"),
    [((1000, 1024), 64, "[1024, 1024]"), ((1024, 40), 64, "[1024, 64]"), ((8, 24), 16, "[16, 32]")],
)
def test_a_size_the_model_cannot_draw_is_refused_with_the_nearest(size, multiple, nearest):
    prompt = PreviewPrompt.model_construct(**{**PreviewPrompt(prompt="a cat").model_dump(), "size": size})
    with pytest.raises(RecipeError) as caught:
        resolve_request(prompt, (1024, 1024), multiple)
    message = str(caught.value)
    assert message.startswith(f"preview size {size[0]} x {size[1]} (height x width): ")
    assert f"multiples of {multiple}. Nearest: {nearest}" in message
