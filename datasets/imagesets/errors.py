"""What can be wrong with pictures and where they come from. A caller turns these into its own family of errors.

ImagesetError
├── PictureError    one picture cannot be used; the message is the reason, without the picture's name
├── CaptionError    one caption cannot be used; likewise
├── SourceError     a whole source cannot be read; the message names it and says what to do
│   └── NoPicturesError    a folder of pictures is not there, or holds none
└── DecoderError    no picture can be opened: the processes that decode do not start
"""

from collections.abc import Iterator
from contextlib import contextmanager


class ImagesetError(Exception):
    """Pictures or captions cannot be used as they are, and the message says why."""


class PictureError(ImagesetError):
    """One picture cannot be used. The message is a reason that reads well after the picture's name and a colon."""


class CaptionError(ImagesetError):
    """One picture's caption cannot be used. The message is a reason, as a `PictureError`'s is."""


class SourceError(ImagesetError):
    """A whole source of pictures cannot be read. The message names the source and says what to do.

    Attributes:
        place: which of several sources it is, from 0, where they were read together; else None.
    """

    place: int | None = None


class NoPicturesError(SourceError):
    """A folder of pictures is not there, or holds none: probably another one is meant."""


@contextmanager
def of_source(place: int) -> Iterator[None]:
    """Let a SourceError that is raised within say which of several sources it is of, from 0."""
    try:
        yield
    except SourceError as error:
        error.place = place
        raise


class DecoderError(ImagesetError):
    """No picture can be opened: the processes that decode them do not start, and the message says why."""
