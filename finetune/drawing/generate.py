"""Pictures without a run: a recipe's model, LoRAs or none, the recipe's prompts."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from finetune.drawing.loras import LoraRack, identify, loras_shown
from finetune.drawing.messages import LoraFile, LoraOfRun
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
    loras: Sequence[LoraFile | LoraOfRun],
    warn: Callable[[str], None],
    trained: bool = False,
) -> list[Path]:
    """Draw the recipe's prompts into `folder`, without the LoRAs, with them, and refined.

    Args:
        recipe: its model, refiner, preview settings and prompts are used.
        folder: where the pictures go; pictures of the same names are replaced.
        loras: files in kohya's or diffusers' form or runs' steps, with their strengths; none draws the base alone.
        warn: told what is drawn otherwise than it may be meant.
        trained: whether the model itself is what was trained.

    Returns:
        The files, the wall first.
    """
    identities = [identify(lora) for lora in loras]
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
    rack = LoraRack(unet, stack, files.structure())
    rack.hang(identities)
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
        facts={"loras": loras_shown(identities, [lora.strength for lora in loras])} if loras else {},
    )
    with rack.scaled([lora.strength for lora in loras]):
        return artist.draw(unet, rack.adapted, folder, step=1 if rack.adapted or trained else 0)


def _refiner_guidance(
    files: ModelFiles | None,
    requests: list[PictureRequest],
    reading: Reading,
    dtype: torch.dtype,
    device: torch.device,
) -> list[Guidance]:
    return [] if files is None else encode_guidance(TextStack.load(files, dtype, device, reading), requests)
