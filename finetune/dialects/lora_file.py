"""Read a LoRA, whichever program wrote it, into the neutral forms: module by module.

Files come from strangers. Only safetensors are read, after `finetune.tensors.header` has checked the header. Names that
belong to no module of the model, factors that fit neither each other nor the weight, and numbers that are not finite
are refused. One module is read at a time: what is held is what is used.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from finetune.adapters.weights import LoraModule
from finetune.dialects.forms import AnyModule, Given, build_form, check_shapes
from finetune.dialects.keys import Key, read_keys
from finetune.dialects.sources import Source, find_sources
from finetune.dialects.spelling import NAMINGS, ModuleName
from finetune.errors import AtelierError
from finetune.naming.structure import SDXL_BASE, ModelStructure
from finetune.tensors.header import shown
from finetune.tensors.reading import TensorFile

__all__ = ["AnyModule", "LoraFile", "ModuleName", "read_lora"]

_PRECISIONS = {"F16": "fp16", "BF16": "bf16"}


@dataclass(frozen=True)
class _Place:
    """Where a module's tensors lie; of `twins`, pairs of names of one tensor, both must hold the same."""

    given: Given
    kind: str
    naming: str
    source: int
    keys: Mapping[str, str]
    twins: Sequence[tuple[str, str]]


class LoraFile:
    """An open LoRA: the names of its modules at once, their weights one at a time. Use it as a context.

    Attributes:
        path: the file or folder.
        files: the files it is read from.
        metadata: the strings of its (first) file.
        structure: the model whose modules it was read for.
        left_out: name and kind of every tensor that was left out, as asked for.
        began_as: by component, the initialisation that took a part out of the base ('pissa'), where it did.
    """

    def __init__(
        self,
        path: Path,
        structure: ModelStructure = SDXL_BASE,
        *,
        leave_out: bool = False,
        initial: Path | None = None,
    ) -> None:
        """Open a LoRA.

        Args:
            path: a `.safetensors` file in any dialect, or a folder of peft's or diffusers'.
            structure: the model it was made for; names and shapes depend on it.
            leave_out: leave out embeddings and changes of normalisations and biases, which no neutral form holds,
                instead of refusing the file.
            initial: peft's folder of the factors before training. Files of PiSSA, OLoRA, CorDA and LoRA-GA mean nothing
                to an untouched base without them.

        Raises:
            AtelierError: it is no such file, or holds what must not be trusted or cannot be read.
        """
        self.path, self.structure = path, structure
        sources = find_sources(path)
        self.files = tuple(source.header.path for source in sources)
        self.metadata = dict(sources[0].header.metadata)
        self.left_out: list[tuple[str, str]] = []
        places: dict[ModuleName, _Place] = {}
        for number, source in enumerate(sources):
            keys, extras = read_keys(source, structure, leave_out=leave_out)
            self.left_out += extras
            for name, group in _by_module(source, keys).items():
                if name in places:
                    raise AtelierError(f"{path}: two of its files hold {'.'.join(name)}")
                places[name] = _place(source, number, name, group, structure)
        if not places:
            raise AtelierError(f"{path}: holds no tensors of a LoRA")
        order = {name: index for index, name in enumerate(structure.weights)}
        self._places = {name: places[name] for name in sorted(places, key=order.__getitem__)}
        self._types = Counter(
            sources[place.source].header.entries[key].dtype
            for place in places.values() for part, key in place.keys.items() if part != "alpha"
        )  # fmt: skip
        self.began_as = {
            name[0]: place.given.config.began_as
            for name, place in places.items() if place.given.config is not None and place.given.config.began_as
        }  # fmt: skip
        with ExitStack() as stack:
            self._files = [stack.enter_context(TensorFile(source.header)) for source in sources]
            # The factors before training are read as they are, though their own configuration names their beginning.
            self._initial = None if initial is None else stack.enter_context(LoraFile(initial, structure))
            self._stack = stack.pop_all()

    @property
    def names(self) -> Sequence[ModuleName]:
        """Component and path of every module, in the order of the model."""
        return tuple(self._places)

    @property
    def dialects(self) -> Counter[str]:
        """How many modules are spelled in each naming, by its name in `finetune.dialects.spelling.NAMINGS`."""
        found = Counter(place.naming for place in self._places.values())
        unet = {place.naming for (component, _), place in self._places.items() if component == "unet"}
        if unet == {"kohya-diffusers"} and found["kohya"]:
            # The encoders' names are the same in both of kohya's layouts.
            found["kohya-diffusers"] += found.pop("kohya")
        return found

    @property
    def dialect(self) -> str:
        """What people call its naming, or several."""
        return " and ".join(NAMINGS[name].title for name, _ in self.dialects.most_common())

    @property
    def precision(self) -> str:
        """The precision that most of its tensors have, as exporters name it: 'fp16', 'bf16' or 'fp32'."""
        return _PRECISIONS.get(self._types.most_common(1)[0][0], "fp32")

    @property
    def types(self) -> Counter[str]:
        """How many tensors have each kind of numbers, as safetensors names it."""
        return self._types

    def kind(self, name: ModuleName) -> str:
        """Return 'LoRA', 'LoHa', 'LoKr' or 'full', from the names alone."""
        return self._places[name].kind

    def parts(self, name: ModuleName) -> Mapping[str, tuple[int, ...]]:
        """Return the shape of each tensor of a module, by the part it is, without reading them."""
        return self._places[name].given.parts

    def keys(self, name: ModuleName) -> Mapping[str, str]:
        """Return the name in the file of each tensor of a module, by the part it is."""
        return self._places[name].keys

    def __enter__(self) -> Self:
        """Return the file."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self._stack.close()

    def load(self, name: ModuleName) -> AnyModule:
        """Return one module in float32, as it changes the untouched base.

        Raises:
            AtelierError: a number is not finite, or the factors belong to a base that was changed.
        """
        began = self.began_as.get(name[0])
        if began is None:
            return self.load_factors(name)
        where = self._places[name].given.where
        if self._initial is None:
            raise AtelierError(
                f"{where}: {began} took a part out of the base where training began, so these factors alone are wrong "
                "on the untouched base. Give the factors before training, which peft saved then: --initial FOLDER"
            )
        if name not in self._initial.names:
            raise AtelierError(f"{self._initial.path}: does not hold {'.'.join(name)}, where {self.path} began")
        return _subtracted(where, self.load_factors(name), self._initial.load_factors(name))

    def load_factors(self, name: ModuleName) -> AnyModule:
        """Return one module in float32 as the file has it, whichever base it belongs to; errors as `load`'s."""
        place = self._places[name]
        file = self._files[place.source]
        for one, other in place.twins:
            if not torch.equal(file.raw(one), file.raw(other)):
                raise AtelierError(f"{place.given.where}: {shown(one)} and {shown(other)} do not hold the same")
        return build_form(place.given, {part: _floats(file, part, key) for part, key in place.keys.items()})

    def raw(self, name: ModuleName) -> dict[str, Tensor]:
        """Return the tensors of a module as they stand in the file, by part; they may not be finite."""
        place = self._places[name]
        return {part: self._files[place.source].raw(key) for part, key in place.keys.items()}

    def modules(self) -> Iterator[AnyModule]:
        """Yield every module, one at a time."""
        return (self.load(name) for name in self._places)


