"""Pictures without a run: a recipe's model, a LoRA file or none, the recipe's prompts."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from finetune.adapters.lora import apply_lora, lora_scaled
from finetune.adapters.weights import COMPONENTS
from finetune.errors import RecipeError
from finetune.export.keys import UNetLayout
from finetune.export.read import read_lora
from finetune.model.files import ModelFiles
from finetune.model.open import open_model
from finetune.model.precision import autocast_for, choose_device, choose_dtype
from finetune.model.text import TextStack
from finetune.model.text_tokens import Reading, reading_of
from finetune.model.vae import vae_dtype
from finetune.preview.artist import Artist
from finetune.preview.encode import encode_guidance, texts_of, warn_of_long_prompts
from finetune.preview.requests import PictureRequest, resolve_request
from finetune.preview.sampling import Guidance, Sampler
from finetune.recipe import Recipe


def generate(
    recipe: Recipe,
    folder: Path,
    *,
    lora: Path | None,
    strength: float,
    warn: Callable[[str], None],
    trained: bool = False,
) -> list[Path]:
    """Draw the recipe's prompts into `folder`, without the LoRA, with it, and refined.

    Args:
        recipe: its model, refiner, preview settings and prompts are used.
        folder: where the pictures go; pictures of the same names are replaced.
        lora: a file in kohya's or diffusers' form, or None to draw with the base alone.
        strength: what the LoRA's change is multiplied by.
        warn: told what is drawn otherwise than it may be meant.
        trained: whether the model itself is what was trained.

    Returns:
        The files, the wall first.
    """
    device = choose_device(recipe.training.device)
    dtype = choose_dtype(recipe.training.precision, device)
    objective = recipe.training.objective
    files = open_model(recipe.model)
    refiner_files = None if recipe.refiner is None else open_model(recipe.refiner, refiner=True)
    geometry = files.geometry()
    side = geometry.default_side
    requests = [resolve_request(prompt, (side, side), geometry.size_multiple) for prompt in recipe.preview.prompts]
    reading = reading_of(recipe.training)
    refiner_guidance = _refiner_guidance(refiner_files, requests, reading, dtype, device)
    stack = TextStack.load(files, dtype, device, reading)
    warn_of_long_prompts(reading, stack.reader.cut_off(texts_of(requests)), requests, warn)
    unet = files.load_unet(dtype).to(device)
    vae = files.load_vae(vae_dtype(dtype, device)).to(device)
    adapted = [] if lora is None else _attach(lora, unet, stack, UNetLayout.from_config(geometry.unet_config))
    artist = Artist(
        files=files,
        refiner_files=refiner_files,
        refiner=recipe.preview.refiner,
        requests=requests,
        sampler=Sampler(recipe.preview.num_inference_steps, recipe.preview.guidance_scale, autocast_for(dtype, device)),
        vae=vae,
        guidance=None,
        text=stack,
        refiner_guidance=refiner_guidance,
        weight_dtype=dtype,
        prediction_type=None if objective.prediction_type == "auto" else objective.prediction_type,
        zero_terminal_snr=objective.zero_terminal_snr,
        has_adapter=not trained,
    )
    with lora_scaled(adapted, strength):
        return artist.draw(unet, adapted, folder, step=1 if adapted or trained else 0)


def _refiner_guidance(
    files: ModelFiles | None,
    requests: list[PictureRequest],
    reading: Reading,
    dtype: torch.dtype,
    device: torch.device,
) -> list[Guidance]:
    return [] if files is None else encode_guidance(TextStack.load(files, dtype, device, reading), requests)


def _attach(path: Path, unet: nn.Module, stack: TextStack, layout: UNetLayout) -> list[nn.Module]:
    """Put a LoRA file's modules into the models they belong to."""
    modules = read_lora(path, layout)
    models = {"unet": unet, "text_encoder": stack.text_encoder, "text_encoder_2": stack.text_encoder_2}
    adapted = []
    for component in COMPONENTS:
        own = [module for module in modules if module.component == component]
        model = models[component]
        if not own:
            continue
        if model is None:
            raise RecipeError(f"{path} changes the {component}, which this model does not have")
        try:
            apply_lora(model, component, own)
        except ValueError as error:
            raise RecipeError(f"{path} was made for another model: {error}") from error
        adapted.append(model)
    return adapted
