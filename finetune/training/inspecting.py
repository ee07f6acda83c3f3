"""From a recipe and its planned pictures to what an inspection has to know of the training. Torch is not needed."""

import imagesets
from finetune.recipe import Recipe
from finetune.training.pictures import TrainingPictures
from finetune.training.sources import read_sources
from imagesets.inspection import SourcePlan, TrainingPlan


def training_plan(recipe: Recipe, pictures: TrainingPictures | None, *, steps: int | None = None) -> TrainingPlan:
    """Say what training will do with the pictures.

    Args:
        recipe: the recipe.
        pictures: as training has planned them; None where none is usable.
        steps: of the whole run; None where nobody has said.
    """
    training = recipe.training
    return TrainingPlan(
        buckets=() if pictures is None else tuple(pictures.bucket_of(index) for index in range(len(pictures.samples))),
        sources=_sources(recipe),
        micro_batch_size=training.micro_batch_size,
        batches_per_step=training.global_batch_size // training.micro_batch_size,
        steps_per_epoch=0 if pictures is None else pictures.steps_per_epoch,
        steps=steps,
        crop=recipe.data.crop,
        flip_probability=recipe.data.flip_probability,
        background=recipe.data.background,
        stops_at_bad=recipe.data.on_bad_image == "stop",
        max_tokens=training.max_caption_tokens,
        weighted=training.weighted_captions,
    )


def _sources(recipe: Recipe) -> tuple[SourcePlan, ...]:
    return tuple(
        SourcePlan(
            label=each.source.label,
            key=each.key,
            trigger=each.source.trigger,
            repeats=each.source.repeats,
            caption_extension=_caption_extension(each.source),
            place="" if each.settings == each.key else each.settings,
        )
        for each in read_sources(recipe)[0]
    )


def _caption_extension(source: imagesets.Source) -> str | None:
    """Return the one ending of a source's captions; None where it has several, or captions come from elsewhere."""
    if not isinstance(source, imagesets.FolderSource) or source.captions == "metadata":
        return None
    return None if source.more_caption_extensions else source.caption_extension
