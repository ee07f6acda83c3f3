"""What may differ between a run's recipe and the one it is resumed with."""

from finetune.errors import RecipeError
from finetune.recipe import Recipe, differing_keys, load_recipe
from finetune.run.folder import RunFolder

_FREE = ("preview.", "checkpoint.", "export.", "tracking.", "cache.", "purpose", "output_dir", "refiner")
_COMPATIBLE = (
    "training.steps",
    "training.device",
    "training.precision",
    "training.gradient_checkpointing",
    "training.cache_latents",
    "training.micro_batch_size",
    "training.max_grad_norm",
    "training.lr_schedule.",
    "training.ema.decay",
    "training.optimizer.kind",  # a checkpoint of another kind is refused when it is read
    "adapter.learning_rate",
    "adapter.unet.learning_rate",
    "adapter.text_encoder.learning_rate",
    "adapter.text_encoder_2.learning_rate",
)
"""What a person may have to change to get on after running out of memory or diverging."""


def require_same_training(run: RunFolder, recipe: Recipe) -> list[str]:
    """Compare the recipe with the one the run was started with.

    Returns:
        A sentence for each difference that makes the result another one than an uninterrupted run's.

    Raises:
        RecipeError: a difference that changes what is trained.
    """
    differing = differing_keys(load_recipe(str(run.recipe)), recipe)
    refused = [key for key in differing if not key.startswith(_FREE + _COMPATIBLE)]
    if refused:
        raise RecipeError(
            f"{run.path} was trained with other settings: {', '.join(refused)}. A run goes on with its own recipe: "
            f"atelier train {run.recipe} --resume. To train with the new settings, start another run: name=…"
        )
    return [
        f"{key} was changed: the result is compatible, but not what an uninterrupted run would give"
        for key in differing
        if key.startswith(_COMPATIBLE)
    ]
