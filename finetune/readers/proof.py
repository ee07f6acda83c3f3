"""The proof of a file: what every reader makes of it, which ones it is meant for, and whether those take it whole."""

import difflib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import AtelierError, RecipeError
from finetune.naming.components import COMPONENTS, Component
from finetune.naming.structure import SDXL_BASE, ModelStructure
from finetune.readers.a1111 import read_as_a1111
from finetune.readers.adapter_file import AdapterFile, read_adapter_file
from finetune.readers.comfyui import read_as_comfyui
from finetune.readers.contents import Contents, sort_contents
from finetune.readers.diffusers import read_as_diffusers
from finetune.readers.forge import read_as_forge
from finetune.readers.invokeai import read_as_invokeai
from finetune.readers.kohya import read_as_kohya
from finetune.readers.names import names_of
from finetune.readers.peft import read_as_peft
from finetune.readers.reading import Left, Reading, Verdict
from finetune.readers.stems import Dialect

READERS: Mapping[str, Callable[[Contents], Reading]] = {
    "comfyui": read_as_comfyui,
    "a1111": read_as_a1111,
    "forge": read_as_forge,
    "invokeai": read_as_invokeai,
    "kohya": read_as_kohya,
    "diffusers": read_as_diffusers,
    "peft": read_as_peft,
}
"""The programs whose rules are known, by short name."""

_SIX = ("comfyui", "a1111", "forge", "invokeai", "kohya", "diffusers")

MEANT_FOR: Mapping[Dialect, tuple[str, ...]] = {
    "kohya": _SIX,
    "kohya, diffusers' names": ("comfyui", "a1111", "forge", "invokeai", "diffusers"),
    "diffusers": ("diffusers",),
    "old diffusers": ("diffusers", "comfyui"),
    "peft": ("peft",),
    "original": ("comfyui",),
    "mixed": _SIX,
    "unknown": _SIX,
}
"""Which readers a file in a dialect is meant for. One that is in none is held against all six."""

_TITLES: Mapping[Component, str] = {"unet": "U-Net", "text_encoder": "encoder 1", "text_encoder_2": "encoder 2"}


@dataclass(frozen=True)
class Proof:
    """What every reader makes of a file.

    Attributes:
        contents: the file, sorted.
        readings: by reader, in the order of `READERS`.
        meant_for: the readers that files in its dialect are for.
    """

    contents: Contents
    readings: Mapping[str, Reading]
    meant_for: tuple[str, ...]

    @property
    def file(self) -> AdapterFile:
        """The file."""
        return self.contents.file

    @property
    def dialect(self) -> Dialect:
        """The dialect of its names."""
        return self.contents.dialect

    @property
    def is_whole(self) -> bool:
        """Whether every reader it is meant for takes it whole, but for what that program can do with no such file."""
        return all(self.readings[name].state in ("whole", "limited") for name in self.meant_for)

    def as_lines(self) -> list[str]:
        """Return a table for a terminal: a line for each reader, and what there is to say below."""
        return [*_table(self), *self.remarks()]

    def remarks(self) -> list[str]:
        """Return what there is to say of the programs the file is meant for: shortfalls, notes, limits and remedies."""
        lines = []
        for name in self.meant_for:
            reading = self.readings[name]
            if reading.state in ("partial", "refused"):
                lines.append(f"{reading.title}: {describe_shortfall(reading)}")
            lines += [f"{reading.title}: {note}" for note in reading.notes]
            lines += [
                f"{reading.title} and {limit.name}: {limit.text}. Instead: {with_path(limit.remedy, self.file.path)}"
                for limit in reading.limits
            ]
        return lines

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        return {
            "file": str(self.file.path),
            "dialect": self.dialect,
            "kinds": sorted(self.contents.kinds),
            "modules": dict(self.contents.totals),
            "meant_for": list(self.meant_for),
            "is_whole": self.is_whole,
            "readers": [reading.as_data() for reading in self.readings.values()],
        }


def prove(path: Path, structure: ModelStructure = SDXL_BASE) -> Proof:
    """Hold a file against the rules of every reader.

    Args:
        path: a `.safetensors` file, or a folder of peft's or diffusers'.
        structure: the model it is for.

    Raises:
        AtelierError: there is no such file, or it cannot be trusted.
    """
    return prove_file(read_adapter_file(path), structure)


def prove_file(file: AdapterFile, structure: ModelStructure = SDXL_BASE) -> Proof:
    """Hold a file that was read against the rules of every reader."""
    contents = sort_contents(file, names_of(structure))
    readings = {name: read(contents) for name, read in READERS.items()}
    return Proof(contents, readings, MEANT_FOR[contents.dialect])


def require_whole(proof: Proof, readers: Sequence[str] | None = None) -> None:
    """Make sure that a file is taken whole.

    Args:
        proof: of the file.
        readers: short names of readers that must take all of it, limits of theirs not excused; None for those the file
            is meant for, whose limits with files of its kind are.

    Raises:
        AtelierError: one would take it in part, or refuse it; the first keys are named.
        RecipeError: a name is that of no reader.
    """
    wrong = shortfalls(proof, readers)
    if wrong:
        told = "\n".join(f"  {title}: {sentence}" for title, sentence in wrong.items())
        raise AtelierError(f"{proof.file.path}: is not read whole.\n{told}")


