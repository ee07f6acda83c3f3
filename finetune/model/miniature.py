"""The embedded miniature: SDXL base and refiner in diffusers' own classes, small enough for any CPU.

Two folders in the layout of a diffusers model, with weights in fp16; diffusers' own pipelines load them as they are.
They were trained from nothing by `atelier miniature build`, on a world of coloured shapes: README.md beside them is
their model card. The VAE's factor is 4, so sizes are multiples of 16.
"""

from finetune.model.files import DiffusersFolder
from finetune.model.geometry import MINIATURE_FOLDER


class Miniature(DiffusersFolder):
    """The miniature's base or refiner."""

    def __init__(self, *, refiner: bool = False) -> None:
        super().__init__(MINIATURE_FOLDER / ("refiner" if refiner else "base"))
        self.is_refiner = refiner
