"""Make the miniature from nothing: photos, tokenizer, encoders, VAE, the base's stages, the refiner.

Every stage of training is the command a person would type, shown before it runs. A stage whose result is there is
passed over, and one that was interrupted goes on where it was, so the same call goes on with a build.
"""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from finetune.errors import AtelierError
from finetune.miniature.install import install
from finetune.miniature.stages import (
    BASE,
    BASE_1,
    BASE_STAGES,
    DECODER,
    DECODER_STAGES,
    NUM_PATTERNS,
    PATTERNS,
    PATTERNS_SEED,
    PHOTO_SETS,
    PHOTOS,
    REFINER,
    SEED,
    VAE,
    Stage,
)
from finetune.miniature.start import make_refiner_start, make_start, save_part
from finetune.model.files import DiffusersFolder
from finetune.model.whitening import latent_statistics, whiten_latents
from finetune.run.folder import RunFolder
from imagesets.framing import make_frame
from imagesets.world.patterns import write_patterns
from imagesets.world.photos import draw_photo, write_photos
from imagesets.world.render import render_scene

_WHITENING_PHOTOS = 1024
_SAY_EVERY_SECONDS = 10.0


@dataclass(frozen=True)
class BuildSettings:
    """Where and how the miniature is made.

    Attributes:
        folder: everything is made under it.
        num_processes: how many trainers share a stage's work, one thread each.
        device: 'cpu' or 'cuda'.
        output: where the finished models go, `base` and `refiner`; None leaves them in the build's folder.
    """

    folder: Path
    num_processes: int
    device: str
    output: Path | None = None


def build(settings: BuildSettings, say: Callable[[str], None]) -> None:
    """Make what is missing of the miniature under the build's folder.

    Raises:
        AtelierError: a stage failed; the same call goes on from there.
    """
    folder = settings.folder
    folder.mkdir(parents=True, exist_ok=True)
    for photos in PHOTO_SETS:
        say(f"{photos.name}: {photos.num_photos} of the world, seed {photos.seed}, {photos.purpose}")
        path, spoken = folder / photos.name, _spoken(say, photos.name)
        write_photos(path, photos.num_photos, photos.seed, spoken, photos.shorter_sides)
    if not (folder / "start").is_dir():
        say("encoders: taught to read captions")
        right = make_start(folder / "start", SEED, _spoken_loss(say, "encoders"))
        say(f"encoders: {right:.1%} of what captions say can be read from their states")
    _train(VAE, settings, say)
    if not (folder / BASE_1.model).is_dir():
        say("VAE: latents whitened")
        _whiten(folder / VAE.export, folder / BASE_1.model)
    say(f"patterns: {NUM_PATTERNS}, seed {PATTERNS_SEED}, for the decoder and the refiner")
    write_patterns(folder / PATTERNS, NUM_PATTERNS, PATTERNS_SEED, _spoken(say, "patterns"))
    for stage in (*DECODER_STAGES, *BASE_STAGES):
        _train(stage, settings, say)
    if not (folder / REFINER.model).is_dir():
        make_refiner_start(folder / BASE.export, folder / REFINER.model)
    _train(REFINER, settings, say)
    if settings.output is not None:
        install(folder / BASE.export, folder / REFINER.export, settings.output, decoder=folder / DECODER.export)
        say(f"done: {settings.output}")


def stage_command(stage: Stage, settings: BuildSettings) -> list[str]:
    """Return the command that runs a stage, or goes on with it."""
    folder = settings.folder
    launcher = [sys.executable, "-m"]
    if settings.num_processes > 1:  # `accelerate launch --cpu` starts one process, whatever it is asked for
        launcher += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(settings.num_processes), "-m"]
    command = [
        *launcher,
        *("finetune.cli.main", "train", stage.recipe, f"model.path={folder / stage.model}"),
        *(f"data.sources.{index}.path={folder / source}" for index, source in enumerate(stage.sources)),
        *(f"output_dir={folder / 'runs'}", f"training.device={settings.device}"),
    ]
    run = RunFolder(folder / "runs" / stage.name)
    return [*command, "--resume"] if run.path.is_dir() and run.has_begun() else command


def _train(stage: Stage, settings: BuildSettings, say: Callable[[str], None]) -> None:
    """Run a stage of training unless its model is there."""
    if (settings.folder / stage.export).is_dir():
        say(f"{stage.name}: is there")
        return
    command = stage_command(stage, settings)
    say(f"{stage.name}: {shlex.join(command)}")
    started = time.monotonic()
    code = subprocess.run(command, check=False).returncode
    if code != 0:
        raise AtelierError(
            f"stage {stage.name} ended with exit code {code}; what it said stands above. "
            "The same command goes on from there: atelier miniature build"
        )
    say(f"{stage.name}: done in {(time.monotonic() - started) / 60:.1f} minutes")


def _whiten(trained: Path, folder: Path) -> None:
    """Copy a model with its VAE's latents whitened on photos of the world."""
    import shutil

    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(trained, partial)
    vae = DiffusersFolder(partial).load_vae(torch.float32)
    whiten_latents(vae, latent_statistics(vae, (_pixels(index) for index in range(_WHITENING_PHOTOS))))
    save_part(vae, partial / "vae")
    partial.rename(folder)


def _pixels(index: int) -> torch.Tensor:
    """Return a photo in its middle square, (1, 3, 64, 64) in [-1, 1]."""
    photo = draw_photo(PHOTOS.seed, index)
    frame = make_frame(photo.size, (64, 64), "center")
    resized = Image.fromarray(render_scene(photo.scene, photo.size)).resize(
        frame.resized_size[::-1], Image.Resampling.LANCZOS
    )
    pixels = torch.from_numpy(np.array(resized.crop(frame.crop_box)))
    return (pixels.permute(2, 0, 1).float() / 127.5 - 1.0)[None]


def _spoken(say: Callable[[str], None], name: str) -> Callable[[int, int], None]:
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > _SAY_EVERY_SECONDS:
            last = time.monotonic()
            say(f"{name}: {done} of {total}")

    return progress


def _spoken_loss(say: Callable[[str], None], name: str) -> Callable[[int, int, float], None]:
    last = time.monotonic()

    def progress(done: int, total: int, loss: float) -> None:
        nonlocal last
        if time.monotonic() - last > _SAY_EVERY_SECONDS:
            last = time.monotonic()
            say(f"{name}: step {done} of {total}, loss {loss:.4f}")

    return progress
