"""`atelier generate`: pictures from base, base + LoRA and base + LoRA + refiner."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.arguments import add_json_argument
from finetune.cli.output import print_json
from finetune.cli.quiet import quiet_libraries

if TYPE_CHECKING:
    from finetune.recipe import Recipe


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "generate",
        help="draw pictures",
        description="Draw pictures with a run's LoRA, or with a recipe's model and a LoRA file: without it, with it, "
        "and through the refiner, from the same noise.",
    )
    parser.add_argument("source", metavar="RUN|RECIPE", help="a run's folder, or a recipe whose model is used")
    parser.add_argument("--prompt", action="append", help="what to draw; may be given several times")
    parser.add_argument("--negative", default="", metavar="PROMPT", help="what to steer away from")
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
    parser.add_argument("--out", default="pictures", metavar="FOLDER", help="where the pictures go")
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw and say where the pictures lie."""
    from finetune.recipe import load_recipe

    recipe = load_recipe(arguments.source, overrides(arguments))
    if not arguments.prompt and not recipe.preview.prompts:
        from finetune.errors import RecipeError

        raise RecipeError("nothing to draw: the recipe has no prompts. Give one with --prompt")
    quiet_libraries()
    from finetune.preview.generate import generate

    paths = generate(
        with_prompts(recipe, arguments),
        Path(arguments.out),
        lora=lora_file(arguments),
        strength=arguments.strength,
    )
    if arguments.json:
        print_json({"files": [str(path) for path in paths]})
    else:
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


def with_prompts(recipe: "Recipe", arguments: argparse.Namespace) -> "Recipe":
    """Return the recipe with the line's prompts, seeds and sizes in place of its own."""
    from finetune.recipe.schema import PreviewPrompt

    given = {
        "size": arguments.size,
        "original_size": arguments.original_size,
        "crop_top_left": arguments.crop,
        "target_size": arguments.target_size,
    }
    chosen = {key: value for key, value in given.items() if value is not None}
    if arguments.prompt:
        shape = {"size": recipe.preview.prompts[0].size} if recipe.preview.prompts else {}
        prompts = [
            PreviewPrompt(prompt=prompt, negative_prompt=arguments.negative, **{**shape, **chosen})
            for prompt in arguments.prompt
        ]
    else:
        prompts = [prompt.model_copy(update=chosen) for prompt in recipe.preview.prompts]
    if arguments.seed:
        prompts = [prompt.model_copy(update={"seed": seed}) for prompt in prompts for seed in arguments.seed]
    preview = recipe.preview.model_copy(update={"prompts": tuple(prompts)})
    return recipe.model_copy(update={"preview": preview})


def lora_file(arguments: argparse.Namespace) -> Path | None:
    """Return the LoRA to draw with: the one given, the newest export of a run, or none for a bare recipe.

    Raises:
        RecipeError: the file or the export is not there.
    """
    from finetune.errors import RecipeError
    from finetune.run.folder import RunFolder

    if arguments.lora is not None:
        path = Path(arguments.lora)
        if not path.is_file():
            raise RecipeError(f"--lora: {path} does not exist. Give a .safetensors file")
        return path
    folder = Path(arguments.source)
    if not folder.is_dir():
        return None
    exports = sorted(RunFolder.open(folder).exports.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    if not exports:
        raise RecipeError(f"{folder} has no exported LoRA yet. Type: atelier export {folder}")
    return exports[-1]


def _size(text: str) -> tuple[int, int]:
    height, separator, width = text.lower().partition("x")
    if not separator or not height.isdigit() or not width.isdigit():
        raise argparse.ArgumentTypeError(f"got {text!r}, needs height x width, as 1024x768")
    return int(height), int(width)
