"""One model that stays open between requests, and the drawing with it. It reads no lines and starts no process.

The base stays in memory with its encoders; the refiner is opened for the pictures it is asked for and let go. A picture
has the bits that `atelier generate` gives it: the same pipelines, noise and order of operations.
"""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from pydantic import ValidationError
from torch import Tensor

from finetune.adapters.lora import lora_disabled
from finetune.drawing.loras import LoraRack, identify, loras_shown
from finetune.drawing.messages import Column, Done, Drawn, DrawRequest, Progress, words_of
from finetune.drawing.places import trained_model
from finetune.drawing.plan import Pass, plan_passes
from finetune.drawing.share import shared_steps
from finetune.errors import AtelierError, OutOfMemoryError, RecipeError
from finetune.model.files import ModelFiles, sampling_scheduler
from finetune.model.open import open_model
from finetune.model.precision import autocast_for, choose_device, choose_dtype
from finetune.model.text import TextStack
from finetune.model.text_tokens import Reading, reading_of
from finetune.model.vae import Pixels, decode_latents, vae_dtype
from finetune.preview.artist import parked, picture_settings
from finetune.preview.encode import encode_guidance, texts_of, warn_of_long_prompts
from finetune.preview.requests import PictureRequest, resolve_request
from finetune.preview.sampling import Sampler, base_share
from finetune.preview.wall import save_picture, save_wall
from finetune.recipe import Recipe, load_recipe
from finetune.recipe.preview import Preview, PreviewPrompt
from finetune.recipe.schema import FolderModel
from finetune.run.folder import RunFolder

# Decoding a megapixel in float32 takes about 8 GiB on top of the weights (SDXL's VAE, no tiling).
_DECODING_BYTES_PER_PIXEL = 9 * 1024

_TOO_LITTLE = (
    "the card has too little memory for these pictures. Make them smaller, or end what else uses the card: a run that "
    "is training, say. The model was let go; the next request opens it again"
)


class DrawingCancelledError(AtelierError):
    """The person no longer wants the pictures."""


@dataclass
class OpenModel:
    """What is in memory.

    Attributes:
        key: tells whether a request can be drawn with it.
        files: where it comes from.
        stack: its text encoders.
        unet: its U-Net.
        vae: decodes.
        rack: the LoRAs in it.
    """

    key: tuple[Any, ...]
    files: ModelFiles
    stack: TextStack
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    rack: LoraRack


@dataclass(frozen=True)
class Job:
    """A request, resolved against its recipe.

    Attributes:
        request: as it was asked.
        recipe: whose model is drawn with; where a run has trained a whole model, with that.
        preview: steps, guidance and the refiner's share.
        device: where it is drawn.
        dtype: the models' precision.
        trained: whether the model itself is what was trained.
        report: told of progress and pictures.
        is_cancelled: asked between denoising steps.
    """

    request: DrawRequest
    recipe: Recipe
    preview: Preview
    device: torch.device
    dtype: torch.dtype
    trained: bool
    report: Callable[[Progress | Drawn], None]
    is_cancelled: Callable[[], bool]

    def say(self, stage: str, **numbers: int) -> None:
        """Report where the work is, and stop where it is no longer wanted."""
        if self.is_cancelled():
            raise DrawingCancelledError("cancelled")
        self.report(Progress(id=self.request.id, stage=stage, pictures=self.request.count(), **numbers))


