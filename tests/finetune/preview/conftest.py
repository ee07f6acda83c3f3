"""Everything a preview is drawn with, on the miniature, in few steps."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from finetune.model.files import sampling_scheduler
from finetune.model.miniature import Miniature
from finetune.model.text import TextStack
from finetune.preview.artist import Artist
from finetune.preview.encode import encode_guidance
from finetune.preview.requests import PictureRequest, resolve_request
from finetune.preview.sampling import BaseLatents, Guidance, Sampler
from finetune.recipe.preview import EnsembleRefiner, ImageToImageRefiner, PreviewPrompt

MakeRequest = Callable[..., PictureRequest]


@pytest.fixture
def make_request() -> MakeRequest:
    """Return a function that makes a request of 32 x 48 from a prompt's settings."""
    return lambda **settings: resolve_request(
        PreviewPrompt.model_validate({"prompt": "a photo of a cat", "size": (32, 48), **settings}), (64, 64), 16
    )


@dataclass(frozen=True)
class Studio:
    """The miniature's models in float32 on the CPU."""

    unet: UNet2DConditionModel
    refiner: UNet2DConditionModel
    vae: AutoencoderKL
    text: TextStack
    refiner_text: TextStack
    sampler: Sampler

    def guidance(self, request: PictureRequest) -> Guidance:
        """Encode a request for the base."""
        return encode_guidance(self.text, [request])[0]

    def base(self, request: PictureRequest) -> torch.Tensor:
        """Draw with the base, to the end."""
        return self._draw(request, None).finished

    def unfinished(self, request: PictureRequest, denoising_end: float) -> torch.Tensor | None:
        """Draw with the base and return what it hands over on the way."""
        return self._draw(request, denoising_end).unfinished

    def _draw(self, request: PictureRequest, denoising_end: float | None) -> BaseLatents:
        scheduler = sampling_scheduler(Miniature())
        return self.sampler.base_latents(
            self.unet, self.vae, scheduler, request, self.guidance(request), denoising_end=denoising_end
        )

    def refined(
        self, request: PictureRequest, latents: torch.Tensor, refiner: EnsembleRefiner | ImageToImageRefiner
    ) -> torch.Tensor:
        """Go on with the refiner."""
        guidance = encode_guidance(self.refiner_text, [request])[0]
        scheduler = sampling_scheduler(Miniature(refiner=True))
        return self.sampler.refined_latents(self.refiner, self.vae, scheduler, request, guidance, latents, refiner)


@pytest.fixture(scope="session")
def studio() -> Studio:
    """Return the models, loaded once: drawing changes none of them."""
    base, refiner = Miniature(), Miniature(refiner=True)
    cpu = torch.device("cpu")
    return Studio(
        unet=base.load_unet(torch.float32),
        refiner=refiner.load_unet(torch.float32),
        vae=base.load_vae(torch.float32),
        text=TextStack.load(base, torch.float32, cpu),
        refiner_text=TextStack.load(refiner, torch.float32, cpu),
        sampler=Sampler(num_inference_steps=5, guidance_scale=4.0, autocast=nullcontext),
    )


@pytest.fixture
def make_artist(studio: Studio) -> Callable[..., Artist]:
    """Return a function that makes an artist for requests, with a refiner or without."""

    def make(
        requests: list[PictureRequest], refiner: EnsembleRefiner | ImageToImageRefiner | None = None, live: bool = False
    ) -> Artist:
        return Artist(
            files=Miniature(),
            refiner_files=None if refiner is None else Miniature(refiner=True),
            refiner=refiner or EnsembleRefiner(),
            requests=requests,
            sampler=studio.sampler,
            vae=studio.vae,
            guidance=None if live else encode_guidance(studio.text, requests),
            text=studio.text if live else None,
            refiner_guidance=[] if refiner is None else encode_guidance(studio.refiner_text, requests),
            weight_dtype=torch.float32,
        )

    return make
