"""The formats a trained adapter can be exported in, by name."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from finetune.adapters.weights import LoraModule
from finetune.errors import RecipeError
from finetune.export.check import check_modules
from finetune.export.diffusers_format import export_diffusers
from finetune.export.kohya import export_kohya
from finetune.export.peft_format import export_peft
from finetune.naming.components import Component
from finetune.naming.keys import UNetLayout


class Exporter(Protocol):
    """Writes modules in one format under `folder`, and returns the files it wrote."""

    def __call__(
        self,
        modules: Sequence[LoraModule],
        folder: Path,
        name: str,
        *,
        precision: str,
        layout: UNetLayout,
        metadata: Mapping[str, str],
    ) -> tuple[Path, ...]:
        """Write the files.

        Args:
            modules: what was trained, checked by `check_modules`.
            folder: where to write; made when it is missing.
            name: the adapter's name, which file names begin with.
            precision: 'fp16', 'bf16' or 'fp32', of the two factors.
            layout: the U-Net's block structure, for formats that use the original names.
            metadata: strings for the header, from `finetune.export.metadata.build_metadata`.

        Raises:
            AtelierError: the modules cannot be written in that format or precision.
            DiskError: the disk refuses.
        """


EXPORTERS: dict[str, Exporter] = {
    "kohya": export_kohya,
    "diffusers": export_diffusers,
    "peft": export_peft,
}


def get_exporter(name: str) -> Exporter:
    """Return the exporter of that name. Raises RecipeError with the nearest name when there is none."""
    if name in EXPORTERS:
        return EXPORTERS[name]
    nearest = difflib.get_close_matches(name, EXPORTERS, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise RecipeError(f"unknown export format {name!r}.{hint} Known: {', '.join(EXPORTERS)}")


def export_adapter(
    modules: Sequence[LoraModule],
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
    exporters = {format_name: get_exporter(format_name) for format_name in formats}
    check_modules(modules, expected)
    return {
        format_name: export(modules, folder, name, precision=precision, layout=layout, metadata=metadata)
        for format_name, export in exporters.items()
    }
