"""`atelier generate`: pictures from base, base + LoRA and base + LoRA + refiner, or from a model that was trained."""

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.arguments import add_json_argument
from finetune.cli.output import print_json
from finetune.errors import RecipeError
from finetune.run.quiet import quiet_libraries

if TYPE_CHECKING:
    from finetune.drawing.messages import LoraFile, LoraOfRun
    from finetune.recipe import Recipe


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "generate",
        help="draw pictures",
        description="Draw pictures with a run's LoRA, or with a recipe's model and a LoRA file: without it, with it, "
        "and through the refiner, from the same noise. A run that trained a whole model draws with that.",
    )
    parser.add_argument("source", metavar="RUN|RECIPE", help="a run's folder, or a recipe whose model is used")
    parser.add_argument("--prompt", action="append", help="what to draw; may be given several times")
    parser.add_argument("--negative", metavar="PROMPT", help="what to steer away from")
    parser.add_argument(
        "--lora",
        metavar="FILE|RUN[@STEP]",
        action="append",
        help="a LoRA file (.safetensors) or folder of peft's, or what a run has learned (after a step), in place of "
        "the run's own; may be given several times, and their changes add up",
    )
    parser.add_argument(
        "--strength",
        type=float,
        action="append",
        help="what the LoRA's change is multiplied by; with several, one each in the same order",
    )
    parser.add_argument("--seed", type=int, action="append", help="of the noise; may be given several times")
    parser.add_argument("--size", type=_size, metavar="HxW", help="height and width in pixels, as 1024x768")
    parser.add_argument("--original-size", type=_size, metavar="HxW", help="the size the model is told it once had")
    parser.add_argument("--crop", type=_size, metavar="TOPxLEFT", help="where the model is told it was cut")
    parser.add_argument("--target-size", type=_size, metavar="HxW", help="the size the model is told it draws")
    parser.add_argument("--steps", type=int, help="denoising steps; without it, the recipe's")
    parser.add_argument("--guidance", type=float, help="weight of the prompt; without it, the recipe's")
    parser.add_argument(
        "--switch-at", type=float, metavar="SHARE", help="the refiner takes over after this share of the way, as 0.8"
    )
    parser.add_argument(
        "--refiner-strength", type=float, metavar="SHARE", help="the refiner draws over the finished picture, as 0.3"
    )
    parser.add_argument("--no-refiner", action="store_true", help="leave the refiner out")
    parser.add_argument(
        "--out",
        "--output",
        metavar="FOLDER",
        help="where the pictures go; without it, a new folder under RUN/generated",
    )
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw and say where the pictures lie."""
    from finetune.recipe import load_recipe

    recipe = load_recipe(arguments.source, overrides(arguments))
    model = trained_folder(arguments, recipe)
    chosen = [*overrides(arguments), prompts_override(recipe, arguments)]
    recipe = load_recipe(arguments.source, chosen if model is None else [*chosen, model_override(model)])
    if not recipe.preview.prompts:
        raise RecipeError("nothing to draw: the recipe has no prompts. Give one with --prompt")
    loras = [] if model is not None else chosen_loras(arguments, recipe)
    folder = output_folder(arguments)
    quiet_libraries()
    from finetune.drawing.generate import generate
    from finetune.drawing.places import find_lora
    from finetune.training.job import say_warning

    paths = generate(recipe, folder, loras=loras, warn=say_warning, trained=model is not None)
    if arguments.json:
        lora = str(find_lora(loras[0])[0]) if loras else None
        used = [{"path": str(find_lora(lora)[0]), "strength": lora.strength} for lora in loras]
        shown = {"lora": lora, "loras": used, "model": None if model is None else str(model)}
        print_json({**shown, "files": [str(path) for path in paths]})
    else:
        names = [f"{find_lora(lora)[0]}" + (f" x {lora.strength:g}" if lora.strength != 1 else "") for lora in loras]
        print("\n".join(f"LoRA: {name}" for name in names or ["none"]) if model is None else f"model: {model}")
        print("\n".join(str(path) for path in paths))
    return 0


def overrides(arguments: argparse.Namespace) -> list[str]:
    """Turn the verb's options into the recipe's settings."""
    chosen = []
    if arguments.steps is not None:
        chosen.append(f"preview.num_inference_steps={arguments.steps}")
    if arguments.guidance is not None:
        chosen.append(f"preview.guidance_scale={arguments.guidance}")
    if arguments.switch_at is not None and arguments.refiner_strength is not None:
        raise RecipeError("--switch-at and --refiner-strength are two ways to use the refiner. Give one of them")
    if arguments.switch_at is not None:
        chosen.append(f"preview.refiner={{kind: ensemble, switch_at: {arguments.switch_at}}}")
    if arguments.refiner_strength is not None:
        chosen.append(f"preview.refiner={{kind: image_to_image, strength: {arguments.refiner_strength}}}")
    if arguments.no_refiner:
        chosen.append("refiner=null")
    return chosen


def prompts_override(recipe: "Recipe", arguments: argparse.Namespace) -> str:
    """Return the line's prompts, seeds and sizes as a setting of the recipe, so that they are checked like one."""
    given = {
        "size": arguments.size,
        "original_size": arguments.original_size,
        "crop_top_left": arguments.crop,
        "target_size": arguments.target_size,
        "negative_prompt": arguments.negative,
    }
    chosen = {key: value for key, value in given.items() if value is not None}
    own = [prompt.model_dump(mode="json", exclude_none=True) for prompt in recipe.preview.prompts]
    if arguments.prompt:
        shape = {"size": own[0]["size"]} if own and "size" in own[0] else {}
        own = [{**shape, "prompt": prompt} for prompt in arguments.prompt]
    seeds = [{"seed": seed} for seed in arguments.seed] if arguments.seed else [{}]
    return "preview.prompts=" + json.dumps([{**prompt, **chosen, **seed} for prompt in own for seed in seeds])


