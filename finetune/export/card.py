"""The card of an exported LoRA: a README.md as the Hugging Face hub shows it, with pictures beside it.

    exports/<name>-card/
      README.md      a head of YAML that the hub reads, and words for people
      images/        the newest previews with the LoRA up to its step, made small, without the settings PNGs carry

To publish, put README.md, images/ and the exported file into one repository. Whatever a recipe says (prompts, trigger
words, a title) stands there as text: it cannot become markup, nor end the head. No path of the machine, no name of a
folder and no caption is written; with `export.metadata: minimal` no trigger words, prompts, pictures and figures of the
training either. It does not write the LoRA, and needs no torch.
"""

import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import AtelierError
from finetune.recipe.schema import HubModel, MiniatureModel, Recipe, SmallAdapter
from finetune.run.durable import whole_folder
from finetune.run.folder import RunFolder

if TYPE_CHECKING:
    from finetune.export.metadata import ExportFacts

TAGS = ("text-to-image", "diffusers", "lora", "template:sd-lora", "stable-diffusion-xl")
"""What the hub files it under; `template:sd-lora` shows the gallery."""

LARGEST_SIDE_PX = 768
MOST_PICTURES = 12

_LICENSES = frozenset({
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bigcode-openrail-m", "bigscience-openrail-m", "bsd",
    "bsd-2-clause", "bsd-3-clause", "cc", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0",
    "cc-by-nc-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0",
    "creativeml-openrail-m", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-3.0", "mit", "mpl-2.0", "openrail",
    "openrail++", "unlicense", "wtfpl",
})  # fmt: skip
"""Names the hub knows (https://huggingface.co/docs/hub/repositories-licenses); any other is `other` with a name."""

_PICTURE = re.compile(r"(?P<prompt>[0-9]{2,4})-lora\.png", re.ASCII)
_STEP = re.compile(r"step-(?P<step>[0-9]{6,9})", re.ASCII)
_JOINERS = "\u200c\u200d"
_SHAPELESS = ("Cc", "Cf", "Cs")
# A backslash makes any of these a plain letter (CommonMark 0.31, section 2.4); those that read better without stay.
_ESCAPED = str.maketrans({mark: f"\\{mark}" for mark in string.punctuation if mark not in "%',;?"})


@dataclass(frozen=True)
class Shown:
    """A picture of the gallery.

    Attributes:
        source: the preview.
        name: relative to the card.
        prompt, negative_prompt: what it was drawn with.
    """

    source: Path
    name: str
    prompt: str
    negative_prompt: str


def write_card(run: RunFolder, recipe: Recipe, facts: "ExportFacts", files: Sequence[Path]) -> tuple[Path, ...]:
    """Write the card of a run's export, whole or not at all; an older one of the same name is replaced.

    Args:
        run: the run, for its previews.
        recipe: its resolved recipe, of a LoRA.
        facts: what is known about the export.
        files: what was exported.

    Returns:
        README.md, and the pictures.

    Raises:
        AtelierError: a preview cannot be read.
        DiskError: the disk refuses.
    """
    minimal = recipe.export.metadata == "minimal"
    pictures = [] if minimal else newest_pictures(run, recipe, facts.steps)
    names = [path.relative_to(run.exports).as_posix() for path in files]
    target = run.exports / f"{facts.name}-card"
    with whole_folder(target) as folder:
        (folder / "README.md").write_text(card_text(recipe, facts, names, pictures), encoding="utf-8", newline="\n")
        for picture in pictures:
            _write_small(picture.source, folder / picture.name)
    return (target / "README.md", *(target / picture.name for picture in pictures))


def newest_pictures(run: RunFolder, recipe: Recipe, step: int | None) -> list[Shown]:
    """Return the newest previews drawn with the LoRA that are no newer than `step`, with their prompts."""
    folders = [
        (int(match["step"]), path) for path in run.previews.glob("step-*") if (match := _STEP.fullmatch(path.name))
    ]
    for made_at, folder in sorted(folders, reverse=True):
        found = [_shown(path, recipe) for path in sorted(folder.iterdir())] if step is None or made_at <= step else []
        pictures = [picture for picture in found if picture is not None]
        if pictures:
            return pictures[:MOST_PICTURES]
    return []


