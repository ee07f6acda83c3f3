"""The embedded model is the same at every load, and leaves the global generator alone."""

import torch

from finetune.model.miniature import Miniature
from finetune.model.open import open_model
from finetune.recipe.schema import MiniatureModel

_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")


def test_weights_are_the_same_at_every_load():
    files = open_model(MiniatureModel())
    for part in _PARTS:
        first, again = (getattr(files, f"load_{part}")(torch.float32).state_dict() for _ in range(2))
        assert all(torch.equal(again[name], value) for name, value in first.items())


def test_loading_draws_nothing_from_the_global_generator():
    state = torch.get_rng_state()
    Miniature().load_unet(torch.float32)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_refiner_is_an_sdxl_refiner():
    files = open_model(MiniatureModel(), refiner=True)
    assert files.load_text_encoder(torch.float32) is None
    assert files.load_tokenizer() is None
    unet = files.load_unet(torch.float32)
    pooled = files.load_text_encoder_2(torch.float32).config.projection_dim
    expected = pooled + 5 * unet.config.addition_time_embed_dim  # five time ids: the aesthetic score is the last
    assert unet.config.projection_class_embeddings_input_dim == expected
    base, refiner = Miniature().load_vae(torch.float32), files.load_vae(torch.float32)
    refined = refiner.state_dict()
    assert all(torch.equal(refined[name], value) for name, value in base.state_dict().items())
