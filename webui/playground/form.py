"""From what stands on the page to what is asked for: sources, LoRAs, sizes, grids, and the line that does the same."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.drawing.messages import Drawn, DrawRequest, LoraFile, LoraOfRun
from finetune.drawing.places import lora_places
from finetune.drawing.share import shared_steps
from finetune.errors import AtelierError, RecipeError
from finetune.model.geometry import look_at_model
from finetune.recipe import Recipe, load_recipe
from finetune.recipe.preview import EnsembleRefiner, ImageToImageRefiner
from finetune.recipe.schema import SmallAdapter
from finetune.recipe.shipped import shipped_names
from finetune.run.folder import RunFolder
from webui.places import PlaceError, Places

NO_LORA = ""
SHARES = {"ensemble": "takes over the last steps", "image_to_image": "draws over the finished picture"}

_SDXL_SIDE = 1024
_SIZE_MULTIPLE = 8
_MOST_SEEDS = 16
_MOST_STRENGTH = 10.0
_MOST_PIXELS = 4096
_MOST_TOLD = 16_384


@dataclass(frozen=True)
class SourceFacts:
    """What a source brings along.

    Attributes:
        recipe: whose model is drawn with.
        side: the side of the square picture its model was made for, in pixels.
        size_multiple: what heights and widths must be multiples of.
        is_run: whether it is a run, and not a recipe.
    """

    recipe: Recipe
    side: int
    size_multiple: int
    is_run: bool

    @property
    def model(self) -> str:
        """The model's name: text, not markup."""
        named = self.recipe.model.model_dump()
        return str(named.get("id") or Path(str(named.get("path", named["kind"]))).name)


def source_choices(places: Places, runs: Iterable[Path]) -> list[tuple[str, str]]:
    """Return what can be drawn with, runs first: words and values."""
    chosen = [(f"run: {key}", f"run:{key}") for key in (places.key_of(run) for run in runs)]
    chosen += [(f"your recipe: {name}", f"saved:{name}") for name in places.recipe_names()]
    return chosen + [(f"recipe: {name}", f"recipe:{name}") for name in shipped_names()]


def resolve_source(places: Places, value: str) -> str:
    """Return the run's folder or the recipe that a choice means.

    Raises:
        PlaceError: there is none.
    """
    kind, _, name = value.partition(":")
    if kind == "run":
        return str(places.run(name).path)
    if kind == "saved":
        return str(places.recipe_file(name))
    if kind == "recipe" and name in shipped_names():
        return name
    raise PlaceError(f"{value[:100]!r}: choose a run or a recipe of the list")


def look_at_source(places: Places, value: str) -> SourceFacts:
    """Return what a source brings along, without opening its model.

    Raises:
        RecipeError: it is not there, or its recipe is wrong.
    """
    source = resolve_source(places, value)
    recipe = load_recipe(source)
    known = look_at_model(recipe.model)
    side = _SDXL_SIDE if known is None else known.geometry.default_side
    multiple = _SIZE_MULTIPLE if known is None else known.geometry.size_multiple
    return SourceFacts(recipe, side, multiple, value.startswith("run:"))


def lora_choices(places: Places, runs: Iterable[Path]) -> list[tuple[str, str]]:
    """Return every run's LoRA by step, the newest step first: words and values, the first of them none."""
    chosen = [("none", NO_LORA)]
    for path in runs:
        run = RunFolder(path)
        try:
            steps = lora_places(run, load_recipe(str(run.recipe)))
        except AtelierError:
            continue  # its recipe cannot be read; the page 'Runs' shows it
        key = places.key_of(path)
        chosen += [(f"{key}, step {step}", f"{key}@{step}") for step in reversed(steps)]
    return chosen if len(chosen) > 1 else [("none yet: train a run first", NO_LORA)]


def resolve_lora(places: Places, value: str, strength: Any) -> LoraOfRun:
    """Return the LoRA that a choice means. Raises PlaceError, or RecipeError for the strength."""
    key, _, step = value.rpartition("@")
    if not key or not re.fullmatch(r"[0-9]{1,9}", step, re.ASCII):
        raise PlaceError(f"{value[:100]!r}: choose a LoRA of the list")
    run = str(places.run(key).path)
    return LoraOfRun(run=run, step=int(step), strength=float(number(strength, "Strength", -10, 10)))


