"""The formats a trained adapter can be exported in, by name."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from finetune.adapters.weights import AdaptedModule
from finetune.errors import RecipeError
from finetune.export.check import check_modules
from finetune.export.diffusers_format import WEIGHTS_NAME, write_diffusers
from finetune.export.kohya import write_kohya, write_kohya_diffusers
from finetune.export.peft_format import write_peft
from finetune.naming.components import Component
from finetune.naming.keys import UNetLayout


class Writer(Protocol):
    """Writes modules in one format at `path`, whole or not at all, and returns the files it wrote."""

    def __call__(
        self,
        modules: Iterable[AdaptedModule],
        path: Path,
        *,
        precision: str,
        layout: UNetLayout,
        metadata: Mapping[str, str],
    ) -> tuple[Path, ...]:
        """Write the files.

        Args:
            modules: what was trained; each is asked for once, and none is kept.
            path: the file, or of formats that have several the folder.
            precision: 'fp16', 'bf16' or 'fp32', of the factors.
            layout: the U-Net's block structure, for formats that use the original names.
            metadata: strings for the header; those about rank, alpha and kind are taken from the modules.

        Raises:
            AtelierError: a module cannot be written in that format or precision.
            DiskError: the disk refuses.
        """


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        write: writes it.
        place: from a folder and an adapter's name to the path it is written at.
        is_folder: whether that is a folder.
    """

    write: Writer
    place: Callable[[Path, str], Path]
    is_folder: bool = False


EXPORTERS: dict[str, Format] = {
    "kohya": Format(write_kohya, lambda folder, name: folder / f"{name}.safetensors"),
    "diffusers": Format(write_diffusers, lambda folder, name: folder / f"{name}-diffusers" / WEIGHTS_NAME),
    "peft": Format(write_peft, lambda folder, name: folder / f"{name}-peft", is_folder=True),
}
"""The formats a recipe can ask for."""

FORMATS: dict[str, Format] = EXPORTERS | {
    "kohya-diffusers": Format(write_kohya_diffusers, lambda folder, name: folder / f"{name}.safetensors"),
}
"""Those, and others that files are converted to."""


def get_exporter(name: str) -> Format:
    """Return the format of that name. Raises RecipeError with the nearest name when a recipe cannot ask for it."""
    if name in EXPORTERS:
        return EXPORTERS[name]
    nearest = difflib.get_close_matches(name, EXPORTERS, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise RecipeError(f"unknown export format {name!r}.{hint} Known: {', '.join(EXPORTERS)}")


def export_adapter(
    modules: Sequence[AdaptedModule],
    folder: Path,
    name: str,
    *,
    formats: Iterable[str],
    precision: str,
    layout: UNetLayout,
    metadata: Mapping[str, str],
    expected: Mapping[Component, int] | None = None,
) -> dict[str, tuple[Path, ...]]:
    """Check the modules and write them in every format asked for.

    Args:
        modules: what was trained.
        folder: where to write.
        name: the adapter's name, which file names begin with.
        formats: names in EXPORTERS.
        precision: 'fp16', 'bf16' or 'fp32'.
        layout: the U-Net's block structure.
        metadata: strings for the header, from `finetune.export.metadata.build_metadata`.
        expected: how many modules each component was trained on; asserted.

    Returns:
        The files of each format.

    Raises:
        RecipeError: an unknown format, before anything is written.
        AtelierError: the modules cannot be written.
        DiskError: the disk refuses.
    """
    chosen = {format_name: get_exporter(format_name) for format_name in formats}
    check_modules(modules, expected)
    return {
        format_name: known.write(
            modules, known.place(folder, name), precision=precision, layout=layout, metadata=metadata
        )
        for format_name, known in chosen.items()
    }
