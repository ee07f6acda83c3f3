"""What the kit's loop costs around the U-Net: its time per optimizer step beside a bare loop's, on the miniature.

    python benchmarks/loop_overhead.py

On a real SDXL everything around the U-Net drowns in it; on the miniature it shows. Both sides train a LoRA on the
attention of the same weights, with batches of one shape, in float32, in one process, and take turns in blocks of steps.

    ours  `training_loop` with the real recorder: the plan, keyed draws, clipping, checks, an event a step on the disk,
          a look into the commands folder. Previews and checkpoints are off.
    bare  `bare_loop.bare_step` on one fixed batch.

The figure is the median over the blocks of seconds per step. It says nothing about loading.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring import Row, machine, median, print_machine, print_rows, write_pictures, write_report

if TYPE_CHECKING:
    from finetune.recipe import Recipe

RATIO_BAR = 1.10
RANK = 8
SIDE_PX = 64
BATCH_SIZE = 4
NUM_PICTURES = 16
WARMUP_STEPS = 10


def main() -> None:
    """Build both sides, let them take turns, print."""
    arguments = parse_arguments()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        sides = {"bare": bare_side(), "ours": our_side(Path(folder))}
        for take_steps in sides.values():
            take_steps(WARMUP_STEPS)
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(arguments.blocks):
            for side, take_steps in sides.items():
                began = time.perf_counter()
                take_steps(arguments.block)
                seconds[side].append((time.perf_counter() - began) / arguments.block)
    medians = {side: 1000.0 * median(values) for side, values in seconds.items()}
    holds = medians["ours"] <= RATIO_BAR * medians["bare"]
    row = Row("milliseconds per step", medians["ours"], medians["bare"], f"at most {RATIO_BAR} x bare", holds)
    described = machine(arguments.threads)
    print_rows([row])
    print_machine(described)
    write_report(
        arguments.json, {"machine": described, "rows": [{**asdict(row), "ratio": row.ratio}], "seconds": seconds}
    )


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Time the kit's loop on the miniature beside a bare loop.")
    parser.add_argument("--blocks", type=int, default=40, help="how many blocks each side takes")
    parser.add_argument("--block", type=int, default=5, help="steps in a block")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write everything measured here")
    return parser.parse_args()


def bare_side() -> Callable[[int], None]:
    """Return a function that takes a number of bare steps."""
    import torch
    from bare_loop import add_lora, bare_step, random_batch, sdxl_noise_scheduler

    from finetune.model.miniature import Miniature

    files = Miniature()
    unet = files.load_unet(torch.float32)
    optimizer = torch.optim.AdamW(add_lora(unet, RANK), lr=1e-4, fused=True)
    unet.train()
    noise_scheduler = sdxl_noise_scheduler()
    batch = random_batch(unet, BATCH_SIZE, SIDE_PX // files.geometry().vae_factor)

    def take_steps(count: int) -> None:
        for _ in range(count):
            bare_step(unet, noise_scheduler, optimizer, batch, nullcontext())

    return take_steps


def our_side(folder: Path) -> Callable[[int], None]:
    """Assemble the kit's own run and return a function that takes a number of its steps."""
    from accelerate import Accelerator

    from finetune.recipe import load_recipe
    from finetune.run.events import EventLog
    from finetune.run.folder import RunFolder
    from finetune.training.data import plan_pictures, scan_pictures
    from finetune.training.environment import environment_of
    from finetune.training.loop import TrainingState, training_loop
    from finetune.training.recorder import Recorder
    from finetune.training.signals import StopRequest
    from finetune.training.trainer import assemble

    class BlockRecorder(Recorder):
        """The run's own hooks, which also end the loop after a number of steps."""

        last_step = 0

        def should_stop(self, state: TrainingState) -> bool:
            """Stop where the run itself would, and at the end of a block."""
            return super().should_stop(state) or state.global_step >= self.last_step

    write_pictures(folder / "pictures", NUM_PICTURES, 2 * SIDE_PX)
    recipe = our_recipe(folder, load_recipe)
    accelerator = Accelerator(cpu=True)
    run, stop = RunFolder.create(folder / "run"), StopRequest()
    environment = environment_of(accelerator.device, accelerator.num_processes)
    recorder = BlockRecorder(run, EventLog(run.events), recipe.preview, recipe.checkpoint, stop, environment)
    pictures = plan_pictures(recipe, scan_pictures(recipe))
    state = assemble(recipe, pictures, accelerator, recorder, stop).state

    def take_steps(count: int) -> None:
        recorder.last_step = state.global_step + count
        training_loop(state, recorder)

    return take_steps


def our_recipe(folder: Path, load_recipe: "Callable[..., Recipe]") -> "Recipe":
    """Return the quickstart, with LoRA on the U-Net's attention alone and square pictures, so that both sides match."""
    overrides: dict[str, Any] = {
        "output_dir": folder / "runs",
        "data.sources.0.path": folder / "pictures",
        "data.buckets.max_aspect": 1.0,
        "adapter.unet.rank": RANK,
        "adapter.text_encoder": "null",
        "adapter.text_encoder_2": "null",
        "training.steps": 1_000_000,
        "training.device": "cpu",
        "training.micro_batch_size": BATCH_SIZE,
        "training.global_batch_size": BATCH_SIZE,
        "preview.every_steps": "null",
        "preview.prompts": "[]",
        "checkpoint.every_steps": "null",
    }
    return load_recipe("quickstart", [f"{key}={value}" for key, value in overrides.items()])


if __name__ == "__main__":
    main()