def steps_of_run(places: Places, value: str) -> list[int]:
    """Return the steps kept by the run that a LoRA of the list belongs to."""
    if value == NO_LORA:
        return []
    run = RunFolder(Path(resolve_lora(places, value, 1.0).run))
    return list(lora_places(run, load_recipe(str(run.recipe))))


def parse_strengths(text: str) -> tuple[float, ...]:
    """Return the numbers in a text, as '0, 0.5, 1'. Raises RecipeError."""
    values = []
    for word in re.split(r"[,;\s]+", text.strip()):
        if not word:
            continue
        try:
            values.append(float(word))
        except ValueError as error:
            raise RecipeError(f"Strengths: got {word[:40]!r}, needs numbers from -10 to 10, as: 0, 0.5, 1") from error
        if not -_MOST_STRENGTH <= values[-1] <= _MOST_STRENGTH:  # which 'nan' is not, either
            raise RecipeError(f"Strengths: got {word[:40]!r}, needs numbers from -10 to 10, as: 0, 0.5, 1")
    return tuple(dict.fromkeys(values))


def number(value: Any, name: str, low: float, high: float) -> float:
    """Return a number that came from the browser. Raises RecipeError where it is none, or out of range."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise RecipeError(f"{name}: got {str(value)[:40]}, needs a number from {low:,} to {high:,}")
    return value


def whole(value: Any, name: str, low: int, high: int) -> int:
    """Return a whole number that came from the browser. Raises RecipeError where it is none, or out of range."""
    given = number(value, name, low, high)
    if given != int(given):
        raise RecipeError(f"{name}: got {given:g}, needs a whole number")
    return int(given)


def seeds_from(first: Any, count: Any) -> tuple[int, ...]:
    """Return `count` seeds from the first on. Raises RecipeError."""
    start = whole(first, "Seed", 0, 2**53)
    return tuple(range(start, start + whole(count, "Seeds", 1, _MOST_SEEDS)))


def refiner_settings(kind: str, share: float) -> dict[str, Any]:
    """Return how the refiner is used, as a recipe has it.

    Args:
        kind: one of `SHARES`.
        share: of the way, that the refiner draws: the last steps, or how much noise is put on the finished picture.

    Raises:
        RecipeError: neither kind, or a share out of range.
    """
    if kind not in SHARES:
        raise RecipeError(f"Refiner: got {str(kind)[:40]!r}, needs one of: {', '.join(SHARES.values())}")
    share = number(share, "The refiner's share", 0.01, 0.99)
    name, value = ("switch_at", round(1 - share, 4)) if kind == "ensemble" else ("strength", share)
    return {"kind": kind, name: value}


def share_in_words(num_inference_steps: int, kind: str, share: float) -> str:
    """Return how base and refiner share the steps, in a sentence."""
    settings = refiner_settings(kind, share)
    refiner: EnsembleRefiner | ImageToImageRefiner
    if kind == "ensemble":
        refiner = EnsembleRefiner(**settings)
        base, rest = shared_steps(num_inference_steps, refiner)
        return f"The base draws {_counted(base)}, the refiner the last {rest}."
    refiner = ImageToImageRefiner(**settings)
    base, rest = shared_steps(num_inference_steps, refiner)
    return f"The base draws all {base} steps; then some noise is put back, and the refiner draws {_counted(rest)}."


def _counted(steps: int) -> str:
    return f"{steps} step" + ("" if steps == 1 else "s")


def even_size(height: Any, width: Any, multiple: int) -> tuple[int, int]:
    """Return the nearest size that a model can draw. Raises RecipeError where it is out of range."""
    return (_nearest(whole(height, "Height", 1, _MOST_PIXELS), multiple),
            _nearest(whole(width, "Width", 1, _MOST_PIXELS), multiple))  # fmt: skip


def told_size(height: Any, width: Any, name: str, low: int = 1) -> tuple[int, int]:
    """Return a size that the model is only told. Raises RecipeError where it is out of range."""
    return whole(height, name, low, _MOST_TOLD), whole(width, name, low, _MOST_TOLD)


def _nearest(side: float, multiple: int) -> int:
    return max(multiple, round(side / multiple) * multiple)


def comparisons(pictures: Sequence[Drawn], chosen: Drawn) -> tuple[tuple[str, str] | None, tuple[str, str] | None]:
    """Return the files to lay over each other: base and LoRA, and before and after the refiner; None where one lacks.

    Both are of the chosen picture's seed and, of the LoRA, of its strength and step; of the last ones for the base.
    """
    same = [picture for picture in pictures if picture.seed == chosen.seed]
    with_lora = [picture for picture in same if picture.column.startswith("lora")]
    cell = chosen if chosen.column.startswith("lora") or not with_lora else with_lora[-1]
    files: dict[str, str] = {picture.column: picture.path for picture in same
             if not picture.column.startswith("lora")
             or (picture.strength, picture.lora_step) == (cell.strength, cell.lora_step)}  # fmt: skip
    refined = ("lora", "lora_refined") if "lora_refined" in files else ("base", "base_refined")
    return _both(files, "base", "lora"), _both(files, *refined)


def _both(files: Mapping[str, str], first: str, second: str) -> tuple[str, str] | None:
    return (files[first], files[second]) if first in files and second in files else None


def settings_in_words(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a picture's settings as names and values to be read; what only repeats others is left out."""
    same = {"negative_original_size": "original_size", "negative_crop_top_left": "crop_top_left",
            "negative_target_size": "target_size"}  # fmt: skip
    return [
        (name.replace("_", " "), _in_words(name, value))
        for name, value in settings.items()
        if value not in ("", None) and (name not in same or value != settings.get(same[name]))
    ]


