"""Where what frozen models give is kept between runs. Filling and reading it is the work of `finetune.cache`."""

from typing import Annotated, Literal

from pydantic import Field

from finetune.recipe.base import DefaultKind, PathText, Settings, before


class DiskCache(Settings):
    """A folder that all recipes may share: what one run has encoded, no other encodes again."""

    kind: Literal["disk"] = "disk"
    """Keep latents and embeddings in a folder, addressed by content: a value is used exactly as long as nothing it \
depends on has changed."""
    folder: PathText | None = None
    """The folder; absolute, from `~`, or relative to the current directory. null takes `_cache` in output_dir. With \
SDXL a picture of a megapixel takes 0.5 MB a cut, a caption 0.3 MB for each 75 tokens."""


class MemoryCache(Settings):
    """The memory of one run: nothing is kept on the disk."""

    kind: Literal["memory"] = "memory"
    """Keep latents and embeddings in the run's memory, and compute them anew each time it is started."""


Cache = Annotated[
    DiskCache | MemoryCache,
    Field(discriminator="kind"),
    before(DefaultKind("disk")),
    DefaultKind("disk"),
]
"""Where the outputs of the VAE and of frozen text encoders are kept: disk or memory."""
