"""The errors a user can cause or meet, and the exit code of each.

    AtelierError                 1  the job failed for a reason the message states
    ├── RecipeError              2  the recipe or the command line is wrong
    ├── DataError                3  the pictures or captions cannot be used
    ├── OutOfMemoryError         4  the device has too little memory
    ├── DivergedError            5  a loss or gradient stopped being a finite number
    └── DiskError                6  the disk is full or cannot be written

A message says what was given, what is allowed and what to type next. Our own slips are `assert`s, not these.
"""

from typing import ClassVar


class AtelierError(Exception):
    """The job failed, and the message says why and what to do."""

    exit_code: ClassVar[int] = 1


class RecipeError(AtelierError):
    """The recipe or the command line is wrong."""

    exit_code = 2


class DataError(AtelierError):
    """The pictures or captions cannot be used as they are."""

    exit_code = 3


class OutOfMemoryError(AtelierError):
    """The device has too little memory for the recipe."""

    exit_code = 4


class DivergedError(AtelierError):
    """A loss, gradient or latent stopped being finite; nothing was updated with it."""

    exit_code = 5


class DiskError(AtelierError):
    """The disk is full or cannot be written; what was whole before is still whole."""

    exit_code = 6
