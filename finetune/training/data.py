"""From a recipe's `data` section to pictures that are ready to be planned. Torch is not needed for it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import imagesets
import imagesets.masks
from finetune.errors import AtelierError, DataError
from finetune.recipe import Recipe, resolve_data_path
from finetune.recipe.schema import (
    AlphaMask,
    Buckets,
    FileMask,
    FolderSource,
    GeneratedBuckets,
    HuggingFaceSource,
    KohyaSource,
    ListedBuckets,
    Mask,
    PaperBuckets,
    Source,
    Training,
    WebDatasetSource,
)
from finetune.training.pictures import Size, TrainingPictures
from imagesets.buckets import PAPER_BUCKETS, generated_buckets, symmetric_buckets
from imagesets.masks import MaskOptions
from imagesets.reading.addresses import is_remote
from imagesets.scan import ScanReport, scan_sources
from imagesets.sources import SourceOptions
from imagesets.wording import Wording

_REASONS_SHOWN = 20


def scan_pictures(recipe: Recipe, progress: Callable[[int, int], None] | None = None) -> ScanReport:
    """Read and check every picture and caption the recipe names.

    Args:
        recipe: the recipe.
        progress: called with (done, total) as pictures are read.

    Raises:
        DataError: a source cannot be read at all.
        AtelierError: no process that decodes pictures can be started.
    """
    data = recipe.data
    try:
        return scan_sources(
            [imageset_source(source, recipe.training) for source in data.sources],
            background=data.background,
            max_pixels=round(data.max_megapixels * 1_000_000),
            progress=progress,
        )
    except imagesets.SourceError as error:
        raise DataError(f"{error}\nName the pictures with: data.sources.0.path=FOLDER") from error
    except imagesets.DecoderError as error:
        raise AtelierError(str(error)) from error


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
        raise DataError("no picture can be used. Give a folder with JPEG, PNG or WebP files: data.sources.0.path=…")


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


def bucket_sizes(buckets: Buckets) -> Sequence[Size]:
    """Return the (height, width) of every bucket a recipe allows."""
    match buckets:
        case PaperBuckets():
            return PAPER_BUCKETS
        case GeneratedBuckets():
            return generated_buckets(buckets.resolution, buckets.step, buckets.max_aspect)
        case ListedBuckets():
            return buckets.sizes
        case _:
            return symmetric_buckets()


def mask_options(mask: Mask | None) -> MaskOptions | None:
    """Return where a source has its masks, as `imagesets` reads it."""
    match mask:
        case AlphaMask():
            return imagesets.masks.AlphaMask(mask.weight_outside)
        case FileMask():
            folder = None if mask.folder is None else Path(mask.folder).expanduser()
            return imagesets.masks.FileMask(mask.weight_outside, mask.ending, folder)
        case None:
            return None


def imageset_source(source: Source, training: Training) -> imagesets.Source:
    """Return a recipe's source as `imagesets` reads it."""
    options = SourceOptions(
        repeats=source.repeats,
        trigger=source.trigger,
        buckets=None if source.buckets is None else tuple(bucket_sizes(source.buckets)),
        aesthetic_score=source.aesthetic_score,
        wording=None
        if source.wording is None
        else Wording(**source.wording.model_dump(), keep_brackets=training.weighted_captions),
        loss_weight=source.loss_weight,
        mask=mask_options(source.mask),
    )
    match source:
        case FolderSource():
            return imagesets.FolderSource(
                path=resolve_data_path(source.path),
                recursive=source.recursive,
                captions=source.captions,
                caption_extension=source.caption_extension,
                metadata_file=None if source.metadata_file is None else resolve_data_path(source.metadata_file),
                **vars(options),
            )
        case KohyaSource():
            return imagesets.KohyaSource(path=resolve_data_path(source.path), **vars(options))
        case HuggingFaceSource():
            return imagesets.HuggingFaceSource(
                name=source.name,
                config_name=source.config_name,
                revision=source.revision,
                split=source.split,
                image_column=source.image_column,
                caption_column=source.caption_column,
                streaming=source.streaming,
                num_pictures=source.num_pictures,
                **vars(options),
            )
        case WebDatasetSource():
            return imagesets.WebDatasetSource(
                path=source.path if is_remote(source.path) else str(Path(source.path).expanduser()),
                caption_extension=source.caption_extension,
                json_field=source.json_field,
                streaming=source.streaming,
                num_pictures=source.num_pictures,
                **vars(options),
            )
