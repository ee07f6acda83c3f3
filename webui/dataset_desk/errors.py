"""What can be wrong with a change of captions."""

from collections.abc import Sequence

from finetune.errors import DataError

_NAMES_SHOWN = 5


class EditError(DataError):
    """Captions cannot be changed as was asked; nothing was changed."""


class ConflictError(EditError):
    """Captions were changed elsewhere since they were read; nothing was changed.

    Attributes:
        names: of the files.
    """

    def __init__(self, names: Sequence[str], advice: str) -> None:
        self.names = tuple(names)
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        listed = ", ".join(self.names[:_NAMES_SHOWN])
        super().__init__(
            f"{listed}{more}: changed by something else since it was read here. Nothing was changed. {advice}"
        )
