"""What a run is made of once its models are loaded, whatever is being taught: the trainer needs no more than this."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from finetune.export.run_export import Exported
from finetune.run.folder import RunFolder
from finetune.training.loop import Task, TrainingState
from finetune.training.recorder import Recorder
from finetune.training.signals import StoppedEarlyError, StopRequest


class ExportFunction(Protocol):
    """Writes what was trained into a run's `exports`."""

    def __call__(self, run: RunFolder, step: int) -> Exported:
        """Export what `step` optimizer steps have given and return what was written.

        Raises:
            AtelierError: it cannot be written so.
        """
        ...


@dataclass(frozen=True)
class Job:
    """One run, ready to begin.

    Attributes:
        state: what the loop works on.
        export: writes what was trained.
        draw: draws the previews of a step into a folder and returns the files; None where there is nothing to draw.
    """

    state: TrainingState[Task]
    export: ExportFunction
    draw: Callable[[Path, int], Sequence[Path]] | None = None


def say_warning(message: str) -> None:
    """Write a warning where a process has no log: it is not the run's main one."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def stage_progress(recorder: Recorder | None, stop: StopRequest, name: str) -> Callable[[int, int], None]:
    """Return a progress callback that writes a stage's beginning and end, and leaves when a stop is asked for."""

    def progress(done: int, total: int) -> None:
        if stop:
            raise StoppedEarlyError(stop.exit_code)
        if recorder is not None and (done == 0 or done == total or done % 10 == 0):
            recorder.emit("stage", name=name, done=done, total=total)

    return progress
