"""Write a LoRA in another program's format: the same change of weights under other names, module by module."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune.adapters.plain import exact_lora
from finetune.adapters.weights import AdaptedModule
from finetune.dialects.lora_file import LoraFile
from finetune.errors import RecipeError
from finetune.export.diffusers_format import WEIGHTS_NAME
from finetune.export.metadata import MetadataLevel, carried_metadata
from finetune.export.registry import FORMATS
from finetune.loras.resize import resize_module
from finetune.loras.svd import RankRule
from finetune.loras.writing import Watch, unwatched
from finetune.naming.structure import ModelStructure

AsLora = int | Literal["exact"]


@dataclass(frozen=True)
class ConvertReport:
    """What was done.

    Attributes:
        dialect: what was read.
        files: what was written.
        precision: of the factors.
        modules: how many each component has.
        kinds: how many modules are of each kind, as they were read.
        made_plain: how many became plain LoRA.
        left_out: name and kind of what no format holds, where that was asked for.
    """

    dialect: str
    files: tuple[Path, ...]
    precision: str
    modules: dict[str, int]
    kinds: dict[str, int]
    made_plain: int
    left_out: tuple[tuple[str, str], ...]


def convert(
    source: Path,
    target: Path,
    *,
    to: str,
    structure: ModelStructure,
    precision: str | None = None,
    initial: Path | None = None,
    as_lora: AsLora | None = None,
    leave_out: bool = False,
    level: MetadataLevel = "full",
    watch: Watch = unwatched,
) -> ConvertReport:
    """Write `source` at `target` in the format `to`.

    Args:
        source: a LoRA in any dialect, see `finetune.dialects.lora_file.LoraFile`.
        target: the file, or for peft the folder; see `target_path`.
        to: a name in `finetune.export.registry.FORMATS`.
        structure: the model it was made for.
        precision: 'fp16', 'bf16' or 'fp32'; None for that of most tensors of the source.
        initial: peft's folder of the factors before training, for PiSSA and its like.
        as_lora: turn LoHa, LoKr and whole changes into plain LoRA: of this rank, as well as it can hold them, or
            'exact', of whatever rank that takes.
        leave_out: leave out embeddings and changes of biases and normalisations.
        level: how much of the metadata is carried over.
        watch: told of progress.

    Raises:
        AtelierError: the file cannot be read or trusted, or the format cannot hold it.
        DiskError: the disk refuses.
    """
    made_plain = 0

    def modules() -> Iterator[AdaptedModule]:
        nonlocal made_plain
        for done, name in enumerate(file.names, start=1):
            module = file.load(name)
            if as_lora is not None and module.kind != "LoRA":
                made_plain += 1
                yield plain(module, as_lora)
            else:
                yield module
            watch(done, len(file.names))

    with LoraFile(source, structure, leave_out=leave_out, initial=initial) as file:
        width = precision or file.precision
        is_refiner = structure.text_encoder is None
        metadata = carried_metadata(file.metadata, _name(target), is_refiner=is_refiner, level=level)
        files = FORMATS[to].write(modules(), target, precision=width, layout=structure.unet.layout, metadata=metadata)
        return ConvertReport(
            dialect=file.dialect,
            files=files,
            precision=width,
            modules=dict(Counter(component for component, _ in file.names)),
            kinds=dict(Counter(file.kind(name) for name in file.names)),
            made_plain=made_plain,
            left_out=tuple(file.left_out),
        )


def plain(module: AdaptedModule, as_lora: AsLora) -> AdaptedModule:
    """Return a module as a plain LoRA, exactly or of a rank."""
    return exact_lora(module) if as_lora == "exact" else resize_module(module, RankRule(rank=as_lora))


def target_path(source: Path, to: str, output: Path | None) -> Path:
    """Return where the result goes.

    Args:
        source: what is read.
        to: the format.
        output: what was asked for; without it the result lies beside the source, named after it.

    Raises:
        RecipeError: it cannot be a path of that format.
    """
    known = FORMATS[to]
    if output is None:
        stem = source.stem if source.suffix == ".safetensors" else source.name
        return known.place(source.parent, f"{stem}-{to}" if to.startswith("kohya") else stem)
    if known.is_folder:
        if output.suffix == ".safetensors":
            raise RecipeError(f"--output {output}: peft keeps a folder for each component. Give a folder's name")
        return output
    if output.is_dir():
        return known.place(output, source.stem)
    if output.suffix != ".safetensors":
        raise RecipeError(f"--output {output}: needs a name that ends in .safetensors, or a folder that is there")
    return output


def _name(target: Path) -> str:
    """Return what an adapter is called by the path it is written at."""
    named = target.parent if target.name == WEIGHTS_NAME else target
    return named.name.removesuffix(".safetensors").removesuffix("-diffusers").removesuffix("-peft")
