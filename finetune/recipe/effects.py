"""Finds settings that have no effect, or hardly can be meant, in a recipe that is valid.

Every rule looks only at settings that were written down: a default nobody chose is not worth a warning. What only the
model or the pictures can tell (a v-prediction base under `prediction_type: auto`) is not asked here.
"""

from collections.abc import Callable, Iterator

from finetune.recipe.base import Settings
from finetune.recipe.model import MiniatureModel
from finetune.recipe.schema import (
    Buckets,
    FullPart,
    FullTraining,
    GeneratedBuckets,
    LoraAdapter,
    PaperBuckets,
    ProdigyOptimizer,
    Recipe,
    SmallAdapter,
    SymmetricBuckets,
    TextLora,
    UNetLora,
    VaeTraining,
)


def recipe_warnings(recipe: Recipe) -> list[str]:
    """Return one line for each setting without effect, as `key: what is the matter`."""
    return [line for rule in _RULES for line in rule(recipe)]


def _was_written(section: Settings, name: str) -> bool:
    """Whether a setting was written down with something other than its default."""
    return name in section.model_fields_set and getattr(section, name) != type(section).model_fields[name].default


def _trained(recipe: Recipe) -> Iterator[tuple[str, UNetLora | TextLora | FullPart]]:
    adapter = recipe.adapter
    if not isinstance(adapter, SmallAdapter | FullTraining):
        return
    for name, part in (
        ("unet", adapter.unet),
        ("text_encoder", adapter.text_encoder),
        ("text_encoder_2", adapter.text_encoder_2),
    ):
        if part is not None:
            yield f"adapter.{name}", part


def _vae(recipe: Recipe) -> Iterator[str]:
    """Training the VAE needs neither text nor noise levels, and is shown by reconstructions."""
    if not isinstance(recipe.adapter, VaeTraining):
        return
    nothing = "has no effect with adapter.kind: vae"
    if recipe.refiner is not None:
        yield f"refiner: {nothing}"
    if _was_written(recipe, "cache"):
        yield f"cache: {nothing}"
    for section, key, names in (
        (
            recipe.training,
            "training",
            ("objective", "caption_dropout", "max_caption_tokens", "weighted_captions", "cache_latents"),
        ),
        (recipe.preview, "preview", ("prompts", "num_inference_steps", "guidance_scale", "refiner")),
    ):
        yield from (f"{key}.{name}: {nothing}" for name in names if _was_written(section, name))
    if recipe.adapter.parts == "decoder":
        yield from (
            f"adapter.loss.{name}: judges latents, and has no effect with adapter.parts: decoder"
            for name in ("kl", "decorrelation")
            if _was_written(recipe.adapter.loss, name)
        )
    if recipe.training.precision == "fp16":
        yield "training.precision: fp16 overflows in SDXL's VAE, which is computed in fp32 instead"


def _refiner(recipe: Recipe) -> Iterator[str]:
    if isinstance(recipe.adapter, VaeTraining):
        return
    if recipe.refiner is None and _was_written(recipe.preview, "refiner"):
        yield "preview.refiner: has no effect without a refiner; set refiner to a model, or leave it out"
    if recipe.refiner is not None and not recipe.preview.prompts:
        yield "refiner: has no effect without previews; give preview.prompts"


def _previews(recipe: Recipe) -> Iterator[str]:
    preview = recipe.preview
    if isinstance(recipe.adapter, VaeTraining):
        return
    if not preview.prompts:
        for name in ("every_steps", "num_inference_steps", "guidance_scale"):
            if _was_written(preview, name):
                yield f"preview.{name}: has no effect without preview.prompts"
    if preview.guidance_scale <= 1:
        for index, prompt in enumerate(preview.prompts):
            if prompt.negative_prompt:
                yield (
                    f"preview.prompts.{index}.negative_prompt: has no effect with preview.guidance_scale "
                    f"{preview.guidance_scale:g}; needs more than 1"
                )


def _stops(recipe: Recipe) -> Iterator[str]:
    steps = recipe.training.steps
    for key, part in _trained(recipe):
        if part.stop_after_steps is not None and part.stop_after_steps >= steps:
            yield f"{key}.stop_after_steps: {part.stop_after_steps} has no effect with training.steps {steps}"


def _schedule(recipe: Recipe) -> Iterator[str]:
    warmup, steps = recipe.training.lr_schedule.warmup_steps, recipe.training.steps
    if warmup >= steps:
        yield (
            f"training.lr_schedule.warmup_steps: {warmup} is all of training.steps {steps}, so the learning rate is "
            "never reached"
        )


def _intervals(recipe: Recipe) -> Iterator[str]:
    steps = recipe.training.steps
    for name, section in (("checkpoint", recipe.checkpoint), ("preview", recipe.preview)):
        every = section.every_steps
        if every is not None and every > steps and _was_written(section, "every_steps"):
            yield f"{name}.every_steps: {every} is more than training.steps {steps}, so only the end counts"


def _objective(recipe: Recipe) -> Iterator[str]:
    objective = recipe.training.objective
    if objective.zero_terminal_snr and objective.prediction_type == "epsilon":
        yield (
            "training.objective.zero_terminal_snr: with prediction_type epsilon the last timestep holds no picture "
            "and the noise is given away; it is meant for v_prediction"
        )


