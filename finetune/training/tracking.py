"""Figures for other viewers, through accelerate's trackers, from the same events the run folder holds."""

from collections.abc import Callable
from importlib.util import find_spec

from accelerate import Accelerator
from accelerate.tracking import TensorBoardTracker

from finetune.errors import RecipeError
from finetune.recipe import Recipe
from finetune.run.events import Event
from finetune.run.folder import RunFolder

_NAMES = {"unet": "lr/unet", "text_encoder": "lr/textencoder", "text_encoder_2": "lr/textencoder2", "vae": "lr/vae"}
_AVERAGED_STEPS = 50


def tracker_listener(recipe: Recipe, run: RunFolder, accelerator: Accelerator) -> list[Callable[[Event], None]]:
    """Return a listener that feeds TensorBoard where the recipe says so, else nothing.

    Raises:
        RecipeError: TensorBoard is asked for and not installed.
    """
    if recipe.tracking.kind == "none":
        return []
    if find_spec("tensorboard") is None:
        raise RecipeError('tracking.kind: tensorboard is not installed. Type: pip install "atelier[tensorboard]"')
    accelerator.log_with = [TensorBoardTracker(recipe.name, logging_dir=str(run.path / "tensorboard"))]
    accelerator.init_trackers(recipe.name)
    losses: list[float] = []

    def track(event: Event) -> None:
        if event["kind"] == "step":
            losses.append(event["loss"])
            del losses[:-_AVERAGED_STEPS]
            rates = {_NAMES[name]: rate for name, rate in event["learning_rates"].items()}
            values = {"loss/current": losses[-1], "loss/average": sum(losses) / len(losses)}
            if "prior_loss" in event:
                values["loss/prior"] = event["prior_loss"]
            accelerator.log({**values, **rates, "grad_norm": event["grad_norm"]}, step=event["step"])
        elif event["kind"] == "preview":
            _log_wall(accelerator, run, event)
        elif event["kind"] == "run_finished":
            accelerator.end_training()

    return [track]


def _log_wall(accelerator: Accelerator, run: RunFolder, event: Event) -> None:
    import numpy as np
    from PIL import Image

    with Image.open(run.path / event["pictures"][0]) as wall:
        pixels = np.asarray(wall.convert("RGB"))
    for tracker in accelerator.trackers:
        tracker.log_images({"validation/previews": pixels[None]}, step=event["step"], dataformats="NHWC")
