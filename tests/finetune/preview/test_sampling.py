"""Drawing: repeatable, as diffusers draws, told the sizes the request says, and refined in two ways."""

from dataclasses import replace

import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

from finetune.model.files import sampling_scheduler
from finetune.model.miniature import Miniature
from finetune.recipe.preview import EnsembleRefiner, ImageToImageRefiner


def _time_ids(unet, draw):
    """Return the conditioning each call of the U-Net was given."""
    seen = []

    def note(_module, _inputs, keywords):
        seen.append(keywords["added_cond_kwargs"]["time_ids"].clone())

    handle = unet.register_forward_pre_hook(note, with_kwargs=True)
    draw()
    handle.remove()
    return seen


def test_the_same_request_is_drawn_bit_for_bit_and_another_seed_is_not(studio, make_request):
    first = studio.base(make_request(seed=3))
    torch.manual_seed(99)
    assert first.shape == (1, 4, 8, 12)  # height 32, width 48, factor 4
    assert torch.equal(studio.base(make_request(seed=3)), first)
    for other in (
        make_request(seed=4),
        make_request(seed=3, prompt="a dog"),
        make_request(seed=3, negative_prompt="x"),
    ):
        assert (studio.base(other) - first).abs().max() > 1e-3


def _pipeline(studio, request, denoising_end=None):
    """Draw with diffusers' pipeline from the texts themselves."""
    pipeline = StableDiffusionXLPipeline(
        vae=studio.vae,
        unet=studio.unet,
        text_encoder=studio.text.text_encoder,
        text_encoder_2=studio.text.text_encoder_2,
        tokenizer=studio.text.tokenizer,
        tokenizer_2=studio.text.tokenizer_2,
        scheduler=EulerDiscreteScheduler.from_config(sampling_scheduler(Miniature()).config),
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        height=request.size[0],
        width=request.size[1],
        num_inference_steps=5,
        guidance_scale=4.0,
        denoising_end=denoising_end,
        generator=torch.Generator().manual_seed(request.seed),
        output_type="latent",
        **request.conditioning(),
    ).images


def test_it_draws_what_diffusers_own_pipeline_draws(studio, make_request):
    request = make_request(seed=5, original_size=(100, 90), crop_top_left=(3, 4), negative_prompt="blue")
    assert torch.equal(studio.base(request), _pipeline(studio, request))


@pytest.mark.parametrize("denoising_end", [0.05, 0.25, 0.4, 0.6, 0.8, 0.99])
def test_it_hands_over_what_diffusers_own_pipeline_hands_over(studio, make_request, denoising_end):
    request = make_request(seed=5, negative_prompt="blue")
    assert torch.equal(studio.unfinished(request, denoising_end), _pipeline(studio, request, denoising_end))


def test_the_unet_is_told_the_requests_sizes(studio, make_request):
    request = make_request(
        original_size=(1366, 911),
        crop_top_left=(5, 7),
        target_size=(1024, 1000),
        negative_original_size=(256, 255),
        negative_crop_top_left=(11, 13),
        negative_target_size=(512, 511),
    )
    seen = _time_ids(studio.unet, lambda: studio.base(request))
    assert len(seen) == 5
    for time_ids in seen:  # the negative side first, as diffusers has it
        assert time_ids.tolist() == [[256, 255, 11, 13, 512, 511], [1366, 911, 5, 7, 1024, 1000]]


def test_sizes_change_the_picture(studio, make_request):
    studio = replace(studio, sampler=replace(studio.sampler, num_inference_steps=2))
    plain = studio.base(make_request())
    for settings in (
        {"original_size": (256, 256)},
        {"crop_top_left": (400, 0)},
        {"target_size": (512, 1024)},
        {"negative_original_size": (256, 256)},
        {"negative_crop_top_left": (400, 0)},
        {"negative_target_size": (512, 1024)},
    ):
        assert (studio.base(make_request(**settings)) - plain).abs().max() > 1e-4, settings


@pytest.mark.parametrize("refiner", [EnsembleRefiner(switch_at=0.6), ImageToImageRefiner(strength=0.5)])
def test_both_ways_of_refining_change_the_picture_and_repeat(studio, make_request, refiner):
    request = make_request(seed=2)
    finished = studio.base(request)
    handed_over = studio.unfinished(request, 0.6) if refiner.kind == "ensemble" else finished
    refined = studio.refined(request, handed_over, refiner)
    assert refined.shape == finished.shape
    assert refined.isfinite().all()
    assert (refined - finished).abs().max() > 1e-2
    assert torch.equal(studio.refined(request, handed_over, refiner), refined)


def test_the_refiner_takes_the_rest_of_the_steps(studio, make_request):
    """Of five steps the base draws three; what it hands over is still noisy, and the refiner does the other two."""
    request = make_request()
    unfinished = studio.unfinished(request, 0.6)
    assert (unfinished - studio.base(request)).abs().max() > 1e-2
    seen = _time_ids(studio.refiner, lambda: studio.refined(request, unfinished, EnsembleRefiner(switch_at=0.6)))
    assert len(seen) == 2


def test_image_to_image_takes_the_strengths_share_of_the_steps(studio, make_request):
    request = make_request()
    latents = studio.base(request)
    for strength, steps in ((0.4, 2), (1.0, 5)):
        refiner = ImageToImageRefiner(strength=strength)
        seen = _time_ids(studio.refiner, lambda refiner=refiner: studio.refined(request, latents, refiner))
        assert len(seen) == steps


def test_the_refiner_is_told_size_crop_and_score(studio, make_request):
    request = make_request(original_size=(1366, 911), crop_top_left=(5, 7), negative_original_size=(256, 255))
    refiner = ImageToImageRefiner(strength=0.4, aesthetic_score=6.5, negative_aesthetic_score=1.25)
    seen = _time_ids(studio.refiner, lambda: studio.refined(request, studio.base(request), refiner))
    for time_ids in seen:
        assert time_ids.tolist() == [[256, 255, 0, 0, 1.25], [1366, 911, 5, 7, 6.5]]
