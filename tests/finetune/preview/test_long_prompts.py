"""Prompts of different lengths guide together as each does alone, and those of one chunk are not touched."""

from dataclasses import replace

import pytest
import torch

from finetune.drawing.generate import generate
from finetune.model.miniature import Miniature
from finetune.model.text_tokens import Reading
from finetune.preview.encode import encode_guidance
from finetune.recipe.preview import EnsembleRefiner, ImageToImageRefiner

ONE, TWO, THREE = ("a red star on a blue ground, " * times + "a cat" for times in (1, 8, 20))
CHUNKS = {"": 1, ONE: 1, TWO: 2, THREE: 3}


@pytest.mark.parametrize(("prompt", "negative"), [(TWO, ""), (ONE, THREE), (THREE, TWO), (TWO, TWO)])
def test_a_prompt_and_its_negative_guide_as_each_does_alone(studio, make_request, prompt, negative):
    """Each prediction in float64, the pair as diffusers' pipelines batch them against one without any repetition."""
    guidance = studio.guidance(make_request(prompt=prompt, negative_prompt=negative))
    assert guidance.positive.prompt_embeds.shape[1] == 77 * CHUNKS[prompt]
    assert guidance.negative.prompt_embeds.shape[1] == 77 * CHUNKS[negative]
    arguments = {name: value.double() for name, value in guidance.arguments(torch.device("cpu")).items()}
    unet = Miniature().load_unet(torch.float32).double()
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    time_ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]], dtype=torch.float64)

    def predict(states, pooled):
        count = len(states)
        added = {"text_embeds": pooled, "time_ids": time_ids.repeat(count, 1)}
        with torch.no_grad():
            return unet(latents.repeat(count, 1, 1, 1), 500, states, added_cond_kwargs=added).sample

    both = predict(
        torch.cat([arguments["negative_prompt_embeds"], arguments["prompt_embeds"]]),
        torch.cat([arguments["negative_pooled_prompt_embeds"], arguments["pooled_prompt_embeds"]]),
    )
    for prediction, text in zip(both, (guidance.negative, guidance.positive), strict=True):
        alone = predict(text.prompt_embeds.double(), text.pooled_prompt_embeds.double())
        torch.testing.assert_close(prediction[None], alone, rtol=0, atol=1e-10)
    assert (both[0] - both[1]).abs().max() > 1e-4 or prompt == negative


def test_prompts_of_one_length_go_to_the_pipeline_as_they_are(studio, make_request):
    for prompt, negative in [(ONE, ""), (ONE, "blue"), (TWO, TWO + " blue")]:
        guidance = studio.guidance(make_request(prompt=prompt, negative_prompt=negative))
        arguments = guidance.arguments(torch.device("cpu"))
        assert arguments["prompt_embeds"].data_ptr() == guidance.positive.prompt_embeds.data_ptr()
        assert arguments["negative_prompt_embeds"].data_ptr() == guidance.negative.prompt_embeds.data_ptr()


def test_the_end_of_a_long_prompt_is_drawn(studio, make_request):
    first, other = (studio.base(make_request(prompt=THREE + end)) for end in ("", ", and a dog"))
    assert (first - other).abs().max() > 1e-3
    negative = studio.base(make_request(prompt=ONE, negative_prompt=THREE))
    assert (negative - studio.base(make_request(prompt=ONE))).abs().max() > 1e-3


@pytest.mark.parametrize("refiner", [EnsembleRefiner(), ImageToImageRefiner()])
def test_a_refiner_is_given_long_prompts_too(studio, make_request, refiner):
    latents = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    drawn = [studio.refined(make_request(prompt=prompt), latents, refiner) for prompt in (THREE, THREE + ", and a dog")]
    assert (drawn[0] - drawn[1]).abs().max() > 1e-4


def test_generating_reads_as_much_as_the_recipe_says_and_weighs_where_it_says(make_recipe, tmp_path):
    prompt = {"prompt": f"a (blue:1.6) star, {THREE}", "size": [32, 32], "seed": 1}
    settings = {"preview.prompts": [prompt], "preview.num_inference_steps": 1}
    drawn, warnings = {}, []
    for name, own in {
        "plain": {},
        "again": {},
        "less": {"training.max_caption_tokens": 75},
        "weighted": {"training.weighted_captions": True},
    }.items():
        recipe = make_recipe({**settings, **own})
        paths = generate(recipe, tmp_path / name, loras=(), warn=warnings.append)
        drawn[name] = paths[1].read_bytes()
    assert drawn["plain"] == drawn["again"]
    assert len(set(drawn.values())) == 3
    [warning] = warnings
    assert warning.startswith("1 prompt is longer than the 75 tokens that are read, the first: “a (blue:1.6) star")


def test_guidance_follows_the_stacks_reading(studio, make_request):
    request = make_request(prompt=THREE)
    less = replace(studio.text, reading=Reading(75))
    [read], [cut] = encode_guidance(studio.text, [request]), encode_guidance(less, [request])
    assert cut.positive.prompt_embeds.shape == (1, 77, 160)
    assert read.positive.prompt_embeds.shape == (1, 231, 160)