def output_folder(arguments: argparse.Namespace) -> Path:
    """Return a folder that holds nothing yet: the one given, or the next number under `generated`.

    Raises:
        RecipeError: the folder given is a file or holds files.
    """
    if arguments.out is not None:
        folder = Path(arguments.out)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RecipeError(f"--out: {folder} is there already and not an empty folder. Give another name")
        return folder
    source = Path(arguments.source)
    root = (source if source.is_dir() else Path()) / "generated"
    taken = [int(path.name) for path in root.glob("*") if path.name.isdigit()] if root.is_dir() else []
    return root / f"{max(taken, default=0) + 1:03d}"


def trained_folder(arguments: argparse.Namespace, recipe: "Recipe") -> Path | None:
    """Return the folder of the model a run has trained; None where there is none, or a LoRA is asked for.

    Raises:
        RecipeError: it is not exported yet.
    """
    from finetune.drawing.places import trained_model
    from finetune.recipe.schema import SmallAdapter
    from finetune.run.folder import RunFolder

    folder = Path(arguments.source)
    if isinstance(recipe.adapter, SmallAdapter) or arguments.lora or not folder.is_dir():
        return None
    return trained_model(RunFolder.open(folder), recipe)


def model_override(folder: Path) -> str:
    """Return the setting that takes a folder as the model."""
    return "model=" + json.dumps({"kind": "folder", "path": str(folder)})


def chosen_loras(arguments: argparse.Namespace, recipe: "Recipe") -> "list[LoraFile | LoraOfRun]":
    """Return the LoRAs to draw with: those given, or a run's own export, or none for a recipe; with their strengths.

    Raises:
        RecipeError: a file or an export is not there, or strengths and LoRAs are not one each.
    """
    from finetune.drawing.places import find_lora, parse_lora

    given = arguments.lora or [str(path) for path in [own_export(arguments, recipe)] if path is not None]
    strengths = arguments.strength or [1.0] * len(given)
    if given and len(strengths) != len(given):
        raise RecipeError(f"--strength: got {len(strengths)} for {len(given)} LoRAs. Give one for each, in their order")
    for strength in strengths:
        if not math.isfinite(strength):
            raise RecipeError(f"--strength: got {strength}, needs a number, as 0.8")
    if not given:
        return []
    loras = [parse_lora(text, strength) for text, strength in zip(given, strengths, strict=True)]
    for lora in loras:
        find_lora(lora)
    return loras


def own_export(arguments: argparse.Namespace, recipe: "Recipe") -> Path | None:
    """Return a run's exported LoRA, of its last step, or None for a recipe.

    Raises:
        RecipeError: there is no export.
    """
    from finetune.run.folder import RunFolder

    folder = Path(arguments.source)
    if not folder.is_dir():
        return None
    run_folder = RunFolder.open(folder)
    final = run_folder.exports / f"{recipe.name}.safetensors"
    exports = [final] if final.is_file() else sorted(run_folder.exports.glob("*.safetensors"))  # names end in the step
    if not exports:
        raise RecipeError(f"{folder} has no exported LoRA yet. Type: atelier export {folder}")
    return exports[-1]


def _size(text: str) -> tuple[int, int]:
    height, separator, width = text.lower().partition("x")
    if not separator or not height.isdigit() or not width.isdigit():
        raise argparse.ArgumentTypeError(f"got {text!r}, needs height x width, as 1024x768")
    return int(height), int(width)
