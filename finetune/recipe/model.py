"""Where a base model or a refiner comes from. Loading it is the work of `finetune.model`, not done here."""

from typing import Annotated, Literal

from pydantic import Field, Strict, StringConstraints

from finetune.recipe.base import NO_ADDRESS, HubId, HubWord, Needs, PathText, Settings

SafetensorsPath = Annotated[
    str,
    Strict(),
    StringConstraints(pattern=r"^[^\x00]+\.safetensors$"),
    NO_ADDRESS,
    Needs("a path that ends in .safetensors (pickled .ckpt and .pt files are refused: they can run code)"),
]


class MiniatureModel(Settings):
    """The SDXL (and refiner) of seven million parameters that ships inside the kit: nothing is downloaded."""

    kind: Literal["miniature"] = "miniature"
    """Take the miniature that ships with the kit."""


class HubModel(Settings):
    """A model in diffusers' layout on the Hugging Face hub, downloaded once into the hub's cache."""

    kind: Literal["hub"] = "hub"
    """Take a model from the Hugging Face hub."""
    id: HubId
    """The model's id on the hub, `owner/name`, such as stabilityai/stable-diffusion-xl-base-1.0."""
    revision: HubWord | None = None
    """A branch, tag or commit of the model's repository; null takes its main branch. A commit is repeatable."""
    variant: HubWord | None = None
    """Which precision's files to take, such as fp16 (half the download); null takes the plain ones."""


class FolderModel(Settings):
    """A model in diffusers' layout in a folder of this machine."""

    kind: Literal["folder"] = "folder"
    """Take a model from a folder in diffusers' layout."""
    path: PathText
    """The folder that holds model_index.json; absolute, from `~`, or relative to the current directory."""
    variant: HubWord | None = None
    """Which precision's files to take, such as fp16; null takes the plain ones."""


class SingleFileModel(Settings):
    """One `.safetensors` checkpoint in the original layout, as most community models come."""

    kind: Literal["single_file"] = "single_file"
    """Take a model from one .safetensors file in the original layout."""
    path: SafetensorsPath
    """The checkpoint's file; absolute, from `~`, or relative to the current directory."""
    config: PathText | None = None
    """A folder with the model's configs and tokenizers in diffusers' layout; null takes them from the hub's cache."""


Model = Annotated[
    MiniatureModel | HubModel | FolderModel | SingleFileModel,
    Field(discriminator="kind"),
]
"""Where a model comes from: miniature, hub, folder or single_file."""

__all__ = ["FolderModel", "HubModel", "MiniatureModel", "Model", "SingleFileModel"]