def card_text(recipe: Recipe, facts: "ExportFacts", files: Sequence[str], pictures: Sequence[Shown]) -> str:
    """Return the whole README.md."""
    minimal = recipe.export.metadata == "minimal"
    title = one_line(facts.title or facts.name)
    parts = [
        f"# {as_markdown(title)}",
        _about(recipe, facts),
        *([] if minimal else [_trigger(facts.trigger)]),
        _use(recipe, facts, files, "" if minimal else pictures[0].prompt if pictures else facts.trigger),
        *([] if minimal else [_training(recipe, facts), _gallery(pictures)]),
        _license(facts.license),
    ]
    body = "\n\n".join(part for part in parts if part)
    return f"---\n{_head(recipe, facts, pictures)}\n---\n\n{body}\n"


def one_line(text: str) -> str:
    """Return text on one line, without what has no shape: control characters, and halves of pairs of surrogates.

    What joins letters stays; what turns the direction of writing round goes.
    """
    spaced = " ".join(text.split())
    return "".join(each for each in spaced if each in _JOINERS or unicodedata.category(each) not in _SHAPELESS)


def as_markdown(text: str) -> str:
    """Return text as Markdown that shows it letter by letter, on one line."""
    return one_line(text).translate(_ESCAPED)


def _head(recipe: Recipe, facts: "ExportFacts", pictures: Sequence[Shown]) -> str:
    """Return what the hub reads."""
    from huggingface_hub import ModelCardData

    more: dict[str, Any] = {}  # what the hub's own class has no argument for
    if recipe.export.metadata != "minimal":
        more["instance_prompt"] = one_line(facts.trigger) or None
        more["widget"] = [_widget(picture) for picture in pictures] or None
    data = ModelCardData(
        base_model=recipe.model.id if isinstance(recipe.model, HubModel) else None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=list(TAGS),
        **(_license_names(facts.license) | more),
    )
    return str(data.to_yaml())


def _widget(picture: Shown) -> dict[str, Any]:
    widget: dict[str, Any] = {"text": one_line(picture.prompt), "output": {"url": picture.name}}
    if picture.negative_prompt:
        widget["parameters"] = {"negative_prompt": one_line(picture.negative_prompt)}
    return widget


def _license_names(given: str) -> dict[str, Any]:
    """Return the licence as the hub names it; nothing where the recipe names none."""
    plain = one_line(given)
    if not plain:
        return {}
    if plain.lower() in _LICENSES:
        return {"license": plain.lower()}
    name = re.sub(r"[^a-z0-9.]+", "-", plain.lower()).strip("-.")
    return {"license": "other", **({"license_name": name} if name else {})}


def _about(recipe: Recipe, facts: "ExportFacts") -> str:
    base = ""
    if isinstance(recipe.model, HubModel):
        base = f" for [{as_markdown(recipe.model.id)}](https://huggingface.co/{recipe.model.id})"
    elif isinstance(recipe.model, MiniatureModel):
        base = " for the miniature that Atelier brings"
    elif recipe.export.metadata != "minimal":
        base = f" for {as_markdown(facts.base_model)}"
    author = f" By {as_markdown(facts.author)}." if one_line(facts.author) else ""
    return f"A LoRA{base}, of the family of Stable Diffusion XL, trained with Atelier.{author}"


def _trigger(trigger: str) -> str:
    if not one_line(trigger):
        return ""
    return f"## Trigger words\n\nPut **{as_markdown(trigger)}** into the prompt to call up what was learned."


def _use(recipe: Recipe, facts: "ExportFacts", files: Sequence[str], prompt: str) -> str:
    """Return how it is drawn with, `prompt` as the example where there is one."""
    weights = next((file for file in files if file.endswith(".safetensors") and "/" not in file), None)
    weights = weights or next((file for file in files if file.endswith("/pytorch_lora_weights.safetensors")), None)
    if weights is None:
        adapters = ", ".join(as_markdown(file) for file in files if file.endswith("adapter_model.safetensors"))
        return f"## Use\n\nLoad it with peft's `PeftModel.from_pretrained`, a folder a model: {adapters}"
    base = recipe.model.id if isinstance(recipe.model, HubModel) else "PATH/OF/THE/BASE-MODEL"
    scheduler = ""
    if facts.prediction_type == "v_prediction":
        ends = ', rescale_betas_zero_snr=True, timestep_spacing="trailing"' if facts.zero_terminal_snr else ""
        scheduler = (
            "pipeline.scheduler = type(pipeline.scheduler).from_config(\n"
            f'    pipeline.scheduler.config, prediction_type="v_prediction"{ends}\n)\n'
        )
    comfy = (
        ""
        if "/" in weights
        else (
            "\n\nComfyUI, A1111, Forge: put the file into the folder of LoRAs (`models/loras`, `models/Lora`), and "
            "load it with *Load LoRA*, or `<lora:NAME:1>` in the prompt."
        )
    )
    return (
        "## Use\n\n```python\nimport torch\nfrom diffusers import StableDiffusionXLPipeline\n\n"
        f"pipeline = StableDiffusionXLPipeline.from_pretrained({base!r}, torch_dtype=torch.float16).to('cuda')\n"
        f"{scheduler}"
        f"pipeline.load_lora_weights('.', weight_name={weights.rpartition('/')[2]!r})\n"
        f"image = pipeline({one_line(prompt) or 'a picture'!r}).images[0]\n```{comfy}"
    )


