"""SIGINT and SIGTERM ask a run to save and stop; a second one ends it at once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether somebody has asked the run to stop, and how."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.by_command = False

    def __bool__(self) -> bool:
        """Whether the run should save and stop."""
        return self.by_command or self.signal_number is not None

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM, 0 after the command `stop`."""
        return 0 if self.signal_number is None else 128 + self.signal_number


class StoppedEarlyError(Exception):
    """A stop was asked for before there was anything to save."""


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Catch SIGINT and SIGTERM inside the block; the loop asks the request it gets once a step."""
    request = StopRequest()

    def handle(number: int, _frame: FrameType | None) -> None:
        if request.signal_number is not None:
            os._exit(128 + number)
        request.signal_number = number
        os.write(2, b"\nSaving, then stopping. Once more stops at once.\n")

    previous = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
