"""The levels of a `dataset_config` of kohya's trainers: which options hold for each subset, and where each stands.

What is of another form than it must be is gathered as problems, by its place in the file.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagesets.errors import PictureError, SourceError
from imagesets.files import read_file
from imagesets.reading.kohya_options import OPTIONS, TRAINERS_OWN, Level, problem_of

MAX_CONFIG_BYTES = 2**24

_STRUCTURE = frozenset({"image_dir", "metadata_file"})


@dataclass(frozen=True)
class Value:
    """An option's value, and where it stands."""

    value: Any
    place: str


@dataclass(frozen=True)
class Subset:
    """All options that hold for one subset: its own, then its dataset's, then the general ones.

    Attributes:
        place: in the file, as 'datasets[0].subsets[1]'.
        kind: 'metadata' where its captions come from a metadata file, otherwise 'files'.
        values: by the options' names.
    """

    place: str
    kind: str
    values: Mapping[str, Value]

    def get(self, name: str, otherwise: Any = None) -> Any:
        """Return an option's value, or what holds where the file does not name it."""
        found = self.values.get(name)
        return otherwise if found is None else found.value

    def place_of(self, name: str) -> str:
        """Return where an option that the file names stands."""
        return self.values[name].place


@dataclass(frozen=True)
class Dataset:
    """Subsets that share sizes and batches."""

    subsets: tuple[Subset, ...]


class ConfigFile:
    """Walks through the file's levels, keeps what is of the right form, and gathers the problems of the rest.

    Attributes:
        problems: by their place; whoever finds more adds them.
    """

    def __init__(self, leave_out: Sequence[str], content: Mapping[str, Any]) -> None:
        """Begin with what `read_config` returned.

        Args:
            leave_out: names of options to go without.
            content: of the file.
        """
        self.problems: dict[str, str] = {}
        self._content = content
        self._left_out = dict.fromkeys(leave_out, False)

    def datasets(self) -> Iterator[Dataset]:
        """Yield the file's datasets in their order."""
        for name in self._content:
            if name in {"general", "datasets"}:
                continue
            self.problems[name] = (
                "is an option of the trainer's command line and not of a dataset_config: give the folder that it names "
                "with kind: kohya"
                if name in TRAINERS_OWN
                else "does not stand here: a dataset_config holds [general] and [[datasets]]"
            )
        general = self._level(self._content.get("general", {}), "general", "general")
        for number, dataset in enumerate(self._list(self._content, "datasets", "datasets")):
            place = f"datasets[{number}]"
            values = general | self._level(dataset, place, "dataset")
            if isinstance(dataset, dict):
                yield Dataset(tuple(self._subsets(dataset, place, values)))

    def _subsets(self, dataset: Mapping[str, Any], place: str, above: Mapping[str, Value]) -> Iterator[Subset]:
        kinds = {}
        for number, subset in enumerate(self._list(dataset, "subsets", f"{place}.subsets")):
            here = f"{place}.subsets[{number}]"
            own = self._level(subset, here, "subset")
            kinds[here] = kind = "metadata" if "metadata_file" in own else "files"
            for name, value in own.items():
                if OPTIONS[name].of not in (None, kind):
                    self.problems[value.place] = "does not belong to a subset with a metadata_file"
            yield Subset(here, kind, {**above, **own})
        if len(set(kinds.values())) > 1:
            self.problems[f"{place}.subsets"] = (
                "some have a metadata_file and some have none: part them into two datasets"
            )

    def _level(self, options: object, place: str, level: Level) -> dict[str, Value]:
        """Return the options of one level that are of the right form."""
        if not isinstance(options, dict):
            self.problems[place] = f"got {options!r:.60}, needs a table of options"
            return {}
        values: dict[str, Value] = {}
        for name, value in options.items():
            if name == "subsets" and level == "dataset":
                continue
            if name in self._left_out and name not in _STRUCTURE:
                self._left_out[name] = True
                continue
            problem = problem_of(name, value, level)
            if problem is None:
                values[name] = Value(value, f"{place}.{name}")
            else:
                self.problems[f"{place}.{name}"] = problem
        return values

    def _list(self, holder: Mapping[str, Any], name: str, place: str) -> Sequence[Any]:
        found = holder.get(name)
        if not isinstance(found, list) or not found:
            self.problems[place] = f"needs at least one: [[{name if name == 'datasets' else f'datasets.{name}'}]]"
            return ()
        return found

    def finish(self) -> None:
        """Name what was to be left out and is not there."""
        for name, found in self._left_out.items():
            if name in _STRUCTURE:
                self.problems[f"leave_out: {name}"] = "cannot be left out"
            elif not found:
                self.problems[f"leave_out: {name}"] = "does not stand in the file: take it out of leave_out"


def read_config(path: Path) -> dict[str, Any]:
    """Return what the file holds.

    Raises:
        SourceError: it cannot be read, or is neither TOML nor JSON.
    """
    where = f"the dataset configuration {path}"
    kind = path.suffix.lower()
    if kind not in {".toml", ".json"}:
        raise SourceError(f"{where} ends in {path.suffix!r}: such files end in .toml or .json")
    try:
        place = path.resolve()
        text = read_file(place, place.parent, MAX_CONFIG_BYTES).decode("utf-8-sig")
        content = tomllib.loads(text) if kind == ".toml" else json.loads(text)
    except PictureError as error:
        raise SourceError(f"{where}: {error}") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{where} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        advice = ". Write a path of Windows in 'single quotes'" if "\\" in str(error) or "hex" in str(error) else ""
        raise SourceError(f"{where} is not {kind[1:].upper()}: {error}{advice}") from error
    if not isinstance(content, dict):
        raise SourceError(f"{where} holds {type(content).__name__}, not [general] and [[datasets]]")
    return content
