"""The card of a LoRA: a README.md as the Hugging Face hub shows it, with pictures beside it.

Whatever is said of a LoRA (prompts, trigger words, a title) stands there as text: it cannot become markup, nor end the
head. What there is to say is gathered by others; nothing here knows runs, recipes or files. Torch is not needed.
"""

import io
import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.errors import AtelierError
from finetune.run.durable import whole_folder

TAGS = ("text-to-image", "diffusers", "lora", "template:sd-lora", "stable-diffusion-xl")
"""What the hub files it under; `template:sd-lora` shows the gallery."""

LARGEST_SIDE_PX = 768

_LICENSES = frozenset({
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bigcode-openrail-m", "bigscience-openrail-m", "bsd",
    "bsd-2-clause", "bsd-3-clause", "cc", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0",
    "cc-by-nc-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0",
    "creativeml-openrail-m", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-3.0", "mit", "mpl-2.0", "openrail",
    "openrail++", "unlicense", "wtfpl",
})  # fmt: skip
"""Names the hub knows (https://huggingface.co/docs/hub/repositories-licenses); any other is `other` with a name."""

# Nothing in it can be markup or an address, and a point escaped in each number is ugly to read.
_PLAIN = re.compile(r"(?:[A-Za-z0-9 ,%+-]|(?<=[0-9])\.(?=[0-9]))*", re.ASCII)
_JOINERS = "\u200c\u200d"
_SHAPELESS = ("Cc", "Cf", "Cs")
# A backslash makes any of these a plain letter (CommonMark 0.31, section 2.4); those that read better without stay.
_ESCAPED = str.maketrans({mark: f"\\{mark}" for mark in string.punctuation if mark not in "%',;?"})


@dataclass(frozen=True)
class Shown:
    """A picture of the gallery.

    Attributes:
        source: the picture.
        name: relative to the card.
        prompt, negative_prompt: what it was drawn with.
    """

    source: Path
    name: str
    prompt: str
    negative_prompt: str


@dataclass(frozen=True)
class CardContent:
    """What a card says. Text is as it was given: it is made harmless where it is written.

    Attributes:
        name: what the LoRA is called where it has no title.
        title, author, license, trigger: words about it; empty where there are none.
        base_id: the base model's id on the hub, or None.
        base_words: what is said of the base where it has none, as 'for my-base.safetensors'.
        files: what is published beside the card, relative to it.
        prompt: the example's; empty where nothing may be told.
        figures: of the training, by name.
        pictures: the gallery.
        predicts_v, has_zero_terminal_snr: what its base was taught to predict, and from which last noise level.
        trained_here: whether this kit has trained it.
    """

    name: str
    title: str = ""
    author: str = ""
    license: str = ""
    trigger: str = ""
    base_id: str | None = None
    base_words: str = ""
    files: Sequence[str] = ()
    prompt: str = ""
    figures: Mapping[str, str] = field(default_factory=dict)
    pictures: Sequence[Shown] = ()
    predicts_v: bool = False
    has_zero_terminal_snr: bool = False
    trained_here: bool = True


def write_card_folder(target: Path, content: CardContent) -> tuple[Path, ...]:
    """Write a card and its pictures as the folder `target`, whole or not at all; an older one is replaced.

    Returns:
        README.md, and the pictures.

    Raises:
        AtelierError: a picture cannot be read.
        DiskError: the disk refuses.
    """
    with whole_folder(target) as folder:
        (folder / "README.md").write_text(render_card(content), encoding="utf-8", newline="\n")
        for picture in content.pictures:
            (folder / picture.name).parent.mkdir(exist_ok=True)
            (folder / picture.name).write_bytes(small_copy(picture.source, LARGEST_SIDE_PX))
    return (target / "README.md", *(target / picture.name for picture in content.pictures))


def render_card(content: CardContent) -> str:
    """Return the whole README.md."""
    parts = [
        f"# {as_markdown(content.title or content.name)}",
        _about(content),
        _trigger(content.trigger),
        _use(content),
        _training(content.figures),
        _gallery(content.pictures),
        _license(content.license),
    ]
    body = "\n\n".join(part for part in parts if part)
    return f"---\n{_head(content)}\n---\n\n{body}\n"


