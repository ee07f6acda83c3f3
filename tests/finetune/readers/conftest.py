"""Files of the real SDXL's shape, without their numbers, in every dialect."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

from finetune.naming.structure import SDXL_BASE
from finetune.readers.adapter_file import AdapterFile, Shape
from finetune.readers.names import ModelNames, Module, underscored

NAMES = ModelNames(SDXL_BASE)
ORIGINAL = {path: original for original, path in NAMES.original.items()}
TRAINED = {"ss_base_model_version": "sdxl_base_v1-0"}

MakeFile = Callable[..., AdapterFile]


def stem_of(module: Module) -> str:
    """Return a module's stem in kohya's format."""
    component, path = module
    if component == "unet":
        return f"lora_unet_{underscored(ORIGINAL[path])}"
    return f"lora_te{'1' if component == 'text_encoder' else '2'}_{underscored(path)}"


def dotted(module: Module) -> str:
    """Return a module's name in diffusers' format."""
    return ".".join(module)


def is_usual(module: Module) -> bool:
    """Whether a LoRA of SDXL usually has the module: the 722 of the U-Net, 72 and 192 of the encoders."""
    component, path = module
    if component != "unet":
        return path != "text_projection"
    return "transformer_blocks" in path or ("proj_" in path and "attentions" in path)


USUAL = tuple(module for module in NAMES.shapes if is_usual(module))
FEW = tuple(
    module
    for module in USUAL
    if module[1].startswith(("down_blocks.1.attentions.0.transformer_blocks.0", "text_model.encoder.layers.0."))
)
"""The first transformer block and the first layers of both encoders: 10 + 6 + 6 modules."""


def factors(module: Module, rank: int) -> tuple[Shape, Shape]:
    """Return the shapes of down and up."""
    weight = NAMES.shapes[module]
    return (rank, *weight[1:]), (weight[0], rank, *[1] * (len(weight) - 2))


@pytest.fixture
def make_file() -> MakeFile:
    """Return a function that makes a file's names and shapes."""

    def make(
        modules: Iterable[Module] = USUAL,
        name: Callable[[Module], str] = stem_of,
        halves: tuple[str, str] = (".lora_down.weight", ".lora_up.weight"),
        alpha: float | None = 1.0,
        rank: int = 1,
        metadata: Mapping[str, str] = TRAINED,
        path: str = "lora.safetensors",
    ) -> AdapterFile:
        shapes: dict[str, Shape] = {}
        numbers: dict[str, float] = {}
        for module in modules:
            stem = name(module)
            down, up = factors(module, rank)
            shapes |= {stem + halves[0]: down, stem + halves[1]: up}
            if alpha is not None:
                shapes[f"{stem}.alpha"] = ()
                numbers[f"{stem}.alpha"] = alpha
        return AdapterFile(Path(path), shapes, dict.fromkeys(shapes, "F16"), numbers, metadata)

    return make
