"""Write a new LoRA file made from others, module by module, with metadata that say what it is.

Files are written in kohya's format, which every reader takes. Their metadata are those of the first file they were made
of, where they still hold: rank, alpha and kind are taken from what is written, hashes are computed anew, and
`atelier_made_by` says what was done, with names of files and never with their paths.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune.adapters.weights import AdaptedModule, LoraModule
from finetune.dialects.lora_file import LoraFile
from finetune.errors import AtelierError, RecipeError
from finetune.export.check import PRECISIONS, cast
from finetune.export.kohya import write_kohya
from finetune.export.metadata import base_model_version, carried_metadata
from finetune.naming.structure import ModelStructure

Watch = Callable[[int, int], None]
"""Told how many modules are done, and of how many."""


def unwatched(done: int, total: int) -> None:
    """Tell nobody."""


def write_made(
    modules: Iterable[AdaptedModule],
    target: Path,
    *,
    precision: str,
    structure: ModelStructure,
    metadata: Mapping[str, str],
    made_by: Mapping[str, Any],
) -> None:
    """Write modules as a LoRA file, whole or not at all; one at a time is asked for and held.

    Args:
        modules: what the file holds.
        target: a `.safetensors` file, see `check_output`.
        precision: 'fp16', 'bf16' or 'fp32', of the factors; scales and DoRA's norms are float32 in each.
        structure: the model it is for.
        metadata: the strings it begins with, of the first file it is made from.
        made_by: what was done, as plain data without paths.

    Raises:
        AtelierError: there is no module, or one's numbers do not fit the precision.
        DiskError: the disk refuses. What was at `target` is as it was.
    """
    is_refiner = structure.text_encoder is None
    strings = carried_metadata(metadata, target.stem, is_refiner=is_refiner)
    strings["ss_base_model_version"] = base_model_version(is_refiner=is_refiner)
    strings["atelier_made_by"] = json.dumps(made_by, ensure_ascii=False)
    counted = _at_least_one(modules, target)
    write_kohya(counted, target, precision=precision, layout=structure.unet.layout, metadata=strings)


def rounded(module: LoraModule, precision: str) -> LoraModule:
    """Return a module as it will be read from a file of this precision. Raises AtelierError where it does not fit."""
    name = f"{module.component}.{module.module}"
    down, up = (cast(factor, precision, name).float() for factor in (module.down, module.up))
    return replace(module, down=down, up=up)


def check_output(path: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse an output that is one of the inputs, or that is there already.

    Raises:
        RecipeError: with what to give instead.
    """
    if path.suffix != ".safetensors":
        raise RecipeError(f"--output {path}: needs a name that ends in .safetensors")
    check_apart(path, inputs)
    if path.exists() and not (overwrite and path.is_file()):
        raise RecipeError(f"--output {path} is there already. Give another name, or --overwrite to replace a file")


def check_apart(path: Path, inputs: Sequence[Path]) -> None:
    """Refuse an output that is one of the inputs, by whatever name, lies in one or holds one. Raises RecipeError."""
    for given in inputs:
        if path.resolve() == given.resolve() or (path.exists() and given.exists() and path.samefile(given)):
            raise RecipeError(f"--output {path} is one of the inputs, which are never written over. Give another name")
        if given.is_dir() and given.resolve() in path.resolve().parents:
            raise RecipeError(f"--output {path} lies in {given}, one of the inputs. Give a place beside it")
        if path.resolve() in given.resolve().parents:
            raise RecipeError(f"--output {path}: one of the inputs lies in it. Give a place beside it")


def choose_precision(wanted: str | None, files: Sequence[LoraFile]) -> str:
    """Return the precision of a new file: the wanted one; for None or 'keep' the files' own, fp32 where they differ."""
    if wanted is not None and wanted != "keep":
        assert wanted in PRECISIONS, wanted
        return wanted
    found = {file.precision for file in files}
    return found.pop() if len(found) == 1 else "fp32"


def _at_least_one(modules: Iterable[AdaptedModule], target: Path) -> Iterator[AdaptedModule]:
    number = 0
    for number, module in enumerate(modules, start=1):  # noqa: B007 - how many there were
        yield module
    if not number:
        raise AtelierError(f"{target} is not written: no module would be changed by it")
