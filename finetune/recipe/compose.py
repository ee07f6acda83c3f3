"""Puts a recipe together from its file and what that extends, keeping the file and line of each value.

The extending file wins over what it extends, and a later entry of `extends` over an earlier one. An entry is the name
of something that ships or a path relative to the extending file. Whether the result is valid is asked in `load`.
"""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.recipe.merge import merge
from finetune.recipe.problems import Problem, nearest, shown
from finetune.recipe.shipped import recipes_folder, shipped_names, shipped_path
from finetune.recipe.yaml_text import MAX_BYTES, Node, read_yaml

MAX_FILES = 32
RUN_RECIPE = "recipe.yaml"
"""The resolved recipe in a run's folder, which stands for the run."""
_YAML_ENDINGS = (".yaml", ".yml")


def find_recipe(reference: str, problems: list[Problem]) -> tuple[Path, str] | None:
    """Return the file that a path or a shipped name means and what messages call it, or None with the problem noted."""
    is_file_name = reference.endswith(_YAML_ENDINGS)
    shipped = None if is_file_name else shipped_path(reference)
    if shipped is not None:
        return shipped, shown_path(shipped)
    path = Path(reference)
    try:
        if (path / RUN_RECIPE).is_file():
            return path / RUN_RECIPE, str(path / RUN_RECIPE)
        if path.is_dir():
            problems.append(_problem_of_folder(reference))
            return None
        if path.exists():
            return path, reference
    except (OSError, ValueError):
        pass  # a name no file can have is reported below like one no file has
    known = shipped_names()
    looks_like_path = is_file_name or "/" in reference or os.sep in reference
    what = "no such file" if looks_like_path else "no such file, and no recipe of that name ships"
    guess = nearest(reference.removesuffix(".yaml"), known)
    problems.append(Problem(f"recipe {shown(reference)}", "", f"{what}. {guess}Shipped: {', '.join(known)}"))
    return None


def _problem_of_folder(reference: str) -> Problem:
    what = f"is a folder without {RUN_RECIPE}; needs a recipe's file, a run's folder or a shipped name"
    return Problem(f"recipe {shown(reference)}", "", what)


@dataclass
class Composer:
    """Reads files into one tree, gathering problems instead of stopping at the first.

    `type_` is the annotation of the whole tree; merging asks it which kind a mapping has when it names none.
    """

    type_: Any
    problems: list[Problem] = field(default_factory=list)
    num_files: int = 0

    def file(self, path: Path, label: str, chain: tuple[tuple[Path, str], ...] = ()) -> Node | None:
        """Read a file and everything it extends; None when any of it cannot be read."""
        self.num_files += 1
        if self.num_files > MAX_FILES:
            self.problems.append(Problem(label, "", f"extends more than {MAX_FILES} files"))
            return None
        text = read_text(path, label, self.problems)
        return None if text is None else self.text(text, path, label, chain)

    def text(self, text: str, path: Path, label: str, chain: tuple[tuple[Path, str], ...] = ()) -> Node | None:
        """Read a file's text and everything it extends; None when any of it cannot be read."""
        node = read_yaml(text, _lines_of(label), self.problems)
        if node is None:
            return None
        if not isinstance(node.value, dict):
            message = "is empty" if node.value is None else f"got {shown(node.plain())}"
            self.problems.append(
                Problem(node.where, "", f"{message}, needs a mapping of settings ('key: value' lines)")
            )
            return None
        settings = dict(node.value)
        extends = settings.pop("extends", None)
        own = Node(settings, node.where)
        if extends is None:
            return own
        return self._onto_bases(own, extends, (*chain, (path.resolve(), label)))

    def _onto_bases(self, own: Node, extends: Node, chain: tuple[tuple[Path, str], ...]) -> Node | None:
        entries = extends.value if isinstance(extends.value, list) else [extends]
        merged: Node | None = Node({}, own.where)
        for entry in entries:
            base = self._base(entry, chain)
            merged = None if base is None or merged is None else merge(merged, base, self.type_)
        return None if merged is None else merge(merged, own, self.type_)

    def _base(self, entry: Node, chain: tuple[tuple[Path, str], ...]) -> Node | None:
        if not isinstance(entry.value, str):
            self._refuse(entry, f"got {shown(entry.plain())}, needs a shipped name, a path, or a list of them")
            return None
        extending_path, _ = chain[-1]
        found = self._base_file(entry, entry.value, extending_path.parent)
        if found is None:
            return None
        path, label = found
        labels = [seen_label for seen, seen_label in chain if seen == path]
        if labels:
            way = " → ".join([*(seen_label for _, seen_label in chain), label])
            self._refuse(entry, f"the files extend each other in a circle: {way}")
            return None
        return self.file(path, label, chain)

    def _base_file(self, entry: Node, reference: str, folder: Path) -> tuple[Path, str] | None:
        shipped = shipped_path(reference)
        if shipped is not None:
            return shipped.resolve(), shown_path(shipped)
        if not reference.endswith(_YAML_ENDINGS):
            known = shipped_names()
            self._refuse(
                entry,
                f"no recipe or profile {shown(reference)} ships. {nearest(reference, known)}"
                f"Shipped: {', '.join(known)}. A file of your own ends in .yaml",
            )
            return None
        path = Path(reference)
        if path.is_absolute() or reference.startswith("~"):
            self._refuse(entry, f"got {shown(reference)}, needs a path relative to the file that extends it")
            return None
        try:
            resolved = (folder / path).resolve()
            exists = resolved.exists()
        except (OSError, ValueError, RuntimeError):
            exists = False
        if not exists:
            self._refuse(entry, f"no such file: {shown(reference)} (looked for in the folder of the extending file)")
            return None
        return resolved, shown_path(resolved)

    def _refuse(self, entry: Node, message: str) -> None:
        self.problems.append(Problem(entry.where, "extends", message))


def shown_path(path: Path) -> str:
    """Return a path as messages name it: short for what ships or lies below the current directory."""
    for folder in (recipes_folder(), recipes_folder().resolve(), Path.cwd()):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return str(path)


def _lines_of(label: str) -> Callable[[int | None], str]:
    return lambda line: label if line is None else f"{label}:{line}"


def read_text(path: Path, label: str, problems: list[Problem]) -> str | None:
    """Return the text of a regular file of bounded size, or None with the problem noted."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            problems.append(Problem(label, "", "is not a file"))
            return None
        if status.st_size > MAX_BYTES:
            problems.append(Problem(label, "", f"has {status.st_size} bytes, a recipe at most {MAX_BYTES}"))
            return None
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problems.append(Problem(label, "", f"is not UTF-8 text (byte {error.start})"))
    except OSError as error:
        problems.append(Problem(label, "", f"cannot be read: {error.strerror or error}"))
    return None
