"""The stages in which the miniature is made, in their order, each from a recipe that ships."""

from dataclasses import dataclass

SEED = 0
PHOTOS_SEED = 1
NUM_PHOTOS = 32_000
PATTERNS_SEED = 1
NUM_PATTERNS = 8_000


@dataclass(frozen=True)
class Stage:
    """One run of the trainer.

    Attributes:
        name: of the run, and of its recipe in `recipes/miniature`.
        model: the folder, under the build's, that the run begins with.
    """

    name: str
    model: str

    @property
    def recipe(self) -> str:
        """The name of the recipe that ships."""
        return f"miniature/{self.name}"

    @property
    def export(self) -> str:
        """The folder, under the build's, in which the run leaves its model."""
        return f"runs/{self.name}/exports/{self.name}"


VAE = Stage("vae", "start")
DECODER = Stage("decoder", "autoencoder")
BASE_1 = Stage("base-1", "autoencoder")
BASE_2 = Stage("base-2", BASE_1.export)
BASE_3 = Stage("base-3", BASE_2.export)
REFINER = Stage("refiner", "refiner-start")