def _training(recipe: Recipe, facts: "ExportFacts") -> str:
    """Return the training in figures and words of ours; what is not known is left out."""
    adapter = recipe.adapter
    assert isinstance(adapter, SmallAdapter), "a card is an adapter's"
    parts = {"U-Net": adapter.unet, "text encoder": adapter.text_encoder, "text encoder 2": adapter.text_encoder_2}
    trained = {name: part for name, part in parts.items() if part is not None}
    height, width = facts.resolution
    steps = None if facts.steps is None else f"{facts.steps:,}" + _of(facts.steps, facts.max_steps)
    rows: dict[str, str | None] = {
        "Pictures": _count(sum(pictures for _, pictures in facts.folders.values())),
        "Steps": steps,
        "Pictures a step": _count(facts.global_batch_size),
        "Rank": _each({name: str(part.rank) for name, part in trained.items()}),
        "Alpha": _each({name: f"{part.alpha or part.rank:g}" for name, part in trained.items()}),
        "Learning rate": _each({name: f"{part.learning_rate:g}" for name, part in trained.items()}),
        "Schedule": facts.lr_schedule or None,
        "Optimizer": facts.optimizer or None,
        "Resolution": f"{width} x {height} pixels, in buckets of its area",
        "Precision": facts.precision or None,
    }
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows.items() if value is not None)
    return f"## Training\n\n| | |\n|---|---|\n{lines}"


def _gallery(pictures: Sequence[Shown]) -> str:
    if not pictures:
        return ""
    shown = "\n\n".join(f"![{as_markdown(p.prompt)}]({p.name})\n{as_markdown(p.prompt)}" for p in pictures)
    return f"## Pictures\n\n{shown}"


def _license(given: str) -> str:
    if not one_line(given):
        return "## Licence\n\nNone is named here; the base model's licence holds for what is made from it."
    return f"## Licence\n\n{as_markdown(given)}"


def _of(steps: int, total: int | None) -> str:
    return "" if total is None or total == steps else f" of {total:,}"


def _count(number: int) -> str | None:
    return f"{number:,}" if number else None


def _each(values: Mapping[str, str]) -> str:
    """Return one value where all parts have the same, else each with its part."""
    if len(set(values.values())) == 1 and len(values) == 1:
        return next(iter(values.values()))
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _shown(path: Path, recipe: Recipe) -> Shown | None:
    """Return a preview with its prompt, or None where the file is none that was drawn with the LoRA."""
    match = _PICTURE.fullmatch(path.name)
    prompts = recipe.preview.prompts
    if match is None or path.is_symlink() or not path.is_file() or not 1 <= int(match["prompt"]) <= len(prompts):
        return None
    prompt = prompts[int(match["prompt"]) - 1]
    return Shown(path, f"images/{match['prompt']}.jpg", prompt.prompt, prompt.negative_prompt)


def _write_small(source: Path, target: Path) -> None:
    """Write a picture anew, no larger than a page shows it, and without anything but its pixels."""
    from PIL import Image, UnidentifiedImageError

    target.parent.mkdir(exist_ok=True)
    try:
        with Image.open(source, formats=["PNG"]) as picture:
            small = picture.convert("RGB")
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise AtelierError(f"{source}: this preview cannot be read: {error}. Remove it, or leave --card out") from error
    small.thumbnail((LARGEST_SIDE_PX, LARGEST_SIDE_PX))
    clean = Image.new("RGB", small.size)
    clean.paste(small)
    clean.save(target, "JPEG", quality=90)
