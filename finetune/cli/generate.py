"""`atelier generate`: pictures from base, base + LoRA and base + LoRA + refiner, or from a model that was trained."""

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.arguments import add_json_argument
from finetune.cli.output import print_json
from finetune.cli.quiet import quiet_libraries
from finetune.errors import RecipeError

if TYPE_CHECKING:
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
    parser.add_argument("--lora", metavar="FILE", help="a LoRA file (.safetensors) in place of the run's own")
    parser.add_argument("--strength", type=float, default=1.0, help="what the LoRA's change is multiplied by")
    parser.add_argument("--seed", type=int, action="append", help="of the noise; may be given several times")
    parser.add_argument("--size", type=_size, metavar="HxW", help="height and width in pixels, as 1024x768")
    parser.add_argument("--original-size", type=_size, metavar="HxW", help="the size the model is told it once had")
    parser.add_argument("--crop", type=_size, metavar="TOPxLEFT", help="where the model is told it was cut")
    parser.add_argument("--target-size", type=_size, metavar="HxW", help="the size the model is told it draws")
    parser.add_argument("--steps", type=int, help="denoising steps; without it, the recipe's")
    parser.add_argument("--guidance", type=float, help="weight of the prompt; without it, the recipe's")
    parser.add_argument("--no-refiner", action="store_true", help="leave the refiner out")
    parser.add_argument(
        "--out", metavar="FOLDER", help="where the pictures go; without it, a new folder under RUN/generated"
    )
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw and say where the pictures lie."""
    from finetune.recipe import load_recipe

    recipe = load_recipe(arguments.source, overrides(arguments))
    model = trained_model(arguments, recipe)
    chosen = [*overrides(arguments), prompts_override(recipe, arguments)]
    recipe = load_recipe(arguments.source, chosen if model is None else [*chosen, model_override(model)])
    if not recipe.preview.prompts:
        raise RecipeError("nothing to draw: the recipe has no prompts. Give one with --prompt")
    if not math.isfinite(arguments.strength):
        raise RecipeError(f"--strength: got {arguments.strength}, needs a number, as 0.8")
    lora = None if model is not None else lora_file(arguments, recipe)
    folder = output_folder(arguments)
    quiet_libraries()
    from finetune.preview.generate import generate
    from finetune.training.job import say_warning

    paths = generate(
        recipe, folder, lora=lora, strength=arguments.strength, warn=say_warning, trained=model is not None
    )
    if arguments.json:
        shown = {name: None if path is None else str(path) for name, path in (("lora", lora), ("model", model))}
        print_json({**shown, "files": [str(path) for path in paths]})
    else:
        print(f"LoRA: {lora or 'none'}" if model is None else f"model: {model}")
        print("\n".join(str(path) for path in paths))
    return 0


def overrides(arguments: argparse.Namespace) -> list[str]:
    """Turn the verb's options into the recipe's settings."""
    chosen = []
    if arguments.steps is not None:
        chosen.append(f"preview.num_inference_steps={arguments.steps}")
    if arguments.guidance is not None:
        chosen.append(f"preview.guidance_scale={arguments.guidance}")
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


def trained_model(arguments: argparse.Namespace, recipe: "Recipe") -> Path | None:
    """Return the folder of the model a run has trained, of its last step if exported; None where it trained a LoRA.

    Raises:
        RecipeError: it is not exported yet.
    """
    from finetune.run.folder import RunFolder

    folder = Path(arguments.source)
    if recipe.adapter.kind == "lora" or arguments.lora is not None or not folder.is_dir():
        return None
    run_folder = RunFolder.open(folder)
    final = run_folder.exports / recipe.name
    folders = [path.parent for path in run_folder.exports.glob("*/model_index.json") if path.parent.name[0] != "."]
    exports = [final] if final in folders else sorted(folders)  # names end in the step
    if not exports:
        raise RecipeError(f"{folder} has no exported model yet. Type: atelier export {folder}")
    return exports[-1]


def model_override(folder: Path) -> str:
    """Return the setting that takes a folder as the model."""
    return "model=" + json.dumps({"kind": "folder", "path": str(folder)})


def lora_file(arguments: argparse.Namespace, recipe: "Recipe") -> Path | None:
    """Return the LoRA to draw with: the one given, a run's own (of its last step, if exported), or none for a recipe.

    Raises:
        RecipeError: the file or the export is not there.
    """
    from finetune.run.folder import RunFolder

    if arguments.lora is not None:
        path = Path(arguments.lora)
        if not path.is_file():
            raise RecipeError(f"--lora: {path} does not exist. Give a .safetensors file")
        return path
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
