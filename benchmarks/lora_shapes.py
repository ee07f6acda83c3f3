"""LoRA files and checkpoints of SDXL's real shape, invented: there to be timed and weighed.

python benchmarks/lora_shapes.py lora FILE RANK SEED
python benchmarks/lora_shapes.py checkpoint FILE
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from finetune.adapters.targets import choose_paths
from finetune.adapters.weights import LoraModule
from finetune.loras.writing import write_made
from finetune.model.weight_files import original_places
from finetune.naming.components import COMPONENTS
from finetune.naming.structure import SDXL_BASE

NUM_MODULES = 986
"""722 of the U-Net, 72 and 192 of the encoders."""


def real_modules() -> list[tuple[str, str]]:
    """Return the modules that most LoRAs change: every Linear of the transformers and of both encoders."""
    names = []
    for component in COMPONENTS:
        paths = [path for own, path in SDXL_BASE.weights if own == component]
        names += [(component, path) for path in choose_paths(paths, component, "attention+feedforward")]
    assert len(names) == NUM_MODULES
    return names


def write_lora(path: Path, rank: int, seed: int) -> None:
    """Write a LoRA of a rank over the real shape, fp16, with singular values that fall as a trained one's do."""
    write_made(
        _modules(rank, seed), path, precision="fp16", structure=SDXL_BASE, metadata={}, made_by={"verb": "invent"}
    )


def write_checkpoint(path: Path) -> None:
    """Write the weights of the U-Net and both encoders as one fp16 file in the original layout, 6.8 GB of noise."""
    pieces: dict[str, tuple[int, ...]] = {
        "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias": (1280,)  # by which it is known
    }
    for (component, name), place in original_places(path, SDXL_BASE):
        module = name.removesuffix(".weight")
        shape = SDXL_BASE.weights.get((component, module))
        if shape is None or module == name:
            continue
        pieces[place.tensor] = (3 * shape[0], *shape[1:]) if place.rows else shape
    header: dict[str, object] = {}
    position = 0
    for tensor, shape in pieces.items():
        size = 2 * int(np.prod(shape))
        header[tensor] = {"dtype": "F16", "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    content = json.dumps(header).encode()
    noise = (torch.randn(4 * 2**20, generator=torch.Generator().manual_seed(0)) * 0.02).half().numpy().tobytes()
    with path.open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        while position:
            position -= file.write(noise[: min(position, len(noise))])


def _modules(rank: int, seed: int) -> Iterator[LoraModule]:
    generator = torch.Generator().manual_seed(seed)
    for component, path in real_modules():
        up, down = low_rank(SDXL_BASE.weights[component, path], rank, generator)  # type: ignore[index]
        yield LoraModule(component, path, down, up, 1.0)  # type: ignore[arg-type]


def low_rank(shape: tuple[int, ...], rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return factors whose parts fall in size as 1 / (1 + i / 8)."""
    falling = 1.0 / (1.0 + torch.arange(rank) / 8)
    up = 0.02 * torch.randn(shape[0], rank, generator=generator) * falling
    return up, 0.02 * torch.randn(rank, shape[1], generator=generator)


def main() -> None:
    """Write what the command line names."""
    match sys.argv[1:]:
        case ["lora", path, rank, seed]:
            write_lora(Path(path), int(rank), int(seed))
        case ["checkpoint", path]:
            write_checkpoint(Path(path))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
