"""Where everything of one run lies, and who may write there. It does not read or write the files themselves.

runs/<name>/
  recipe.yaml                resolved: exactly what ran
  manifest.jsonl             the samples
  events.jsonl               append-only, one writer
  commands/                  0003-save.json, waiting; commands/done and commands/refused
  checkpoints/step-000500/
  previews/step-000500/
  exports/
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import DiskError, RecipeError
from finetune.run.durable import disk_errors
from finetune.run.events import read_events
from finetune.run.locks import held, is_held

_LOCK_NAME = ".lock"
_STEP = re.compile(r"step-(?P<step>[0-9]{6,9})", re.ASCII)

# A reader that asks whether the run is alive holds the lock for an instant; a writer waits that long.
_LOCK_PATIENCE_SECONDS = 1.0


@dataclass(frozen=True)
class RunFolder:
    """One run's folder. Make it with `create` or `open`, which check what lies there.

    Attributes:
        path: the folder, `runs/<name>`.
    """

    path: Path

    @classmethod
    def create(cls, path: Path | str) -> "RunFolder":
        """Make a new run folder with its empty subfolders; a start that failed before its first step is taken over.

        Raises:
            RecipeError: the folder already holds a run, or files that are not a run's.
            DiskError: it cannot be made.
        """
        run = cls(Path(path))
        run.require_unbegun()
        if run.path.exists() and not run.holds_run() and (not run.path.is_dir() or run._foreign_names()):
            raise RecipeError(f"{run.path}: exists and is no run folder. Give the run another name: name=…")
        try:
            with disk_errors(run.path):
                for folder in (run.commands, run.checkpoints, run.previews, run.exports):
                    folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:  # a file where a folder should be, or a file system that makes none, as /proc
            raise DiskError(
                f"{run.path}: this folder cannot be made: {error.strerror or error}. Set output_dir to a folder that "
                "you may write"
            ) from error
        return run

    def require_unbegun(self) -> None:
        """Refuse a folder in which a run has begun. Only under the lock does it stay so.

        Raises:
            RecipeError: one has.
        """
        if self.has_begun():
            raise RecipeError(
                f"{self.path}: already holds a run. Continue it with --resume, or give this one another name: name=…"
            )

    @classmethod
    def open(cls, path: Path | str) -> "RunFolder":
        """Return the run that lies at `path`.

        Raises:
            RecipeError: there is no run.
        """
        run = cls(Path(path))
        if not run.holds_run():
            what = "holds no run (no recipe.yaml)" if run.path.exists() else "there is no such folder"
            raise RecipeError(f"{run.path}: {what}. A run folder is what `atelier train` makes under output_dir.")
        return run

    def holds_run(self) -> bool:
        """Whether a run has begun here: its recipe or its events are written."""
        return self.recipe.is_file() or self.events.is_file()

    def has_begun(self) -> bool:
        """Whether a step was taken or a checkpoint saved here; a start that failed before that is nothing to keep."""
        if self.checkpoints.is_dir() and any(self.checkpoints.glob("step-*")):
            return True
        return self.events.is_file() and any(event["kind"] == "step" for event in read_events(self.events)[0])

    @property
    def recipe(self) -> Path:
        """The resolved recipe, which can be run again."""
        return self.path / "recipe.yaml"

    @property
    def manifest(self) -> Path:
        """One line for each sample that was trained on."""
        return self.path / "manifest.jsonl"

    @property
    def events(self) -> Path:
        """The append-only log: `finetune.run.events`."""
        return self.path / "events.jsonl"

    @property
    def commands(self) -> Path:
        """The folder of commands to the trainer: `finetune.run.commands`."""
        return self.path / "commands"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def previews(self) -> Path:
        """The folder of previews."""
        return self.path / "previews"

    @property
    def exports(self) -> Path:
        """The folder of exported files."""
        return self.path / "exports"

    def checkpoint(self, step: int) -> Path:
        """Return the folder of the checkpoint after `step` optimizer steps."""
        return self.checkpoints / step_name(step)

    def kept_steps(self) -> list[int]:
        """Return the steps whose checkpoint is there with its list of files, the newest first; none is read."""
        found = [(_STEP.fullmatch(path.name), path) for path in self.checkpoints.glob("step-*")]
        return sorted(
            (int(match["step"]) for match, path in found if match and (path / "manifest.json").is_file()), reverse=True
        )

    def preview(self, step: int) -> Path:
        """Return the folder of the previews made after `step` optimizer steps."""
        return self.previews / step_name(step)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the run's one writer for the length of the block. The lock ends with the process, however that ends.

        Raises:
            AtelierError: another process is writing this run.
        """
        advice = "Wait for it, stop it, or give this run another name: name=…"
        refusal = f"{self.path}: another process is training here. {advice}"
        with held(self.path / _LOCK_NAME, _LOCK_PATIENCE_SECONDS, refusal):
            yield

    def is_locked(self) -> bool:
        """Whether a process is writing this run now. A log that says 'running' without one was interrupted."""
        return is_held(self.path / _LOCK_NAME)

    def _foreign_names(self) -> list[str]:
        # A run killed between its folder and its recipe leaves empty subfolders and a lock: that is not foreign.
        own = {self.commands.name, self.checkpoints.name, self.previews.name, self.exports.name, _LOCK_NAME}
        return sorted(entry.name for entry in self.path.iterdir() if entry.name not in own)


def step_name(step: int) -> str:
    """Return the name of a step's folder, `step-000500`: names sort as numbers do up to a million steps."""
    return f"step-{step:06d}"