def one_line(text: str) -> str:
    """Return text on one line, without what has no shape: control characters, and halves of pairs of surrogates.

    What joins letters stays; what turns the direction of writing round goes.
    """
    spaced = " ".join(text.split())
    return "".join(each for each in spaced if each in _JOINERS or unicodedata.category(each) not in _SHAPELESS)


def as_markdown(text: str) -> str:
    """Return text as Markdown that shows it letter by letter, on one line."""
    return one_line(text).translate(_ESCAPED)


def _head(content: CardContent) -> str:
    """Return what the hub reads."""
    from huggingface_hub import ModelCardData

    more: dict[str, Any] = {  # what the hub's own class has no argument for
        "instance_prompt": one_line(content.trigger) or None,
        "widget": [_widget(picture) for picture in content.pictures] or None,
    }
    data = ModelCardData(
        base_model=content.base_id,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=list(TAGS),
        **(_license_names(content.license) | more),
    )
    return str(data.to_yaml())


def _widget(picture: Shown) -> dict[str, Any]:
    widget: dict[str, Any] = {"text": one_line(picture.prompt), "output": {"url": picture.name}}
    if picture.negative_prompt:
        widget["parameters"] = {"negative_prompt": one_line(picture.negative_prompt)}
    return widget


def _license_names(given: str) -> dict[str, Any]:
    """Return the licence as the hub names it; nothing where none is given."""
    plain = one_line(given)
    if not plain:
        return {}
    if plain.lower() in _LICENSES:
        return {"license": plain.lower()}
    name = re.sub(r"[^a-z0-9.]+", "-", plain.lower()).strip("-.")
    return {"license": "other", **({"license_name": name} if name else {})}


def _about(content: CardContent) -> str:
    base = f" {as_markdown(content.base_words)}" if one_line(content.base_words) else ""
    if content.base_id is not None:
        base = f" for [{as_markdown(content.base_id)}](https://huggingface.co/{content.base_id})"
    author = f" By {as_markdown(content.author)}." if one_line(content.author) else ""
    maker = ", trained with Atelier" if content.trained_here else ""
    return f"A LoRA{base}, of the family of Stable Diffusion XL{maker}.{author}"


def _trigger(trigger: str) -> str:
    if not one_line(trigger):
        return ""
    return f"## Trigger words\n\nPut **{as_markdown(trigger)}** into the prompt to call up what was learned."


def _use(content: CardContent) -> str:
    """Return how it is drawn with."""
    files = content.files
    weights = next((file for file in files if file.endswith(".safetensors") and "/" not in file), None)
    weights = weights or next((file for file in files if file.endswith("/pytorch_lora_weights.safetensors")), None)
    if weights is None:
        adapters = ", ".join(as_markdown(file) for file in files if file.endswith("adapter_model.safetensors"))
        return f"## Use\n\nLoad it with peft's `PeftModel.from_pretrained`, a folder a model: {adapters}"
    base = "PATH/OF/THE/BASE-MODEL" if content.base_id is None else content.base_id
    scheduler = ""
    if content.predicts_v:
        ends = ', rescale_betas_zero_snr=True, timestep_spacing="trailing"' if content.has_zero_terminal_snr else ""
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
        f"image = pipeline({one_line(content.prompt) or 'a picture'!r}).images[0]\n```{comfy}"
    )


def _training(figures: Mapping[str, str]) -> str:
    if not figures:
        return ""
    cells = {as_markdown(name): value if _PLAIN.fullmatch(value) else as_markdown(value)
             for name, value in figures.items()}  # fmt: skip
    lines = "\n".join(f"| {name} | {value} |" for name, value in cells.items())
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


def small_copy(source: Path, side: int) -> bytes:
    """Return a picture anew as JPEG, no larger than `side` pixels, and without anything but its pixels.

    Raises:
        AtelierError: it cannot be read.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(source, formats=["PNG", "JPEG", "WEBP"]) as picture:
            small = picture.convert("RGB")
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise AtelierError(
            f"{source}: this picture cannot be read: {error}. Remove it, or leave the card out"
        ) from error
    small.thumbnail((side, side))
    clean = Image.new("RGB", small.size)
    clean.paste(small)
    content = io.BytesIO()
    clean.save(content, "JPEG", quality=90)
    return content.getvalue()
