"""Where the page may read and write: the folders named at its start, and nothing else.

A name that comes from the browser becomes a path here and only here. It is resolved, links and all, and has to lie
inside one of these folders afterwards; every refusal says what was given and what is allowed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import RecipeError
from finetune.recipe.shipped import resolve_data_path
from finetune.run.folder import RunFolder
from webui.runs import find_runs

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_SAMPLE = "sample:"


class PlaceError(RecipeError):
    """What the browser named lies outside the folders that were named at the page's start, or is not there."""


@dataclass(frozen=True)
class Places:
    """The folders of one page, every link in them resolved. Make it with `Places.at`.

    Attributes:
        runs: folders below which runs lie; a new run is made in the first.
        pictures: folders below which sets of pictures lie.
        recipes: where recipes are saved and looked for.
        queue: the queue's folder.
        scratch: the page's own files, of no worth once it has ended.
    """

    runs: tuple[Path, ...]
    pictures: tuple[Path, ...]
    recipes: Path
    queue: Path
    scratch: Path

    @classmethod
    def at(
        cls, runs: Sequence[Path], pictures: Sequence[Path], *, recipes: Path, queue: Path, scratch: Path
    ) -> "Places":
        """Resolve the folders; those that are not there yet stay as they are named."""
        return cls(_resolved(runs), _resolved(pictures), recipes.resolve(), queue.absolute(), scratch.resolve())

    def run(self, key: str) -> RunFolder:
        """Return the run that a browser names by its key.

        Raises:
            PlaceError: there is none of that key.
        """
        match = re.fullmatch(r"(?:@(?P<root>[0-9]{1,3})/)?(?P<name>[^\0].*)", key, re.DOTALL)
        index = int(match["root"] or 0) if match else 0
        if match is not None and index < len(self.runs):
            path = _inside(self.runs[index], match["name"])
            if path is not None and path in find_runs([path]):
                return RunFolder(path)
        raise PlaceError(f"{_shown(key)}: there is no such run. Choose one of the list")

    def key_of(self, run: Path) -> str:
        """Return how the browser names a run that lies below one of the folders."""
        for index, root in enumerate(self.runs):
            if run.is_relative_to(root):
                name = run.relative_to(root).as_posix()
                return name if index == 0 and not name.startswith("@") else f"@{index}/{name}"
        raise PlaceError(f"{run}: lies below none of the folders of runs")

    def picture_folder(self, name: str) -> Path:
        """Return the folder of pictures that a browser names: `sample:NAME`, relative to a folder, or absolute.

        Raises:
            PlaceError: it is not there, or lies outside.
            RecipeError: no such sample ships.
        """
        name = name.strip()
        if name.startswith(_SAMPLE):
            return resolve_data_path(name).resolve()
        for root in self.pictures:
            path = _inside(root, name)
            if path is not None and path.is_dir():
                return path
        allowed = ", ".join(str(root) for root in self.pictures) or "none was named"
        raise PlaceError(
            f"{_shown(name)}: no folder below those this page was started with ({allowed}). Start it with another: "
            "atelier ui --pictures FOLDER"
        )

    def recipe_file(self, name: str) -> Path:
        """Return the file of a recipe that a browser names, which need not be there yet: NAME or NAME.yaml.

        Raises:
            PlaceError: it is no plain file name.
        """
        stem = name.strip().removesuffix(".yaml")
        if _FILE_NAME.fullmatch(stem) is None:
            raise PlaceError(f"{_shown(name)}: a recipe's name has letters, digits, '-', '_' and '.', as my-character")
        path = self.recipes / f"{stem}.yaml"
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise PlaceError(f"{path.name}: is a link or no plain file. Give another name")
        return path

    def recipe_names(self) -> list[str]:
        """Return the names of the plain `.yaml` files in the folder of recipes, sorted, whatever they hold."""
        return sorted(path.stem for path in self.recipes.glob("*.yaml") if path.is_file() and not path.is_symlink())

    def is_served(self, path: Path, *, shown: bool) -> bool:
        """Whether a file may be sent to a browser: it is one, and lies inside a folder once its links are followed.

        Args:
            path: absolute.
            shown: whether it is sent to be shown, as a picture; a folder of pictures gives nothing else.
        """
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            return False
        folders = self.served() if shown else (*self.runs, self.scratch)
        return real.is_file() and any(real.is_relative_to(root) for root in folders)

    def served(self) -> tuple[Path, ...]:
        """Return the folders whose files a browser may be sent."""
        return (*self.runs, *self.pictures, self.scratch)


def _resolved(folders: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(folder.expanduser().resolve() for folder in folders))


def _inside(root: Path, name: str) -> Path | None:
    """Return the folder that `name` means below `root`, links resolved, or None where it is none or lies outside."""
    try:
        path = (root / name).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return None
    return path if path.is_relative_to(root) and ".." not in Path(name).parts else None


def _shown(name: str) -> str:
    return repr(name[:100])
