"""Which parts of a picture count in training: where masks come from, as plain values, and a sample's own.

A mask is a grey picture: white counts whole, black as little as `weight_outside`, what is between counts between.
Reading and cutting one is the work of `pictures`, as it is for the picture itself.
"""

from dataclasses import dataclass, field
from pathlib import Path

from imagesets.files import PictureBytes

BESIDE = "-masklabel.png"
"""How a mask beside its picture is called where nothing else is said: OneTrainer's convention."""

IN_FOLDER = ".png"
"""How a mask in a folder of masks ends where nothing else is said."""


@dataclass(frozen=True)
class AlphaMask:
    """A picture's own transparency is its mask.

    Attributes:
        weight_outside: what fully see-through parts count, from 0 to 1.
    """

    weight_outside: float = 0.0


@dataclass(frozen=True)
class FileMask:
    """Each picture's mask is a picture of its own.

    Attributes:
        weight_outside: what its black parts count, from 0 to 1.
        ending: what stands in a mask's name in place of the ending of the picture's name; None for the usual.
        folder: where masks lie, at the same places as the pictures in theirs; None for beside them.
    """

    weight_outside: float = 0.0
    ending: str | None = None
    folder: Path | None = None

    def name_for(self, picture: str) -> str:
        """Return the name of a picture's mask, given that of the picture: paths below their folders."""
        folder, slash, name = picture.rpartition("/")
        stem = name[: name.rindex(".")] if "." in name[1:] else name
        return folder + slash + stem + self._ending

    def may_name(self, name: str) -> bool:
        """Whether a file among the pictures is named as masks are, so that it is no picture itself."""
        return self.folder is None and name.endswith(self._ending)

    @property
    def _ending(self) -> str:
        return self.ending or (BESIDE if self.folder is None else IN_FOLDER)


MaskOptions = AlphaMask | FileMask


@dataclass(frozen=True, slots=True)
class SampleMask:
    """The mask of one usable picture.

    Attributes:
        weight_outside: what its black parts count, from 0 to 1.
        share: its mean over the whole picture, from 0 to 1, before `weight_outside`.
        name: of its file; None where it is the picture's own transparency.
        sha256: of the bytes it is read from, in hexadecimal.
        read: returns them, or raises a PictureError.
    """

    weight_outside: float
    share: float
    name: str | None
    sha256: str
    read: PictureBytes = field(compare=False, repr=False)

    @property
    def is_alpha(self) -> bool:
        """Whether it is the picture's own transparency."""
        return self.name is None