def read_lora(path: Path, structure: ModelStructure = SDXL_BASE) -> list[AnyModule]:
    """Return all modules of a LoRA at once, in the order of the model. Arguments and errors as LoraFile's."""
    with LoraFile(path, structure) as file:
        return list(file.modules())


def _by_module(source: Source, keys: Sequence[Key]) -> dict[ModuleName, list[Key]]:
    """Return the keys of each module, the first encoder's twins behind one another."""
    groups: dict[ModuleName, list[Key]] = {}
    taken: dict[tuple[ModuleName, str], str] = {}
    for key in keys:
        other = taken.setdefault((key.module, key.part), key.name)
        if other != key.name and not _are_twins(source, other, key):
            raise AtelierError(
                f"{source.header.path}: {shown(other)} and {shown(key.name)} are the same part of one module"
            )
        groups.setdefault(key.module, []).append(key)
    return groups


def _are_twins(source: Source, other: str, key: Key) -> bool:
    """Return whether two names are those that one tensor of peft's has with and without `text_model.`."""
    entries = source.header.entries
    names = {name.replace("base_model.model.text_model.", "base_model.model.") for name in (other, key.name)}
    is_peft = key.naming == "peft" and key.module[0] == "text_encoder"
    return is_peft and len(names) == 1 and entries[other].shape == entries[key.name].shape


def _place(source: Source, number: int, name: ModuleName, keys: Sequence[Key], structure: ModelStructure) -> _Place:
    own: dict[str, str] = {}
    twins = [(own[key.part], key.name) for key in keys if own.setdefault(key.part, key.name) != key.name]
    given = Given(
        where=f"{source.header.path}: {'.'.join(name)}",
        name=name,
        shape=structure.weights[name],
        parts={part: source.header.entries[key].shape for part, key in own.items()},
        config=source.config_of(name[0]),
    )
    return _Place(given, check_shapes(given), keys[0].naming, number, own, twins)


def _floats(file: TensorFile, part: str, key: str) -> Tensor:
    """Return a tensor in float32. An alpha may be a whole number, as early versions of kohya's trainer saved it."""
    is_whole = part == "alpha" and file.header.entries[key].dtype.startswith("I")
    return file.raw(key).float() if is_whole else file.floats(key)


def _subtracted(where: str, trained: AnyModule, initial: AnyModule) -> LoraModule:
    # Imported here: it needs peft, which takes a second to import, and hardly any file needs it.
    from finetune.adapters.initial import without_initialisation

    if not isinstance(trained, LoraModule) or not isinstance(initial, LoraModule):
        raise AtelierError(f"{where}: only of a LoRA can the part that it began as be taken off")
    try:
        return without_initialisation(trained, initial)
    except ValueError as error:
        raise AtelierError(f"{where}: the factors before training do not belong to it: {error}") from error