def _buckets(recipe: Recipe) -> Iterator[str]:
    named: list[tuple[str, Buckets | None]] = [("data.buckets", recipe.data.buckets)]
    named += [(f"data.sources.{index}.buckets", source.buckets) for index, source in enumerate(recipe.data.sources)]
    for key, buckets in named:
        if isinstance(recipe.model, MiniatureModel):
            if isinstance(buckets, PaperBuckets | SymmetricBuckets):
                yield f"{key}: {buckets.kind} means sizes near 1024, far above the miniature's own 64"
            elif isinstance(buckets, GeneratedBuckets) and buckets.step % 16 != 0:
                yield f"{key}.step: {buckets.step} is not a multiple of 16, which the miniature needs"
        elif isinstance(buckets, GeneratedBuckets) and buckets.step % 8 != 0:
            yield f"{key}.step: {buckets.step} is not a multiple of 8, which SDXL's VAE needs"


def _rates(recipe: Recipe) -> Iterator[str]:
    if not isinstance(recipe.training.optimizer, ProdigyOptimizer):
        return
    rates = [(key, part.learning_rate) for key, part in _trained(recipe)]
    if isinstance(recipe.adapter, VaeTraining):
        rates.append(("adapter", recipe.adapter.learning_rate))
    for key, rate in rates:
        if rate < 0.1:
            yield (
                f"{key}.learning_rate: {rate:g} is a factor with kind: prodigy, which finds the rate itself; use 1.0"
            )


def _caption_extension(recipe: Recipe) -> Iterator[str]:
    for index, source in enumerate(recipe.data.sources):
        if source.kind == "folder" and source.captions == "metadata" and _was_written(source, "caption_extension"):
            yield f"data.sources.{index}.caption_extension: has no effect with captions: metadata"
        if source.kind == "folder" and source.captions == "files" and source.metadata_file is not None:
            yield f"data.sources.{index}.metadata_file: has no effect with captions: files"


def _wording(recipe: Recipe) -> Iterator[str]:
    for index, source in enumerate(recipe.data.sources):
        wording, key = source.wording, f"data.sources.{index}.wording"
        if wording is None:
            continue
        if source.kind == "kohya_config" and _was_written(source, "variants"):
            yield f"data.sources.{index}.variants: has no effect with a wording, which has its own"
        if isinstance(recipe.adapter, VaeTraining):
            yield f"{key}: has no effect with adapter.kind: vae"
            continue
        frozen = not any(name.startswith("adapter.text") for name, _ in _trained(recipe))
        draws_tags = wording.shuffle or wording.tag_dropout > 0.0
        if not draws_tags:
            signs = wording.keep_separator or wording.secondary_separator
            for name in ("keep_first",) if signs else ("separator", "keep_first"):
                if _was_written(wording, name):
                    yield f"{key}.{name}: has no effect without shuffle or tag_dropout"
        draws = draws_tags or wording.wildcards
        if draws and frozen and wording.variants is None:
            yield (
                f"{key}.variants: null words captions anew at each showing, which frozen text encoders cannot encode "
                "beforehand: a run will stop. Set variants: 8, or train a text encoder"
            )
        if not draws and _was_written(wording, "variants"):
            yield f"{key}.variants: has no effect without shuffle, tag_dropout or wildcards"


def _weights(recipe: Recipe) -> Iterator[str]:
    if all(source.loss_weight == 0.0 for source in recipe.data.sources):
        yield "data.sources.*.loss_weight: is 0 for every source, so nothing is learned"


def _prior(recipe: Recipe) -> Iterator[str]:
    prior = recipe.training.prior_preservation
    if prior is not None and prior.class_word and not any(source.trigger for source in recipe.data.sources):
        yield (
            "training.prior_preservation.class_word: has no effect: no source has a trigger for it to replace. Set "
            "data.sources.0.trigger"
        )
    for index, source in enumerate(recipe.data.sources):
        trigger = source.trigger.strip().casefold()
        if prior is not None and trigger and prior.class_word.strip().casefold() == trigger:
            yield (
                f"training.prior_preservation.class_word: {prior.class_word!r} is the trigger of data.sources.{index}, "
                "so what is learned is held near the base as it is called up; name what it is one of, as 'dog'"
            )


def _crops(recipe: Recipe) -> Iterator[str]:
    if recipe.data.crop == "center" and recipe.data.crops_per_picture is not None:
        yield "data.crops_per_picture: has no effect with crop: center, which has one place; set crop: random"


def _lora_formats(recipe: Recipe) -> Iterator[str]:
    kind = recipe.adapter.kind
    if isinstance(recipe.adapter, SmallAdapter):
        return
    for name in ("formats", "title", "author", "license", "metadata"):
        if _was_written(recipe.export, name):
            yield f"export.{name}: has no effect with adapter.kind: {kind}, which is exported as a folder of models"


def _dora_export(recipe: Recipe) -> Iterator[str]:
    adapter = recipe.adapter
    if isinstance(adapter, LoraAdapter) and adapter.use_dora and "diffusers" not in recipe.export.formats:
        yield (
            "export.formats: kohya's form of DoRA is read exactly by LyCORIS alone; ComfyUI and Forge scale it "
            "otherwise and diffusers leaves it out. Add diffusers: export.formats=[kohya, diffusers]"
        )


_RULES: tuple[Callable[[Recipe], Iterator[str]], ...] = (
    _caption_extension,
    _buckets,
    _stops,
    _objective,
    _rates,
    _schedule,
    _vae,
    _refiner,
    _previews,
    _intervals,
    _crops,
    _wording,
    _weights,
    _prior,
    _lora_formats,
    _dora_export,
)
