"""A run that trains the VAE: loaded and put together. No text encoder and no U-Net is touched."""

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL

from finetune.adapters.dropout import DropoutKey
from finetune.export.run_export import Exported, export_run
from finetune.model.open import open_model
from finetune.model.precision import autocast_for, choose_dtype
from finetune.preview.reconstructions import draw_reconstructions
from finetune.recipe import Recipe
from finetune.recipe.vae import VaeTraining
from finetune.run.folder import RunFolder
from finetune.training.autoencoder import Autoencoding, PixelCache, memory_for_pictures
from finetune.training.ema import average_of
from finetune.training.gradients import make_scaler
from finetune.training.groups import TrainedGroup, optimizer_groups
from finetune.training.job import Job, stage_progress
from finetune.training.loop import TrainingState
from finetune.training.optimizers import build_optimizer, optimizer_kind
from finetune.training.pictures import TrainingPictures
from finetune.training.recorder import Recorder
from finetune.training.schedules import build_schedule
from finetune.training.signals import StopRequest
from finetune.training.stops import require_fitting_buckets
from imagesets.framing import make_frame

NUM_PREVIEWS = 8
"""How many pictures are shown with their reconstructions: the first of the run's."""


def assemble_autoencoding(
    recipe: Recipe,
    pictures: TrainingPictures,
    accelerator: Accelerator,
    recorder: Recorder | None,
    stop: StopRequest,
) -> Job:
    """Load the VAE in float32 and put together what the loop works on.

    Its arithmetic is bf16 or float32, as the recipe says, and float32 under fp16, in which this VAE overflows. The
    plain memory layout is kept: on a CPU, channels_last was measured 10 % slower on the miniature's VAE in float32.
    Without a recorder nothing is written anywhere, and nothing is drawn: only the main process draws.
    """
    assert isinstance(recipe.adapter, VaeTraining), "other kinds are put together elsewhere"
    device = accelerator.device
    precision = "fp32" if recipe.training.precision == "fp16" else recipe.training.precision
    files = open_model(recipe.model, refiner=None)  # either will do: a refiner has the same VAE
    require_fitting_buckets(pictures.used_buckets(), files.geometry().size_multiple)
    loading = stage_progress(recorder, stop, "VAE")
    loading(0, 1)
    vae = files.load_vae(torch.float32).to(device)
    loading(1, 1)
    prepare_vae(vae, recipe.adapter.parts, gradient_checkpointing=recipe.training.gradient_checkpointing)
    pixels = PixelCache(memory_for_pictures())
    groups = {"vae": TrainedGroup("vae", vae, recipe.adapter.learning_rate)}
    kind = optimizer_kind(recipe.training.optimizer, device)
    state = TrainingState(
        task=Autoencoding(vae, recipe.adapter.loss, pixels),
        pictures=pictures,
        groups=groups,
        optimizer_kind=kind,
        optimizer=build_optimizer(kind, optimizer_groups(groups), recipe.training.optimizer),
        schedule=build_schedule(recipe.training.lr_schedule, recipe.training.steps),
        accelerator=accelerator,
        autocast=autocast_for(choose_dtype(precision, device), device),
        scaler=make_scaler(device, enabled=False),
        dropout_key=DropoutKey(),
        max_grad_norm=recipe.training.max_grad_norm,
        total_steps=recipe.training.steps,
        seed=recipe.seed,
        ema=average_of(recipe, groups),
    )

    def export(run: RunFolder, step: int) -> Exported:
        return export_run(
            run,
            recipe,
            state.parameters,
            step,
            facts=state.task.facts(),
            optimizer=kind,
            expected={group.component: group.num_modules() for group in groups.values()},
        )

    if recorder is None:
        return Job(state, export)
    shown = [
        (sample.name, pixels(sample, make_frame(sample.original_size, pictures.bucket_of(index), "center")))
        for index, sample in enumerate(pictures.samples[:NUM_PREVIEWS])
    ]

    def draw(folder: Path, step: int) -> Sequence[Path]:
        return draw_reconstructions(vae, shown, folder, step)

    return Job(state, export, draw)


def prepare_vae(vae: AutoencoderKL, parts: str, *, gradient_checkpointing: bool) -> None:
    """Let all of the VAE be trained, or its decoder only. It has no dropout, so training mode changes nothing else."""
    vae.requires_grad_(parts == "all")
    vae.decoder.requires_grad_(True)
    if vae.post_quant_conv is not None:
        vae.post_quant_conv.requires_grad_(True)
    vae.train()
    if gradient_checkpointing:
        vae.enable_gradient_checkpointing()