@dataclass
class Studio:
    """Draws requests one after the other."""

    _open: OpenModel | None = None
    _written: list[tuple[Pass, Column, Pixels]] = field(default_factory=list)

    def draw(
        self, request: DrawRequest, report: Callable[[Progress | Drawn], None], is_cancelled: Callable[[], bool]
    ) -> Done:
        """Draw what is asked for and write each picture as it is ready.

        Raises:
            DrawingCancelledError: it was cancelled; pictures written before stay.
            OutOfMemoryError: the card has too little; the model is let go.
            AtelierError: it cannot be drawn as it is asked.
        """
        try:
            return self._draw(resolve_job(request, report, is_cancelled))
        except (torch.OutOfMemoryError, MemoryError) as error:
            self.close()
            raise OutOfMemoryError(_TOO_LITTLE) from error
        finally:
            self._written = []

    def close(self) -> None:
        """Let the model go."""
        self._open = None
        _free()

    def _draw(self, job: Job) -> Done:
        warnings: list[str] = []
        model = self._model(job)
        geometry = model.files.geometry()
        requests = _picture_requests(job, (geometry.default_side, geometry.default_side), geometry.size_multiple)
        some = next(iter(requests.values()))
        reading = reading_of(job.recipe.training)
        warn_of_long_prompts(reading, model.stack.reader.cut_off(texts_of([some])), [some], warnings.append)
        handed_over = [
            (drawing, self._draw_pass(job, model, drawing, requests[drawing.seed]))
            for drawing in plan_passes(job.request)
        ]
        wanted = [(drawing, latents) for drawing, latents in handed_over if drawing.refined is not None]
        if wanted:
            self._refine(job, model, wanted, requests, reading)
        return Done(id=job.request.id, grid=self._save_grid(job), warnings=tuple(warnings))

    def _model(self, job: Job) -> OpenModel:
        """Return the model a job needs, the one that is open if it is the one."""
        recipe = job.recipe
        files = open_model(recipe.model)
        key = (files.identity(), recipe.model, job.dtype, job.device, reading_of(recipe.training))
        if self._open is None or self._open.key != key:
            self.close()
            job.say("opening the model")
            self._open = _open(files, key, reading_of(recipe.training), job.dtype, job.device)
        return self._open

    def _draw_pass(self, job: Job, model: OpenModel, drawing: Pass, request: PictureRequest) -> Tensor:
        """Draw with the base, write its picture if it is wanted, and return the latents the refiner goes on with."""
        if drawing.loras:
            job.say("reading the LoRA", picture=len(self._written) + 1)
            model.rack.hang([identify(lora) for lora in drawing.loras])
            switched = model.rack.scaled([lora.strength for lora in drawing.loras])
        else:
            switched = lora_disabled(model.rack.adapted)
        sampler = self._sampler(job, "drawing", job.preview.num_inference_steps)
        objective = job.recipe.training.objective
        scheduler = sampling_scheduler(
            model.files,
            prediction_type=None if objective.prediction_type == "auto" else objective.prediction_type,
            zero_terminal_snr=objective.zero_terminal_snr,
        )
        end = None if drawing.refined is None else base_share(job.preview.refiner)
        with switched:
            with sampler.autocast():
                guidance = encode_guidance(model.stack, [request])[0]
            base = sampler.base_latents(model.unet, model.vae, scheduler, request, guidance, end)
        if drawing.finished is not None:
            with self._room_to_decode(model, request):
                pixels = decode_latents(model.vae, base.finished)[0]
            self._write(job, drawing, drawing.finished, request, pixels)
        return base.finished if base.unfinished is None else base.unfinished

    def _refine(
        self,
        job: Job,
        model: OpenModel,
        wanted: Sequence[tuple[Pass, Tensor]],
        requests: Mapping[int, PictureRequest],
        reading: Reading,
    ) -> None:
        """Go on with the refiner, which is opened here and let go again."""
        assert job.recipe.refiner is not None, "looked at when the job was resolved"
        job.say("opening the refiner", picture=len(self._written) + 1)
        files = open_model(job.recipe.refiner, refiner=True)
        seeds = list(dict.fromkeys(drawing.seed for drawing, _ in wanted))
        encoded = encode_guidance(
            TextStack.load(files, job.dtype, job.device, reading), [requests[seed] for seed in seeds]
        )
        guidance = dict(zip(seeds, encoded, strict=True))
        refiner = job.preview.refiner
        count = shared_steps(job.preview.num_inference_steps, refiner)[1]
        latents: list[tuple[Pass, Tensor]] = []
        with parked(model.unet):
            unet = files.load_unet(job.dtype).to(job.device)
            scheduler = sampling_scheduler(files)
            for drawing, given in wanted:
                sampler = self._sampler(job, "refining", count, len(latents))
                refined = sampler.refined_latents(
                    unet, model.vae, scheduler, requests[drawing.seed], guidance[drawing.seed], given, refiner
                )
                latents.append((drawing, refined))
            del unet
            _free()
            for drawing, refined in latents:
                assert drawing.refined is not None
                pixels = decode_latents(model.vae, refined)[0]
                self._write(job, drawing, drawing.refined, requests[drawing.seed], pixels)

    def _sampler(self, job: Job, stage: str, steps: int, ahead: int = 0) -> Sampler:
        """Return the sampler of one picture, which reports each of its steps."""
        done = 0
        picture = len(self._written) + ahead + 1
        job.say(stage, picture=picture, step=0, steps=steps)

        def on_step() -> None:
            nonlocal done
            done += 1
            job.say(stage, picture=picture, step=min(done, steps), steps=steps)

        autocast = autocast_for(job.dtype, job.device)
        return Sampler(job.preview.num_inference_steps, job.preview.guidance_scale, autocast, on_step)

    @contextmanager
    def _room_to_decode(self, model: OpenModel, request: PictureRequest) -> Iterator[None]:
        """Move the U-Net out of the way of the VAE where the card has too little room for both."""
        needed = request.size[0] * request.size[1] * _DECODING_BYTES_PER_PIXEL
        is_tight = model.unet.device.type == "cuda" and torch.cuda.mem_get_info(model.unet.device)[0] < needed
        with parked(model.unet) if is_tight else nullcontext():
            yield

    def _write(self, job: Job, drawing: Pass, column: Column, request: PictureRequest, pixels: Pixels) -> None:
        title = drawing.title(column, trained=job.trained)
        settings = {**picture_settings(request, title, self._plain_sampler(job), job.preview.refiner)}
        settings["model"] = _model_name(job.recipe)
        if drawing.loras:
            identities = [identify(lora) for lora in drawing.loras]
            settings["loras"] = loras_shown(identities, [lora.strength for lora in drawing.loras])
        self._written.append((drawing, column, pixels))
        path = Path(job.request.folder) / f"{len(self._written):03d}-{column.replace('_', '-')}.png"
        save_picture(path, pixels, settings)
        job.report(
            Drawn(
                id=job.request.id,
                path=str(path),
                title=title,
                column=column,
                seed=drawing.seed,
                strength=drawing.strength,
                lora_step=drawing.lora_step,
                settings=settings,
            )
        )

    def _plain_sampler(self, job: Job) -> Sampler:
        return Sampler(job.preview.num_inference_steps, job.preview.guidance_scale, nullcontext)

    def _save_grid(self, job: Job) -> str | None:
        """Write all pictures side by side, a row a seed; None where there is one only."""
        if len(self._written) < 2:
            return None
        order = {(drawing.lora_step, drawing.strength): index for index, (drawing, _, _) in enumerate(self._written)}
        columns = sorted(
            {(order[drawing.lora_step, drawing.strength], job.request.columns.index(column), column,
              drawing.title(column, trained=job.trained)) for drawing, column, _ in self._written}
        )  # fmt: skip
        pictures = {(drawing.seed, drawing.title(column, trained=job.trained)): pixels
                    for drawing, column, pixels in self._written}  # fmt: skip
        titles = [title for *_, title in columns]
        rows = [(f"seed {seed}: {job.request.prompt}", [pictures[seed, title] for title in titles])
                for seed in job.request.seeds]  # fmt: skip
        path = Path(job.request.folder) / "grid.png"
        save_wall(path, rows, titles)
        return str(path)


