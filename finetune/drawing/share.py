"""How base and refiner share a picture's denoising steps, counted without torch."""

from finetune.recipe.preview import EnsembleRefiner, ImageToImageRefiner

TRAIN_TIMESTEPS = 1000


def shared_steps(
    num_inference_steps: int, refiner: EnsembleRefiner | ImageToImageRefiner, spacing: str = "leading", offset: int = 1
) -> tuple[int, int]:
    """Return how many steps the base draws, and how many the refiner.

    As diffusers' pipelines count them: with `denoising_end` the base takes the timesteps down to
    round(1000 - 1000 * switch_at), and the refiner the rest; image to image it takes int(steps * strength) of them.

    Args:
        num_inference_steps: of a whole picture.
        refiner: how the work is shared.
        spacing: the schedule's `timestep_spacing`; SDXL's is leading.
        offset: the schedule's `steps_offset`; SDXL's is 1.
    """
    if isinstance(refiner, ImageToImageRefiner):
        return num_inference_steps, min(int(num_inference_steps * refiner.strength), num_inference_steps)
    cutoff = round(TRAIN_TIMESTEPS - refiner.switch_at * TRAIN_TIMESTEPS)
    base = sum(timestep >= cutoff for timestep in _timesteps(num_inference_steps, spacing, offset))
    return base, num_inference_steps - base


def _timesteps(count: int, spacing: str, offset: int) -> list[float]:
    if spacing == "leading":
        return [index * (TRAIN_TIMESTEPS // count) + offset for index in range(count)]
    if spacing == "trailing":
        return [round(TRAIN_TIMESTEPS - index * TRAIN_TIMESTEPS / count) - 1 for index in range(count)]
    return [index * (TRAIN_TIMESTEPS - 1) / max(1, count - 1) for index in range(count)]
