"""Where a run keeps what it has learned, by step, and how a LoRA is named on the command line. No torch."""

import re
from pathlib import Path

from pydantic import ValidationError

from finetune.drawing.messages import LoraFile, LoraOfRun, words_of
from finetune.errors import RecipeError
from finetune.naming.components import COMPONENTS
from finetune.recipe import Recipe, load_recipe
from finetune.recipe.schema import SmallAdapter
from finetune.run.folder import RunFolder

_STEP = re.compile(r"step-(?P<step>[0-9]{6,9})", re.ASCII)


def lora_places(run: RunFolder, recipe: Recipe) -> dict[int, Path]:
    """Return, by step and oldest first, the checkpoint or, where there is none, the exported file of a run's LoRA."""
    found: dict[int, Path] = {}
    if not isinstance(recipe.adapter, SmallAdapter):
        return found
    final = run.exports / f"{recipe.name}.safetensors"
    if final.is_file():
        found[recipe.training.steps] = final
    for path in run.exports.glob(f"{recipe.name}-step-*.safetensors"):
        match = _STEP.fullmatch(path.stem.removeprefix(recipe.name + "-"))
        if match and path.is_file():
            found[int(match["step"])] = path
    for path in run.checkpoints.glob("step-*"):
        match = _STEP.fullmatch(path.name)
        if match and (path / "manifest.json").is_file():
            found[int(match["step"])] = path
    return dict(sorted(found.items()))


def find_lora(lora: LoraFile | LoraOfRun) -> tuple[Path, int | None]:
    """Return the file, peft's folder or the checkpoint's folder behind a choice, and the step a run's LoRA is of.

    Raises:
        RecipeError: it is not there.
    """
    if isinstance(lora, LoraFile):
        path = Path(lora.path).expanduser()
        if not lora_files(path):
            raise RecipeError(f"--lora: {path} does not exist. Give a .safetensors file, a run, or RUN@STEP")
        return path, None
    run = RunFolder.open(Path(lora.run).expanduser())
    recipe = load_recipe(str(run.recipe))
    places = lora_places(run, recipe)
    if not places:
        is_adapter = isinstance(recipe.adapter, SmallAdapter)
        what = "has saved no step yet" if is_adapter else "has trained a whole model, not a LoRA"
        raise RecipeError(f"{run.path} {what}. Choose another run")
    step = max(places) if lora.step is None else lora.step
    if step not in places:
        raise RecipeError(f"step {step}: {run.path} has kept the steps {', '.join(map(str, places))}")
    return places[step], step


def lora_files(path: Path) -> list[Path]:
    """Return the files that hold a LoRA's weights: the path itself, or those of a folder of peft's or diffusers'."""
    if path.is_file():
        return [path]
    folders = (path, *(path / component for component in COMPONENTS))
    files = [folder / "adapter_model.safetensors" for folder in folders if (folder / "adapter_config.json").is_file()]
    return [file for file in (*files, path / "pytorch_lora_weights.safetensors") if file.is_file()]


def lora_name(lora: LoraFile | LoraOfRun, step: int | None) -> str:
    """Return what a picture says of a LoRA: a name, never a path."""
    if isinstance(lora, LoraFile):
        return Path(lora.path).name
    return f"{Path(lora.run).name} step {step}"


def trained_model(run_folder: RunFolder, recipe: Recipe) -> Path | None:
    """Return the folder of the model a run has trained, of its last step if exported; None where it trained a LoRA.

    Raises:
        RecipeError: it is not exported yet.
    """
    if isinstance(recipe.adapter, SmallAdapter):
        return None
    final = run_folder.exports / recipe.name
    folders = [path.parent for path in run_folder.exports.glob("*/model_index.json") if path.parent.name[0] != "."]
    exports = [final] if final in folders else sorted(folders)  # names end in the step
    if not exports:
        raise RecipeError(f"{run_folder.path} has no exported model yet. Type: atelier export {run_folder.path}")
    return exports[-1]


def parse_lora(text: str, strength: float) -> LoraFile | LoraOfRun:
    """Return what a LoRA named on the command line means: a file, peft's folder, a run's folder, or RUN@STEP.

    Raises:
        RecipeError: the strength is out of range, or the name is no path.
    """
    path = Path(text).expanduser()
    run, separator, step = text.rpartition("@")
    of_step = bool(separator) and step.isascii() and step.isdecimal() and not path.exists()
    try:
        if of_step:
            return LoraOfRun(run=run, step=int(step), strength=strength)
        is_run = path.is_dir() and not lora_files(path)
        return LoraOfRun(run=text, strength=strength) if is_run else LoraFile(path=text, strength=strength)
    except ValidationError as error:
        raise RecipeError(f"--lora {text}: {words_of(error)}") from error