def resolve_job(
    request: DrawRequest, report: Callable[[Progress | Drawn], None], is_cancelled: Callable[[], bool]
) -> Job:
    """Read a request's recipe and settle what it leaves open.

    Raises:
        RecipeError: the recipe is not there or wrong, it has no refiner where one is asked for, or numbers do not suit.
    """
    recipe = load_recipe(request.source)
    trained = None
    if Path(request.source).is_dir() and not request.loras:
        trained = trained_model(RunFolder.open(request.source), recipe)
    if trained is not None:
        recipe = recipe.model_copy(update={"model": FolderModel(path=str(trained))})
    if any("refined" in column for column in request.columns) and recipe.refiner is None:
        raise RecipeError(f"{request.source}: this recipe names no refiner. Leave the refined pictures out")
    own = recipe.preview
    try:
        preview = Preview(
            num_inference_steps=request.num_inference_steps or own.num_inference_steps,
            guidance_scale=own.guidance_scale if request.guidance_scale is None else request.guidance_scale,
            refiner=request.refiner or own.refiner,
        )
    except ValidationError as error:
        raise RecipeError(words_of(error)) from error
    device = choose_device(recipe.training.device)
    dtype = choose_dtype(recipe.training.precision, device)
    return Job(request, recipe, preview, device, dtype, trained is not None, report, is_cancelled)


def _picture_requests(job: Job, default_size: tuple[int, int], size_multiple: int) -> dict[int, PictureRequest]:
    """Return what is drawn by seed, with all sizes filled in."""
    asked = job.request
    prompt = PreviewPrompt(
        prompt=asked.prompt,
        negative_prompt=asked.negative_prompt,
        size=asked.size,
        original_size=asked.original_size,
        crop_top_left=asked.crop_top_left,
        target_size=asked.target_size,
    )
    resolved = resolve_request(prompt, default_size, size_multiple)
    return {seed: replace(resolved, seed=seed) for seed in asked.seeds}


def _open(
    files: ModelFiles, key: tuple[Any, ...], reading: Reading, dtype: torch.dtype, device: torch.device
) -> OpenModel:
    stack = TextStack.load(files, dtype, device, reading)
    unet = files.load_unet(dtype).to(device)
    vae = files.load_vae(vae_dtype(dtype, device)).to(device)
    rack = LoraRack(unet, stack, files.structure())
    return OpenModel(key, files, stack, unet, vae, rack)


def _model_name(recipe: Recipe) -> str:
    """Return what a picture says of its model: a name, never a path."""
    named = recipe.model.model_dump()
    return str(named.get("id") or Path(str(named.get("path", named["kind"]))).name)


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
