"""Exports as the page sees them: which steps a run has kept, the command that writes files, and what stands in them.

The files are written by `atelier export` in a process of its own; nothing here imports torch or Gradio.
"""

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from safetensors import SafetensorError, safe_open

from finetune.errors import RecipeError
from finetune.recipe.outputs import ExportFormat
from finetune.run.folder import RunFolder
from webui.paths import file_inside

COMMAND = (sys.executable, "-m", "finetune")
FORMATS = get_args(ExportFormat)
PRECISIONS = ("fp16", "bf16", "fp32")
METADATA = ("full", "minimal")
PROOF = (
    "Before anything is written, every number is checked to be finite and to fit the precision. Of a LoRA, every "
    "module that was trained has to be there, once; each file is then read back from the disk: its size, and the name "
    "and shape of every tensor, have to be those that were meant. A file, or the folder of a whole model, appears "
    "whole or not at all.\n\nThe file of a LoRA is then held against the rules by which other programs read such "
    "files, as their source has them: which names each takes, what it multiplies them by, and whether it knows the "
    "file for one of SDXL. One that a program would take in part does not stay. Last, where there is the memory for "
    "it, the model makes one step of denoising with the adapter as it was trained, and one with the file: the two may "
    "differ by no more than the rounding of the file's numbers."
)

_MOST_FILES = 200
_LONGEST_VALUE = 400
_LONGEST_ERROR = 4000

Status = Literal["running", "done", "failed"]


@dataclass(frozen=True)
class ExportChoice:
    """What is exported, and how.

    Attributes:
        step: after which step; None is the newest whole one, 'best' the kept one with the lowest smoothed loss.
        formats: of `FORMATS`; none is the recipe's, and the only choice for a whole model.
        precision: of `PRECISIONS`.
        metadata: of `METADATA`.
        card: whether a LoRA's model card is written beside it.
    """

    step: int | Literal["best"] | None
    formats: tuple[str, ...]
    precision: str
    metadata: str
    card: bool = False

    def require_possible(self, steps: Sequence[int]) -> None:
        """Raise RecipeError where a choice is none of those offered; `steps` are those that a run has kept."""
        if not steps:
            raise RecipeError("This run has saved no step yet. Wait for its first checkpoint, or choose another run")
        if isinstance(self.step, int) and self.step not in steps:
            raise RecipeError(f"Step {self.step}: this run has kept the steps {', '.join(map(str, steps))}")
        for name, given, allowed in (
            ("Formats", self.formats, FORMATS),
            ("Precision", (self.precision,), PRECISIONS),
            ("Metadata", (self.metadata,), METADATA),
        ):
            if not set(given) <= set(allowed):
                raise RecipeError(f"{name}: needs {', '.join(allowed)}")

    def words(self, run: Path) -> list[str]:
        """Return what follows `atelier` on the command line."""
        line = ["export", str(run)]
        if self.step is not None:
            line += ["--best"] if self.step == "best" else ["--step", str(self.step)]
        for name in self.formats:
            line += ["--format", name]
        line += ["--precision", self.precision, *(["--minimal-metadata"] if self.metadata == "minimal" else [])]
        return [*line, *(["--card"] if self.card else [])]

    def line(self, run: Path) -> str:
        """Return the line to type."""
        return shlex.join(["atelier", *self.words(run)])


@dataclass(frozen=True)
class ExportState:
    """How an export is.

    Attributes:
        status: running, done or failed.
        line: the line that a person would type for it.
        words: why it failed, or what it warned of: text, not markup.
        step: the step that was exported, once it is known.
        files: what it wrote.
        denoising: what one denoising step through each file has shown, in sentences.
    """

    status: Status
    line: str
    words: str = ""
    step: int | None = None
    files: tuple[Path, ...] = ()
    denoising: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportedFile:
    """A file that lies in a run's exports.

    Attributes:
        path: the file, with no link in it.
        name: relative to the exports.
        num_bytes: its size.
        written_at: seconds since 1970.
    """

    path: Path
    name: str
    num_bytes: int
    written_at: float


class Exports:
    """The exports that this page has started, the last of each run."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        """Export with `command`, which the verb and its options are put behind."""
        self._command = tuple(command)
        self._lock = threading.Lock()
        self._states: dict[Path, ExportState] = {}

    def start(self, run: RunFolder, choice: ExportChoice) -> None:
        """Begin to export.

        Raises:
            RecipeError: a choice is none of those offered, or this run is being exported.
        """
        choice.require_possible(run.kept_steps())
        with self._lock:
            running = self._states.get(run.path)
            if running is not None and running.status == "running":
                raise RecipeError("This run is being exported already. Wait until that is done")
            self._states[run.path] = ExportState("running", choice.line(run.path))
        threading.Thread(target=self._export, args=(run.path, choice), daemon=True).start()

    def look(self, run: RunFolder) -> ExportState | None:
        """Return how a run's last export is, or None where this page has started none."""
        with self._lock:
            return self._states.get(run.path)

    def _export(self, run: Path, choice: ExportChoice) -> None:
        line = choice.line(run)
        try:
            finished = subprocess.run(
                [*self._command, *choice.words(run), "--json"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=os.name != "nt",
                check=False,
            )
        except OSError as error:
            state = ExportState("failed", line, f"atelier cannot be started: {error}")
        else:
            state = read_outcome(line, finished.returncode, finished.stdout, finished.stderr)
        with self._lock:
            self._states[run] = state


def read_outcome(line: str, code: int, out: str, errors: str) -> ExportState:
    """Return what `atelier export --json` has said."""
    spoken = errors.strip()[-_LONGEST_ERROR:]
    if code != 0:
        return ExportState("failed", line, spoken.removeprefix("atelier: ") or f"it ended with exit code {code}")
    warnings = "\n".join(word for word in spoken.split("\n") if word.startswith("warning: "))
    try:
        answer = json.loads(out)
        files = tuple(Path(file) for file in answer["files"])
        denoising = tuple(str(step["words"]) for step in answer["denoising"])
        return ExportState("done", line, warnings, int(answer["step"]), files, denoising)
    except (ValueError, KeyError, TypeError):
        return ExportState("failed", line, f"its answer cannot be read: {out[:200]!r}")


def exported_files(run: RunFolder) -> list[ExportedFile]:
    """Return the plain files in a run's exports, the newest first; no link out of it is followed."""
    found = []
    for path in sorted(run.exports.rglob("*"))[: _MOST_FILES * 4]:
        name = path.relative_to(run.exports)
        if any(part.startswith(".") for part in name.parts):
            continue
        inside = file_inside(run.exports, str(name))
        if inside is not None:
            status = inside.stat()
            found.append(ExportedFile(inside, name.as_posix(), status.st_size, status.st_mtime))
    return sorted(found, key=lambda file: (-file.written_at, file.name))[:_MOST_FILES]


def read_facts(path: Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return what a safetensors file holds in a few facts, and its metadata by name, long values cut.

    Raises:
        RecipeError: it cannot be read.
    """
    try:
        with safe_open(path, framework="np") as file:
            names = sorted(file.keys())
            kinds = sorted({file.get_slice(name).get_dtype() for name in names})
            metadata = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise RecipeError(f"{path.name}: cannot be read: {error}. Export again") from error
    facts = [("Tensors", str(len(names))), ("Numbers", ", ".join(kinds)), ("Metadata", f"{len(metadata)} strings")]
    return facts, [(name, _cut(value)) for name, value in sorted(metadata.items())]


def _cut(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else value[: _LONGEST_VALUE - 1] + "…"
