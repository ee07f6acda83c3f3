"""From a recipe's `data` section to pictures that are ready to be planned. Torch is not needed for it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import imagesets
from finetune.errors import AtelierError, DataError
from finetune.recipe import Recipe
from finetune.training.inspecting import training_plan
from finetune.training.pictures import Pictures, TrainingPictures
from finetune.training.sources import ReadSource, bucket_sizes, read_sources
from finetune.training.stops import require_streamable, streams_pictures
from finetune.training.streamed import StreamedPictures
from imagesets.colours import parse_colour
from imagesets.entries import Opening
from imagesets.inspection import find_without_looking
from imagesets.opening.decoders import shared_decoders
from imagesets.scan import BadPicture, ScanReport, scan_beginning, scan_sources
from imagesets.streams import open_streams

STREAM_LOOKED_AT = 200
"""How many pictures of a stream are looked at by those who look before training."""

_REASONS_SHOWN = 20


def pictures_of(recipe: Recipe, warn: Callable[[str], None]) -> Pictures:
    """Return what a recipe is trained on: its pictures, scanned and planned, or a stream of them.

    Args:
        recipe: the recipe.
        warn: told of pictures of a stream that are left out, of what is another way here than a file of sources says,
            and of what is wrong with a listed set though it can be trained on.

    Raises:
        RecipeError: the recipe asks for what a stream cannot give.
        DataError: a source cannot be read at all, or a picture cannot be used and the recipe says stop.
        AtelierError: no process that decodes pictures can be started.
    """
    for note in read_sources(recipe)[1]:
        warn(f"{note.source}: {note.name}: {note.text}")
    if streams_pictures(recipe):
        return stream_pictures(recipe, warn)
    report = scan_pictures(recipe)
    require_usable(report, recipe.data.on_bad_image)
    pictures = plan_pictures(recipe, report)
    for finding in find_without_looking(report, training_plan(recipe, pictures, steps=recipe.training.steps)):
        if finding.severity == "error":
            warn(finding.line())
    return pictures


def scan_pictures(
    recipe: Recipe, progress: Callable[[int, int], None] | None = None, *, with_keys: bool = True
) -> ScanReport:
    """Read and check every picture and caption the recipe names; of a stream its beginning.

    Args:
        recipe: the recipe.
        progress: called with (done, total) as pictures are read.
        with_keys: whether errors name the setting of the source; not where nobody has written a recipe.

    Raises:
        DataError: a source cannot be read at all.
        AtelierError: no process that decodes pictures can be started.
    """
    data = recipe.data
    sources, notes = read_sources(recipe)
    scan = partial(scan_beginning, count=STREAM_LOOKED_AT) if streams_pictures(recipe) else scan_sources
    try:
        report = scan(
            [each.source for each in sources],
            background=data.background,
            max_pixels=_max_pixels(recipe),
            progress=progress,
        )
    except imagesets.SourceError as error:
        raise DataError(_said_of_source(error, sources) if with_keys else str(error)) from error
    except imagesets.DecoderError as error:
        raise AtelierError(str(error)) from error
    return replace(report, notes=(*report.notes, *notes))


def require_usable(report: ScanReport, on_bad_image: str) -> None:
    """Stop where a picture cannot be used and the recipe does not say `skip`.

    Raises:
        DataError: naming each bad picture with its reason.
    """
    if report.bad and on_bad_image == "stop":
        raise DataError(
            f"{report.describe_bad(_REASONS_SHOWN)}\n"
            "Mend or remove them, or train without them: data.on_bad_image=skip (atelier check lists them all)"
        )
    if not report.samples:
        said = report.describe_bad(_REASONS_SHOWN) if report.bad else "there is no picture"
        raise DataError(f"{said}\nThere is nothing left to train on: mend them, or give others in data.sources")


def plan_pictures(recipe: Recipe, report: ScanReport) -> TrainingPictures:
    """Assign buckets and set the order of training."""
    return TrainingPictures(
        samples=report.samples,
        buckets=bucket_sizes(recipe.data.buckets),
        crop=recipe.data.crop,
        flip_probability=recipe.data.flip_probability,
        caption_dropout=recipe.training.caption_dropout,
        micro_batch_size=recipe.training.micro_batch_size,
        batches_per_step=recipe.training.global_batch_size // recipe.training.micro_batch_size,
        seed=recipe.seed,
        crops_per_picture=recipe.data.crops_per_picture,
    )


def stream_pictures(recipe: Recipe, warn: Callable[[str], None]) -> StreamedPictures:
    """Open the sources of a recipe to be read as they come; those that are no streams are listed.

    Args:
        recipe: a recipe of which `streams_pictures` holds.
        warn: told of pictures that are left out.

    Raises:
        RecipeError: it asks for what only a listed set can give.
        DataError: a source cannot be read at all.
    """
    data, training = recipe.data, recipe.training
    require_streamable(recipe)
    max_pixels = _max_pixels(recipe)
    sources = read_sources(recipe)[0]
    try:
        streams = open_streams([each.source for each in sources])
    except imagesets.SourceError as error:
        raise DataError(_said_of_source(error, sources)) from error
    return StreamedPictures(
        streams=streams,
        opening=Opening(shared_decoders(max_pixels), parse_colour(data.background), max_pixels),
        buckets=bucket_sizes(data.buckets),
        crop=data.crop,
        flip_probability=data.flip_probability,
        caption_dropout=training.caption_dropout,
        micro_batch_size=training.micro_batch_size,
        batches_per_step=training.global_batch_size // training.micro_batch_size,
        seed=recipe.seed,
        max_held=data.stream_buffer.pictures,
        max_held_bytes=data.stream_buffer.megabytes * 2**20,
        on_bad=_BadInStream(data.on_bad_image, warn),
        warn=warn,
    )


def _said_of_source(error: imagesets.SourceError, sources: Sequence[ReadSource]) -> str:
    """Say of which source an error is, and how to name another folder where it has no pictures."""
    if error.place is None:
        return str(error)
    read = sources[error.place]
    said = f"{read.settings}: {error}"
    # What stands in a file that the key names is changed there.
    if isinstance(error, imagesets.NoPicturesError) and read.settings == read.key:
        said += f"\nName the pictures with: {read.key}.path=FOLDER"
    return said


class _BadInStream:
    """What is done with pictures of a stream that cannot be used: as a recipe says, stop, or tell of the first."""

    def __init__(self, on_bad_image: str, warn: Callable[[str], None]) -> None:
        self._stops = on_bad_image == "stop"
        self._warn = warn
        self._count = 0

    def __call__(self, bad: BadPicture) -> None:
        """Stop or warn.

        Raises:
            DataError: the recipe says so.
        """
        said = f"{bad.source}: {bad.name}: {bad.reason}"
        if self._stops:
            raise DataError(f"{said}\nMend or remove it, or leave such pictures out: data.on_bad_image=skip")
        self._count += 1
        if self._count <= _REASONS_SHOWN:
            more = ". More of them are left out without a word" if self._count == _REASONS_SHOWN else ""
            self._warn(f"left out: {said}{more}")


def _max_pixels(recipe: Recipe) -> int:
    return round(recipe.data.max_megapixels * 1_000_000)