def _in_words(name: str, value: Any) -> str:
    match value:
        case [int(height), int(width)] | (int(height), int(width)):
            return f"{height}, {width}" if name.endswith("crop_top_left") else f"{height} x {width}"
        case list() if name == "loras":
            return ", ".join(f"{lora['lora']} at {lora['strength']:g}" for lora in value)
        case dict():
            return ", ".join(f"{key.replace('_', ' ')} {inner}" for key, inner in value.items() if key != "kind")
        case float():
            return f"{value:g}"
    return str(value)


def command_of(request: DrawRequest, picture: Drawn | None = None) -> str:
    """Return the line that draws a picture of a job, or its first one, as a person would type it."""
    lora_used = any("lora" in column for column in request.columns) if picture is None else "lora" in picture.column
    refined = any("refined" in column for column in request.columns) if picture is None else "refined" in picture.column
    source = request.source
    if not lora_used and (Path(source) / "recipe.yaml").is_file() and _trains_adapter(source):
        source = str(Path(source) / "recipe.yaml")  # the run itself would be drawn with its LoRA
    line = ["atelier", "generate", source, f"--prompt={request.prompt}"]
    if request.negative_prompt:
        line.append(f"--negative={request.negative_prompt}")
    for lora in _loras_of(request, picture) if lora_used else ():
        line += ["--lora", _named(lora), f"--strength={lora.strength:g}"]
    line += ["--seed", str(request.seeds[0] if picture is None else picture.seed)]
    for option, size in _sizes_of(request).items():
        line += [option, f"{size[0]}x{size[1]}"]
    if request.num_inference_steps is not None:
        line += ["--steps", str(request.num_inference_steps)]
    if request.guidance_scale is not None:
        line += ["--guidance", f"{request.guidance_scale:g}"]
    match request.refiner:
        case _ if not refined:
            line.append("--no-refiner")
        case EnsembleRefiner(switch_at=share):
            line += ["--switch-at", f"{share:g}"]
        case ImageToImageRefiner(strength=share):
            line += ["--refiner-strength", f"{share:g}"]
    return shlex.join(line)


def _loras_of(request: DrawRequest, picture: Drawn | None) -> Sequence[LoraFile | LoraOfRun]:
    """Return the LoRAs with the strength and step of one cell of the grid."""
    first, *others = request.loras
    changed: dict[str, float] = {}
    if picture is not None and picture.strength is not None:
        changed["strength"] = picture.strength
    if picture is not None and picture.lora_step is not None:
        changed["step"] = picture.lora_step
    return (first.model_copy(update=changed), *others)


def _named(lora: LoraFile | LoraOfRun) -> str:
    if isinstance(lora, LoraFile):
        return lora.path
    return lora.run if lora.step is None else f"{lora.run}@{lora.step}"


def _sizes_of(request: DrawRequest) -> Mapping[str, tuple[int, int]]:
    given = {
        "--size": request.size,
        "--original-size": request.original_size,
        "--crop": request.crop_top_left if request.crop_top_left != (0, 0) else None,
        "--target-size": request.target_size,
    }
    return {option: size for option, size in given.items() if size is not None}


def _trains_adapter(source: str) -> bool:
    return isinstance(load_recipe(source).adapter, SmallAdapter)
