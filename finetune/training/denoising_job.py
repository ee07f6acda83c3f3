"""A run that teaches a U-Net to denoise, by an adapter or by its own weights: loaded, encoded, put together."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL

from finetune.adapters.dropout import DropoutKey
from finetune.export.run_export import Exported, export_run
from finetune.model.files import noise_scheduler
from finetune.model.precision import autocast_for
from finetune.model.text_reader import TextReader
from finetune.model.text_tokens import Reading, reading_of
from finetune.preview.artist import Artist
from finetune.preview.encode import texts_of, warn_of_long_prompts
from finetune.preview.sampling import Guidance, Sampler
from finetune.recipe import Recipe
from finetune.recipe.schema import FullTraining, SmallAdapter
from finetune.run.folder import RunFolder
from finetune.training.components import prepare_for_training, trained_groups
from finetune.training.denoising import Denoising
from finetune.training.denoising_plan import DenoisingPlan, plan_denoising
from finetune.training.ema import average_of
from finetune.training.encode import EncodedText, encode_masks, encode_pictures, encode_refiner_text, encode_text
from finetune.training.gradients import make_scaler
from finetune.training.groups import TrainedGroup, optimizer_groups
from finetune.training.job import Job, say_warning, stage_progress
from finetune.training.loop import TrainingState
from finetune.training.objective import build_objective
from finetune.training.optimizers import build_optimizer, optimizer_kind
from finetune.training.pictures import Pictures, TrainingPictures
from finetune.training.prior import PriorPreservation
from finetune.training.recorder import Recorder
from finetune.training.schedules import build_schedule
from finetune.training.signals import StopRequest


def assemble_denoising(
    recipe: Recipe,
    pictures: Pictures,
    accelerator: Accelerator,
    recorder: Recorder | None,
    stop: StopRequest,
) -> Job:
    """Load, encode and put together what the loop works on. One large model is in memory at a time until the U-Net.

    Without a recorder nothing is written anywhere, and nothing is drawn: only the main process draws.
    """
    warn = say_warning if recorder is None else recorder.warn
    plan = plan_denoising(recipe, pictures, accelerator, warn)
    files, encoding, requests, dtype = plan.files, plan.encoding, plan.requests, plan.dtype
    device = accelerator.device
    schedule = noise_scheduler(files, zero_terminal_snr=recipe.training.objective.zero_terminal_snr)
    objective = build_objective(recipe.training.objective, schedule)
    if recorder is not None:
        _warn_of_long_texts(recorder, plan, pictures, reading_of(recipe.training))
        recorder.emit("stage", name="cache", **encoding.found())
    text = encode_text(
        recipe, files, encoding, requests, dtype, accelerator, stage_progress(recorder, stop, "captions")
    )
    refiner_guidance = encode_refiner_text(encoding, requests, accelerator, stage_progress(recorder, stop, "prompts"))
    latents = encode_pictures(files, encoding, dtype, accelerator, stage_progress(recorder, stop, "latents"))
    masks = encode_masks(files, encoding, accelerator, stage_progress(recorder, stop, "masks"))

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
            masks=masks,
            vae_scaling_factor=latents.vae.config.scaling_factor,
            is_refiner=not files.has_first_encoder(),
            prior=_prior(recipe, groups),
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

    def export(run: RunFolder, step: int) -> Exported:
        return export_run(
            run,
            recipe,
            state.parameters | state.initial,
            step,
            facts=state.task.facts(),
            optimizer=kind,
            expected={group.component: group.num_modules() for group in groups.values()},
        )

    if not requests or recorder is None:
        return Job(state, export)
    artist = _artist(recipe, plan, text, refiner_guidance, latents.vae, state)
    adapted = [group.model for group in groups.values()]

    def draw(folder: Path, step: int) -> Sequence[Path]:
        return artist.draw(unet, adapted, folder, step)

    return Job(state, export, draw)


def _prior(recipe: Recipe, groups: Mapping[str, TrainedGroup]) -> PriorPreservation | None:
    """Return how the base is asked what is to stay, where the recipe says so."""
    settings = recipe.training.prior_preservation
    if settings is None:
        return None
    encoders = [group.model for name, group in groups.items() if name != "unet"]
    return PriorPreservation(settings.weight, settings.class_word, encoders)


def _artist(
    recipe: Recipe,
    plan: DenoisingPlan,
    text: EncodedText,
    refiner_guidance: list[Guidance],
    vae: AutoencoderKL,
    state: TrainingState[Denoising],
) -> Artist:
    """Return what draws the previews with the model as it is at the time."""
    return Artist(
        files=plan.files,
        refiner_files=plan.refiner_files,
        refiner=recipe.preview.refiner,
        requests=plan.requests,
        sampler=Sampler(recipe.preview.num_inference_steps, recipe.preview.guidance_scale, state.autocast),
        vae=vae,
        guidance=text.guidance,
        text=text.stack,
        refiner_guidance=refiner_guidance,
        weight_dtype=plan.dtype,
        prediction_type=state.task.objective.prediction_type,
        zero_terminal_snr=recipe.training.objective.zero_terminal_snr,
        has_adapter=isinstance(recipe.adapter, SmallAdapter),
    )


def _warn_of_long_texts(recorder: Recorder, plan: DenoisingPlan, pictures: Pictures, reading: Reading) -> None:
    """Say which captions and prompts lose their end: no more is read than the recipe lets be read."""
    listed = pictures if isinstance(pictures, TrainingPictures) else None
    captions = (
        []
        if listed is None
        else [
            (caption, sample.name)
            for index, sample in enumerate(listed.samples)
            for caption in listed.captions_of(index)
        ]
    )
    if plan.encoding.text is not None:  # which has read them all
        cut_off = plan.encoding.text.cut_off
    else:
        texts = [*(caption for caption, _ in captions), *texts_of(plan.requests)]
        cut_off = TextReader.load(plan.files, reading).cut_off(texts)
    warn_of_long_prompts(reading, cut_off, plan.requests, recorder.warn)
    long = [name for caption, name in captions if caption in cut_off]
    if long:
        recorder.warn(reading.describe_cut(len(long), "caption", long[0]))
