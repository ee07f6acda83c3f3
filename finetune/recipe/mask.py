"""Which parts of a source's pictures count. Opening masks is the work of `imagesets`."""

from typing import Annotated, Literal

from pydantic import Field, Strict, StringConstraints

from finetune.recipe.base import Needs, PathText, Probability, Settings

MaskEnding = Annotated[
    str,
    Strict(),
    StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,40}\.(png|jpg|jpeg|webp)$"),
    Needs("the ending of a file's name that ends in .png, .jpg, .jpeg or .webp, as -masklabel.png"),
]


class AlphaMask(Settings):
    """A picture's own transparency is its mask: what is see-through does not count."""

    kind: Literal["alpha"] = "alpha"
    """Take the picture's own transparency; `data.background` still lies under it."""
    weight_outside: Probability = 0.0
    """What see-through parts count, from 0 (nothing) to 1 (as much as the others). Above 0 the model also learns \
what lies around."""


class FileMask(Settings):
    """Each picture has a mask in a file of its own: white counts, black does not, grey is between."""

    kind: Literal["files"] = "files"
    """Take grey pictures beside the pictures, or in a folder of their own."""
    weight_outside: Probability = 0.0
    """What black parts count, from 0 (nothing) to 1 (as much as white ones). Above 0 the model also learns what lies \
around."""
    folder: PathText | None = None
    """A folder of masks that lie in it as the pictures do in theirs; null looks beside each picture."""
    ending: MaskEnding | None = None
    """What stands in a mask's name in place of the ending of its picture's: with `.mask.png`, a.jpg has a.mask.png. \
null takes `-masklabel.png` beside pictures, and `.png` in a folder of masks."""


Mask = Annotated[AlphaMask | FileMask, Field(discriminator="kind")]
"""Where masks come from: alpha or files."""
