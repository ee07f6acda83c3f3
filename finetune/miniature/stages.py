"""The sets of pictures and the stages in which the miniature is made, in their order, each from a recipe that ships."""

from dataclasses import dataclass

from imagesets.world.photos import SHORTER_SIDES, Sides

SEED = 0
PATTERNS_SEED = 1
NUM_PATTERNS = 8_000


@dataclass(frozen=True)
class PhotoSet:
    """Photos of the world that a build renders.

    Attributes:
        name: of their folder under the build's.
        num_photos: how many.
        seed: of the set.
        shorter_sides: between which their shorter sides lie, in pixels.
        purpose: why there is this set.
    """

    name: str
    num_photos: int
    seed: int
    shorter_sides: Sides
    purpose: str


PHOTOS = PhotoSet("photos", 32_000, 1, SHORTER_SIDES, "for every stage but the refiner's")
SMALL_PHOTOS = PhotoSet(
    "small-photos", 8_000, 2, (12, 32), "for the last stage of the base: blown up they are blurred, and it is told so"
)
LARGE_PHOTOS = PhotoSet(
    "large-photos", 16_000, 3, (64, 160), "for the refiner, which SDXL's makers, too, kept to pictures of high quality"
)
PHOTO_SETS = (PHOTOS, SMALL_PHOTOS, LARGE_PHOTOS)
PATTERNS = "patterns"
"""The folder, under the build's, of things in stripes and checks (`imagesets.world.patterns`)."""


@dataclass(frozen=True)
class Stage:
    """One run of the trainer.

    Attributes:
        name: of the run, and of its recipe in `recipes/miniature`.
        model: the folder, under the build's, that the run begins with.
        sources: the folders, under the build's, of the recipe's sources of pictures, in its order.
    """

    name: str
    model: str
    sources: tuple[str, ...] = (PHOTOS.name,)

    @property
    def recipe(self) -> str:
        """The name of the recipe that ships."""
        return f"miniature/{self.name}"

    @property
    def export(self) -> str:
        """The folder, under the build's, in which the run leaves its model."""
        return f"runs/{self.name}/exports/{self.name}"


VAE = Stage("vae", "start")
DECODER_1 = Stage("decoder", "autoencoder", (PHOTOS.name, PATTERNS))
DECODER_2 = Stage("decoder-2", DECODER_1.export, (PHOTOS.name, PATTERNS))
BASE_1 = Stage("base-1", "autoencoder")
BASE_2 = Stage("base-2", BASE_1.export)
BASE_3 = Stage("base-3", BASE_2.export)
BASE_4 = Stage("base-4", BASE_3.export, (PHOTOS.name, PHOTOS.name, SMALL_PHOTOS.name))
REFINER = Stage("refiner", "refiner-start", (LARGE_PHOTOS.name, PATTERNS))

BASE_STAGES = (BASE_1, BASE_2, BASE_3, BASE_4)
BASE = BASE_STAGES[-1]
"""The stage whose result is the base that ships."""

DECODER_STAGES = (DECODER_1, DECODER_2)
DECODER = DECODER_STAGES[-1]
"""The stage whose decoder ships, with either model."""

STAGES = (VAE, *DECODER_STAGES, *BASE_STAGES, REFINER)
