"""What prior preservation keeps, and what it costs: the quickstart's star, learned with it and without.

    python benchmarks/prior_preservation.py --steps 60

Both runs take the same steps on the same draws. Afterwards each adapter is asked, at noise it has never seen, how far
it is from the base where a caption says 'star' in place of its trigger (what is to stay), and how well it predicts what
it was taught (what is to be learned).
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from measuring import machine, print_machine, write_report

from finetune.adapters.lora import lora_disabled
from finetune.model.miniature import Miniature
from finetune.model.text import TextEmbeddings, TextStack
from finetune.recipe import Recipe, load_recipe
from finetune.training.data import plan_pictures, scan_pictures
from finetune.training.loop import TrainingState, optimizer_step
from finetune.training.prior import PriorPreservation, PriorText, prior_error
from finetune.training.randomness import BatchGenerator
from finetune.training.signals import StopRequest
from finetune.training.step import train_step
from finetune.training.trainer import assemble

TRIGGER, CLASS_WORD = "<zig>", "star"
NUM_ASKED = 8
"""How many batches an adapter is asked with."""
ASKING_SEED = 1000
"""Seeds of runs are small numbers: these draws are in none."""


@dataclass(frozen=True)
class Asked:
    """What an adapter is found to do.

    Attributes:
        distance: mean squared distance of its predictions from the base's on class captions.
        loss: mean squared error on its own captions.
        base_loss: that of the base on them.
        seconds_a_step: of training, median.
    """

    distance: float
    loss: float
    base_loss: float
    seconds_a_step: float


def learn(weight: float | None, steps: int, folder: Path, batch_size: int) -> Asked:
    """Train the quickstart's adapter on the U-Net alone, with a prior of this weight or without, and ask it."""
    recipe = recipe_with(weight, steps, folder, batch_size)
    pictures = plan_pictures(recipe, scan_pictures(recipe))
    state = assemble(recipe, pictures, Accelerator(cpu=True), None, StopRequest()).state
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        optimizer_step(state)
        seconds.append(time.perf_counter() - began)
    with state.averaged():
        return ask(state, sorted(seconds)[steps // 2])


def recipe_with(weight: float | None, steps: int, folder: Path, batch_size: int) -> Recipe:
    """Return the quickstart without its encoders' adapters and previews, with a prior of this weight or without."""
    prior = "null" if weight is None else f"{{weight: {weight}, class_word: {CLASS_WORD}}}"
    return load_recipe(
        "quickstart",
        [
            "adapter.text_encoder=null",
            "adapter.text_encoder_2=null",
            "preview.prompts=[]",
            "refiner=null",
            f"data.sources.0.trigger={TRIGGER}",
            "cache.kind=memory",
            f"output_dir={folder}",
            f"training.steps={steps}",
            f"training.micro_batch_size={batch_size}",
            f"training.global_batch_size={batch_size}",
            f"training.prior_preservation={prior}",
        ],
    )


@torch.no_grad()
def ask(state: TrainingState[Any], seconds_a_step: float) -> Asked:
    """Measure an adapter at draws that no training has seen."""
    task, stack = state.task, TextStack.load(Miniature(), torch.float32, torch.device("cpu"))
    prior = PriorPreservation(1.0, CLASS_WORD, ())
    distances, losses, base_losses = [], [], []
    for batch_number in range(NUM_ASKED):
        planned = [item for batch in state.pictures.batches_of(1) for item in batch]
        generator = BatchGenerator(ASKING_SEED, batch_number, [item.key for item in planned])
        batch = task.make_batch(planned, generator, 1.0 / len(planned))
        captions = [caption or "" for caption in prior.captions(planned)]
        text = TextEmbeddings.cat(stack.encode_frozen(captions))
        noise, timesteps = task.objective.noise(generator, batch.latents), task.objective.timesteps(generator)
        noisy = task.noise_scheduler.add_noise(batch.latents, noise, timesteps)
        asked = PriorText(text, text, 1.0)
        distances.append(float(prior_error(task.unet, noisy, timesteps, asked, batch.add_time_ids, noisy).mean()))
        plain = replace(batch, prior=None)
        for errors, models in ((losses, []), (base_losses, [task.unet])):
            with lora_disabled(models):
                output = train_step(task.unet, task.noise_scheduler, task.objective, plain, generator)
            errors.append(float(output.per_sample.mean()))
    return Asked(*(statistics.mean(values) for values in (distances, losses, base_losses)), seconds_a_step)


def main() -> None:
    """Train both, ask both, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--weight", type=float, default=1.0)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    described = machine(torch.get_num_threads())
    print_machine(described)
    with tempfile.TemporaryDirectory() as folder:
        found = {
            name: learn(weight, arguments.steps, Path(folder), arguments.batch_size)
            for name, weight in (("with", arguments.weight), ("without", None))
        }
    own, bare = found["with"], found["without"]
    settings = f"{arguments.steps} steps of {arguments.batch_size}, weight {arguments.weight:g}"
    print(f"{settings}: with, without, with / without")
    for title, name in (
        ("distance from the base on class captions", "distance"),
        ("error on its own captions", "loss"),
        ("the base's error on them", "base_loss"),
        ("seconds a step", "seconds_a_step"),
    ):
        with_prior, without = getattr(own, name), getattr(bare, name)
        print(f"  {title:<44}{with_prior:>10.5f}{without:>10.5f}{with_prior / without:>8.2f}")
    write_report(arguments.json, {"machine": described, **{name: asdict(asked) for name, asked in found.items()}})


if __name__ == "__main__":
    main()
