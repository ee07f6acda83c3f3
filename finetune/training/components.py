"""The models a run trains: found, given adapters or set free. Encoding with frozen ones is the work of `encode`."""

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from finetune.adapters.dropout import DropoutKey
from finetune.adapters.lora import inject_lora
from finetune.adapters.trained import lora_settings
from finetune.errors import RecipeError
from finetune.model.files import ModelFiles
from finetune.model.open import open_model
from finetune.model.text import TextStack
from finetune.naming.components import Component
from finetune.recipe.schema import Recipe, SmallAdapter
from finetune.training.groups import TrainedGroup
from finetune.training.stops import require_drawable_previews


def open_trained_model(recipe: Recipe) -> ModelFiles:
    """Find the files of the model that is trained: a base or a refiner.

    Raises:
        RecipeError: nothing there, or previews are asked of a refiner.
    """
    files = open_model(recipe.model, refiner=None)
    require_drawable_previews(recipe, has_first_encoder=files.has_first_encoder())
    return files


def trained_groups(
    recipe: Recipe, unet: UNet2DConditionModel, stack: TextStack | None, key: DropoutKey
) -> dict[str, TrainedGroup]:
    """Put the recipe's adapters into the models, or set their own weights free; return the groups, U-Net first."""
    models: dict[Component, nn.Module | None] = {
        "unet": unet,
        "text_encoder": None if stack is None else stack.text_encoder,
        "text_encoder_2": None if stack is None else stack.text_encoder_2,
    }
    key.seed = recipe.seed
    groups: dict[str, TrainedGroup] = {}
    for component, model in models.items():
        section = getattr(recipe.adapter, component)
        if section is None:
            continue
        if model is None:
            raise RecipeError(f"adapter.{component}: this model has no such encoder. Leave it out")
        if isinstance(recipe.adapter, SmallAdapter):
            inject_lora(model, component, lora_settings(recipe.adapter, section), recipe.seed, key)
        else:
            free_weights(model)
        groups[component] = TrainedGroup(component, model, section.learning_rate, section.stop_after_steps)
    return groups


def free_weights(model: nn.Module) -> None:
    """Let all of a model's own parameters take gradients. They have to be float32, whatever the run's precision.

    bf16 weights would lose most of an update at usual learning rates; the autocast around the step still lets matrix
    products run in the run's precision.
    """
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters()), "load it in float32"
    model.requires_grad_(requires_grad=True)
    if isinstance(model, UNet2DConditionModel):
        model.to(memory_format=torch.channels_last)  # its convolutions are faster so: 1.2 times on a CPU (measured)
    for parameter in model.parameters():
        # Out of the mapped file, where weights lie at odd places, which is slow, and end with the file.
        parameter.data = parameter.data.clone()


def prepare_for_training(recipe: Recipe, unet: UNet2DConditionModel, stack: TextStack | None) -> None:
    """Switch training mode on where adapters are, and gradient checkpointing where the recipe asks for it.

    The base has no dropout of its own, so training mode changes only LoRA's and checkpointing's behaviour.
    """
    unet.train()
    encoders = [] if stack is None else [e for e in (stack.text_encoder, stack.text_encoder_2) if e is not None]
    for encoder in encoders:
        encoder.train()
    if recipe.training.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        for encoder in encoders:
            # transformers 5.2x renamed it; the older name warns there and is the only one before.
            enable = getattr(encoder, "activation_checkpointing_enable", encoder.gradient_checkpointing_enable)
            enable({"use_reentrant": False})
