"""A run that teaches a U-Net to denoise, by an adapter or by its own weights: loaded, encoded, put together."""

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator

from finetune.adapters.dropout import DropoutKey
from finetune.cache.opened import open_cache
from finetune.cache.place import run_folder
from finetune.export.run_export import export_run
from finetune.model.files import ModelFiles, noise_scheduler
from finetune.model.open import open_model
from finetune.model.precision import autocast_for, choose_dtype
from finetune.model.text import longer_than_read
from finetune.preview.artist import Artist
from finetune.preview.sampling import Sampler
from finetune.recipe import Recipe
from finetune.recipe.schema import FullTraining, LoraAdapter
from finetune.run.folder import RunFolder
from finetune.training.components import (
    open_trained_model,
    prepare_for_training,
    require_fitting_buckets,
    resolve_requests,
    trained_groups,
)
from finetune.training.denoising import Denoising
from finetune.training.ema import average_of
from finetune.training.encode import encode_pictures, encode_refiner_text, encode_text, plan_encoding
from finetune.training.gradients import make_scaler
from finetune.training.groups import optimizer_groups
from finetune.training.job import Job, say_warning, stage_progress
from finetune.training.loop import TrainingState
from finetune.training.objective import build_objective
from finetune.training.optimizers import build_optimizer, optimizer_kind
from finetune.training.pictures import TrainingPictures
from finetune.training.recorder import Recorder
from finetune.training.schedules import build_schedule
from finetune.training.signals import StopRequest


def assemble_denoising(
    recipe: Recipe,
    pictures: TrainingPictures,
    accelerator: Accelerator,
    recorder: Recorder | None,
    stop: StopRequest,
) -> Job:
    """Load, encode and put together what the loop works on. One large model is in memory at a time until the U-Net.

    Without a recorder nothing is written anywhere, and nothing is drawn: only the main process draws.
    """
    device = accelerator.device
    dtype = choose_dtype(recipe.training.precision, device)
    files = open_trained_model(recipe)
    refiner_files = None if recipe.refiner is None else open_model(recipe.refiner, refiner=True)
    schedule = noise_scheduler(files, zero_terminal_snr=recipe.training.objective.zero_terminal_snr)
    objective = build_objective(recipe.training.objective, schedule)
    geometry = files.geometry()
    require_fitting_buckets(pictures, geometry.size_multiple)
    requests = resolve_requests(recipe, geometry)

    if recorder is not None:
        _warn_of_long_captions(recorder, files, pictures)
    warn = say_warning if recorder is None else recorder.warn
    cache = open_cache(recipe, warn)
    encoding = plan_encoding(recipe, pictures, files, refiner_files, requests, cache, dtype, accelerator, warn)
    encoding.record(run_folder(recipe), accelerator)
    if recorder is not None:
        recorder.emit("stage", name="cache", **encoding.found())
    text = encode_text(
        recipe, files, encoding, requests, dtype, accelerator, stage_progress(recorder, stop, "captions")
    )
    refiner_guidance = encode_refiner_text(encoding, requests, accelerator, stage_progress(recorder, stop, "prompts"))
    latents = encode_pictures(files, encoding, dtype, accelerator, stage_progress(recorder, stop, "latents"))

    loading = stage_progress(recorder, stop, "U-Net")
    loading(0, 1)
    trains_unet = isinstance(recipe.adapter, FullTraining) and recipe.adapter.unet is not None
    unet = files.load_unet(torch.float32 if trains_unet else dtype).to(device)
    loading(1, 1)
    key = DropoutKey()
    groups = trained_groups(recipe, unet, text.stack, key)
    prepare_for_training(recipe, unet, text.stack)
    kind = optimizer_kind(recipe.training.optimizer, device)
    state = TrainingState(
        task=Denoising(
            unet=unet,
            noise_scheduler=schedule,
            objective=objective,
            latents=latents.source(),
            text=text.source,
            vae_scaling_factor=latents.vae.config.scaling_factor,
            is_refiner=not files.has_first_encoder(),
        ),
        pictures=pictures,
        groups=groups,
        optimizer_kind=kind,
        optimizer=build_optimizer(kind, optimizer_groups(groups), recipe.training.optimizer),
        schedule=build_schedule(recipe.training.lr_schedule, recipe.training.steps),
        accelerator=accelerator,
        autocast=autocast_for(dtype, device),
        scaler=make_scaler(device, enabled=recipe.training.precision == "fp16"),
        dropout_key=key,
        max_grad_norm=recipe.training.max_grad_norm,
        total_steps=recipe.training.steps,
        seed=recipe.seed,
        ema=average_of(recipe, groups),
    )

    def export(run: RunFolder, step: int) -> tuple[Path, ...]:
        return export_run(
            run,
            recipe,
            state.parameters,
            step,
            facts=state.task.facts(),
            optimizer=kind,
            expected={group.component: group.num_modules() for group in groups.values()},
        )

    if not requests or recorder is None:
        return Job(state, export)
    artist = Artist(
        files=files,
        refiner_files=refiner_files,
        refiner=recipe.preview.refiner,
        requests=requests,
        sampler=Sampler(recipe.preview.num_inference_steps, recipe.preview.guidance_scale, state.autocast),
        vae=latents.vae,
        guidance=text.guidance,
        text=text.stack,
        refiner_guidance=refiner_guidance,
        weight_dtype=dtype,
        prediction_type=objective.prediction_type,
        zero_terminal_snr=recipe.training.objective.zero_terminal_snr,
        has_adapter=isinstance(recipe.adapter, LoraAdapter),
    )
    adapted = [group.model for group in groups.values()]

    def draw(folder: Path, step: int) -> Sequence[Path]:
        return artist.draw(unet, adapted, folder, step)

    return Job(state, export, draw)


def _warn_of_long_captions(recorder: Recorder, files: ModelFiles, pictures: TrainingPictures) -> None:
    """Say which captions lose their end: the encoders read 77 tokens."""
    tokenizer = files.load_tokenizer_2()
    captions = [(caption, index) for index in range(len(pictures.samples)) for caption in pictures.captions_of(index)]
    long = longer_than_read(tokenizer, [caption for caption, _ in captions])
    if long:
        recorder.warn(
            f"{len(long)} captions are longer than the {tokenizer.model_max_length} tokens the encoders read, "
            f"the first: {pictures.samples[captions[long[0]][1]].name}. Their ends are cut off; put what matters first"
        )