def shortfalls(proof: Proof, readers: Sequence[str] | None = None) -> dict[str, str]:
    """Return the readers that do not take a file whole, by title, and what each leaves or reads wrong.

    Arguments and errors are those of `require_whole`, which raises where there is any.
    """
    check_readers(readers or ())
    accepted = ("whole", "limited") if readers is None else ("whole",)
    asked = [proof.readings[name] for name in (proof.meant_for if readers is None else readers)]
    return {reading.title: describe_shortfall(reading) for reading in asked if reading.state not in accepted}


def require_readers(proofs: Sequence[Proof], readers: Sequence[str]) -> None:
    """Make sure that each of these programs takes at least one of several files whole, and as it was trained.

    Raises:
        AtelierError: one does not, and why not with each file.
        RecipeError: a name is that of no reader.
    """
    check_readers(readers)
    for name in readers:
        if proofs and not any(proof.readings[name].state == "whole" for proof in proofs):
            why = [f"  {proof.file.path.name}: {describe_shortfall(proof.readings[name])}" for proof in proofs]
            raise AtelierError(f"{proofs[0].readings[name].title} reads none of the files whole.\n" + "\n".join(why))


def check_readers(readers: Sequence[str]) -> None:
    """Raise RecipeError where a name is that of no reader."""
    unknown = [name for name in readers if name not in READERS]
    if unknown:
        raise RecipeError(f"unknown reader {unknown[0]!r}. {_meant(unknown[0])}Known: {', '.join(READERS)}")


def describe_takers(proof: Proof, readers: Sequence[str] | None = None) -> str:
    """Say who takes a file whole, who all but what it can do with no file of the kind, and who can do nothing with it.

    Args:
        proof: of a file that none of the readers takes in part.
        readers: short names; None for those the file is meant for.
    """
    asked = [proof.readings[name] for name in (proof.meant_for if readers is None else readers)]
    whole = ", ".join(reading.title for reading in asked if reading.state == "whole")
    limited = [reading for reading in asked if reading.state == "limited"]
    parts = [reading for reading in limited if reading.num_taken]
    nothing = [reading for reading in limited if not reading.num_taken]
    return "; ".join([whole or "no program", *_listed("with limits", parts), *_listed("not at all", nothing)])


def _listed(words: str, readings: Sequence[Reading]) -> list[str]:
    """Return programs behind words, those with the same limits together: 'with limits (DoRA): ComfyUI, A1111'."""
    titles: dict[str, list[str]] = {}
    for reading in readings:
        names = ", ".join(dict.fromkeys(limit.name for limit in reading.limits))
        titles.setdefault(f"{words} ({names})" if names else words, []).append(reading.title)
    return [f"{head}: {', '.join(of_head)}" for head, of_head in titles.items()]


def with_path(command: str, path: Path) -> str:
    """Return a remedy's command with the file's path where it says FILE."""
    return command.replace("FILE", shlex.quote(str(path)))


def describe_shortfall(reading: Reading) -> str:
    """Say in one sentence what a reader does not take or reads wrong, with the first keys; 'nothing' if all is well."""
    parts = []
    if reading.refusal:
        parts.append(f"refuses the file: {reading.refusal}")
    if reading.left:
        parts.append(f"leaves {len(reading.left)} keys, first {_first(reading.left)}")
    for name, verdict in (("scale", reading.scale), ("DoRA", reading.dora), ("version", reading.version)):
        if verdict.state in ("wrong", "limit") and verdict.detail:
            parts.append(f"{name}: {verdict.detail}")
    if not reading.counts:
        parts.append("there is no module in it that is known")
    return "; ".join(parts) or "nothing"


def _meant(word: str) -> str:
    near = difflib.get_close_matches(word[:100], READERS, n=1)
    return f"Did you mean {near[0]!r}? " if near else ""


def _first(left: Sequence[Left]) -> str:
    shown = ", ".join(item.key for item in left[:3])
    return f"{shown}{' …' if len(left) > 3 else ''} ({left[0].reason})"


def _table(proof: Proof) -> list[str]:
    components = [component for component in COMPONENTS if component in proof.contents.totals]
    rows = [["reader", *(_TITLES[component] for component in components), "alpha", "DoRA", "version", ""]]
    for name, reading in proof.readings.items():
        if name == "peft" and name not in proof.meant_for:
            continue
        counts = [
            f"{reading.counts[component].taken}/{reading.counts[component].total}"
            if component in reading.counts
            else "-"
            for component in components
        ]
        verdicts = [_word(verdict) for verdict in (reading.scale, reading.dora, reading.version)]
        ending = reading.state if name in proof.meant_for else f"{reading.state} (not meant for it)"
        rows.append([reading.title, *counts, *verdicts, ending])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _word(verdict: Verdict) -> str:
    return {"right": "right", "wrong": "wrong", "limit": "not as trained", "absent": "-"}[verdict.state]
