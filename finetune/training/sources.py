"""From a recipe's sources to those that `imagesets` reads: mostly one for one. Torch is not needed for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import imagesets
import imagesets.masks
from finetune.errors import DataError
from finetune.recipe import Recipe, resolve_data_path
from finetune.recipe.schema import (
    AlphaMask,
    Buckets,
    FileMask,
    FolderSource,
    GeneratedBuckets,
    HuggingFaceSource,
    KohyaConfigSource,
    KohyaSource,
    ListedBuckets,
    Mask,
    PaperBuckets,
    Source,
    Training,
    WebDatasetSource,
)
from imagesets.buckets import PAPER_BUCKETS, generated_buckets, symmetric_buckets
from imagesets.framing import Size
from imagesets.masks import MaskOptions
from imagesets.reading.addresses import is_remote
from imagesets.reading.kohya_config import KohyaConfig, TakenOver, take_over
from imagesets.samples import Note
from imagesets.sources import SourceOptions
from imagesets.wording import Wording


@dataclass(frozen=True)
class ReadSource:
    """A source as it is read, and where it stands.

    Attributes:
        source: as `imagesets` reads it.
        key: of the recipe's source that it comes from, as 'data.sources.0'.
        settings: what is said of the source stands here: the key, or a place in a file that the key names.
    """

    source: imagesets.Source
    key: str
    settings: str


def read_sources(recipe: Recipe) -> tuple[list[ReadSource], list[Note]]:
    """Return what a recipe's sources are read as, and what is another way than the files they name say.

    Raises:
        DataError: a file that names sources cannot be taken over.
    """
    read: list[ReadSource] = []
    notes: list[Note] = []
    for index, source in enumerate(recipe.data.sources):
        key = f"data.sources.{index}"
        if isinstance(source, KohyaConfigSource):
            name = Path(source.path).name
            taken = _taken_over(source, recipe.training, key)
            read += [ReadSource(each.source, key, f"{each.place} of {name}") for each in taken.subsets]
            notes += [Note(name, place, "setting", text) for place, text in taken.notes.items()]
        else:
            read.append(ReadSource(imageset_source(source, recipe.training), key, key))
    return read, notes


def imageset_sources(recipe: Recipe) -> list[imagesets.Source]:
    """Return a recipe's sources as `imagesets` reads them, in their order.

    Raises:
        DataError: a file that names sources cannot be taken over.
    """
    return [each.source for each in read_sources(recipe)[0]]


def imageset_source(source: Source, training: Training) -> imagesets.Source:
    """Return a recipe's source, other than one that stands for several, as `imagesets` reads it."""
    options = source_options(source, training)
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
        case KohyaConfigSource():
            raise AssertionError("it stands for several: read_sources")


def source_options(source: Source, training: Training) -> SourceOptions:
    """Return what every kind of source has, as `imagesets` reads it."""
    return SourceOptions(
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


def _taken_over(source: KohyaConfigSource, training: Training, key: str) -> TakenOver:
    config = KohyaConfig(
        path=resolve_data_path(source.path),
        base=Path.cwd() if source.base is None else resolve_data_path(source.base),
        options=source_options(source, training),
        leave_out=source.leave_out,
        regularisation_weight=source.regularisation_weight,
        variants=source.variants,
        keep_brackets=training.weighted_captions,
        micro_batch_size=training.micro_batch_size,
    )
    try:
        return take_over(config)
    except imagesets.SourceError as error:
        raise DataError(f"{key}: {error}") from error
