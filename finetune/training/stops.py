"""What makes a run stop before its first step, as far as it is known without opening a model. Torch is not needed.

`atelier check` and `atelier train` ask `find_stops` alike; each part of a run that goes by a rule asks for it again,
for callers who come another way.
"""

from collections.abc import Callable, Iterable

from finetune.errors import AtelierError, DataError, RecipeError
from finetune.model.geometry import KnownModel, look_at_model
from finetune.preview.requests import resolve_requests
from finetune.recipe import Recipe
from finetune.recipe.schema import HuggingFaceSource, VaeTraining, WebDatasetSource
from finetune.training.pictures import Pictures, Size
from finetune.training.sources import bucket_sizes, imageset_sources
from imagesets.streams import possible_buckets


def find_stops(recipe: Recipe, pictures: Pictures | None) -> list[AtelierError]:
    """Return what a run of the recipe would stop at, in the order in which it would.

    Args:
        recipe: the recipe.
        pictures: as they were planned; None where none can be used.
    """
    streamed = streams_pictures(recipe)
    rules: list[Callable[[], object]] = []
    if streamed:
        rules.append(lambda: require_streamable(recipe))
    if not isinstance(recipe.adapter, VaeTraining):
        if not streamed:
            rules.append(lambda: require_cacheable_cuts(recipe))
        if pictures is not None and not streamed and not trains_text(recipe):
            rules.append(lambda: require_finite_captions(recipe, pictures))
        if recipe.refiner is not None:
            rules.append(lambda: require_refiner(recipe))
    rules.append(lambda: require_suiting_model(recipe, pictures))
    found: list[AtelierError] = []
    for rule in rules:
        try:
            rule()
        except AtelierError as error:
            found.append(error)
    return found


def require_startable(recipe: Recipe, pictures: Pictures) -> None:
    """Raise the first of what `find_stops` finds."""
    for error in find_stops(recipe, pictures):
        raise error


def streams_pictures(recipe: Recipe) -> bool:
    """Whether a source is read as it comes, and so the whole set is."""
    return any(
        isinstance(source, HuggingFaceSource | WebDatasetSource) and source.streaming for source in recipe.data.sources
    )


def trains_text(recipe: Recipe) -> bool:
    """Whether a text encoder is trained, by an adapter or by its own weights."""
    adapter = recipe.adapter
    assert not isinstance(adapter, VaeTraining), "a VAE has no text"
    return adapter.text_encoder is not None or adapter.text_encoder_2 is not None


def require_streamable(recipe: Recipe) -> None:
    """Stop where a recipe asks of a stream what only a listed set can give. Raises RecipeError."""
    if isinstance(recipe.adapter, VaeTraining):
        raise RecipeError("data.sources.*.streaming: training a VAE takes listed pictures. Set streaming: false")
    if recipe.training.cache_latents == "always":
        raise RecipeError(
            "training.cache_latents: got 'always', but a source is read as it comes (streaming: true) and kept "
            "nowhere. Set training.cache_latents=auto, or streaming: false"
        )


def require_cacheable_cuts(recipe: Recipe) -> None:
    """Stop where latents must be cached of cuts without number. Raises RecipeError."""
    data = recipe.data
    if recipe.training.cache_latents == "always" and data.crop == "random" and data.crops_per_picture is None:
        raise RecipeError(
            "training.cache_latents: got 'always', but data.crop=random cuts every picture anew each time. "
            "Set data.crops_per_picture=8 or data.crop=center, or training.cache_latents=auto"
        )


def require_finite_captions(recipe: Recipe, pictures: Pictures) -> None:
    """Stop where frozen encoders would have captions without number to encode. Raises RecipeError."""
    if not trains_text(recipe) and not pictures.has_finite_captions:
        raise RecipeError(
            "data.sources.*.wording.variants: got null, which words captions anew at each showing, but frozen text "
            "encoders encode all captions before the first step. Set variants: 8, or train a text encoder"
        )


def require_refiner(recipe: Recipe) -> None:
    """Stop where the previews' refiner is not there, or is none. Raises RecipeError."""
    assert recipe.refiner is not None, "asked for where there is one"
    known = look_at_model(recipe.refiner, section="refiner", refiner=True)
    if known is not None and known.has_first_encoder:
        raise RecipeError("refiner: this is a base model; a refiner is needed here")


def require_suiting_model(recipe: Recipe, pictures: Pictures | None) -> None:
    """Stop where a model that is on this machine is not there, or does not take what the recipe gives it.

    Raises:
        RecipeError: no model, an encoder that it does not have, or a preview's size.
        DataError: a bucket.
    """
    known = look_at_model(recipe.model)
    if known is None:
        return
    if not isinstance(recipe.adapter, VaeTraining):
        require_drawable_previews(recipe, has_first_encoder=known.has_first_encoder)
        require_trained_encoders(recipe, known)
    if pictures is not None:
        sizes = pictures.used_buckets()
        if streams_pictures(recipe):  # of which the pictures may be the beginning alone
            sizes = possible_buckets(imageset_sources(recipe), bucket_sizes(recipe.data.buckets))
        require_fitting_buckets(sizes, known.geometry.size_multiple)
    if not isinstance(recipe.adapter, VaeTraining):
        resolve_requests(recipe.preview.prompts, known.geometry)


def require_drawable_previews(recipe: Recipe, *, has_first_encoder: bool) -> None:
    """Stop where a refiner is asked to draw from a prompt alone. Raises RecipeError."""
    if not has_first_encoder and recipe.preview.prompts:
        raise RecipeError(
            "preview.prompts: the model is a refiner, which goes on with what a base has begun and draws nothing from "
            "a prompt alone. Leave preview.prompts out"
        )


def require_trained_encoders(recipe: Recipe, known: KnownModel) -> None:
    """Stop where an encoder is to be trained that the model does not have. Raises RecipeError."""
    adapter = recipe.adapter
    assert not isinstance(adapter, VaeTraining), "a VAE has no text"
    if adapter.text_encoder is not None and not known.has_first_encoder:
        raise RecipeError("adapter.text_encoder: this model has no such encoder. Leave it out")


def require_fitting_buckets(buckets: Iterable[Size], multiple: int) -> None:
    """Stop where a bucket, (height, width), has a side the model cannot take.

    Raises:
        DataError: with the bucket and what to set.
    """
    for bucket in sorted(buckets):
        if any(side % multiple for side in bucket):
            raise DataError(
                f"bucket {bucket[0]} x {bucket[1]} (height x width): this model takes multiples of {multiple}. "
                f"Set data.buckets.kind=generated data.buckets.step={max(multiple, 8)}"
            )
