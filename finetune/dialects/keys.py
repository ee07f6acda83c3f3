"""Take the names of a file's tensors apart: which module of the model, and which part of it. Without torch."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from finetune.dialects.parts import EMBEDDINGS, EXTRAS, OTHER_KINDS, part_endings
from finetune.dialects.sources import Source
from finetune.dialects.spelling import NAMINGS, ModuleName, Spelled, nearest_spelling, spellings
from finetune.errors import AtelierError
from finetune.naming.structure import ModelStructure
from finetune.tensors.header import shown

_ENDINGS = part_endings()
_SHOWN = 3


@dataclass(frozen=True)
class Key:
    """A tensor's name, understood.

    Attributes:
        name: as it stands in the file.
        module: component and path.
        part: a name in `finetune.dialects.parts`.
        naming: whose way to spell it is, a name in NAMINGS.
    """

    name: str
    module: ModuleName
    part: str
    naming: str


def read_keys(source: Source, structure: ModelStructure, *, leave_out: bool) -> tuple[list[Key], list[tuple[str, str]]]:
    """Return every tensor's meaning, and those that were left out with what they are.

    Args:
        source: the file.
        structure: the model.
        leave_out: whether embeddings and changes of biases and normalisations may be left out.

    Raises:
        AtelierError: a name belongs to no module, or to what is not read here.
    """
    index = spellings(structure)
    keys: list[Key] = []
    extras: list[tuple[str, str]] = []
    unknown: list[str] = []
    for name in source.header.entries:
        found = _spelled(name, index)
        if found is not None:
            stem, part = found
            keys.append(Key(name, _module(source, name, part, stem, structure), part, stem.naming))
        elif (extra := _extra(name)) is not None:
            extras.append((name, extra))
        else:
            unknown.append(name)
    path = source.header.path
    if unknown:
        raise AtelierError(f"{path}: {_explain(unknown, structure)}")
    if extras and not leave_out:
        kinds = Counter(kind for _, kind in extras)
        counted = ", ".join(f"{kind} ({count})" for kind, count in kinds.items())
        raise AtelierError(
            f"{path}: holds what a LoRA's factors cannot: {counted}, as {shown(extras[0][0])}. Without it the result "
            "is not the same; to go on all the same: --leave-out"
        )
    return keys, extras


def _spelled(name: str, index: Mapping[str, Spelled]) -> tuple[Spelled, str] | None:
    for end, table, part in _ENDINGS:
        if name.endswith(f".{end}"):
            found = index.get(name[: -len(end) - 1])
            if found is not None and table in NAMINGS[found.naming].parts:
                return found, part
    return None


def _extra(name: str) -> str | None:
    """Return what a tensor that no neutral form holds is, or None where it is none of those known."""
    if name.startswith(EMBEDDINGS[:3]) or name in EMBEDDINGS:
        return "a text embedding"
    return next((kind for end, kind in EXTRAS.items() if name.endswith(f".{end}")), None)


def _module(source: Source, name: str, part: str, stem: Spelled, structure: ModelStructure) -> ModuleName:
    """Return which module is meant, where the words alone leave open which encoder."""
    if len(stem.modules) == 1:
        only = stem.modules[0]
        if source.component is not None and stem.naming == "peft" and only[0] != source.component:
            raise AtelierError(
                f"{source.header.path}: {shown(name)} is a module of {only[0]}, in a folder of {source.component}"
            )
        return only
    own = [module for module in stem.modules if module[0] == source.component]
    fitting = own or [module for module in stem.modules if _may_fit(source, name, part, structure.weights[module])]
    if len(fitting) != 1:
        raise AtelierError(
            f"{source.header.path}: {shown(name)} does not say which text encoder it belongs to. Put the file into a "
            "folder named text_encoder or text_encoder_2, with its adapter_config.json"
        )
    return fitting[0]


def _may_fit(source: Source, name: str, part: str, weight: tuple[int, ...]) -> bool:
    shape = source.header.entries[name].shape
    if part == "down":
        return shape[1:] == weight[1:]
    if part in ("up", "magnitude", "dora_scale"):
        return bool(shape) and weight[0] in shape
    return False


def _explain(unknown: list[str], structure: ModelStructure) -> str:
    """Return what is wrong with names that are not understood: which, how many, and what they may have meant."""
    first = unknown[0]
    named = ", ".join(shown(name) for name in unknown[:_SHOWN])
    more = "" if len(unknown) <= _SHOWN else f" and {len(unknown) - _SHOWN} more"
    for end, kind in OTHER_KINDS.items():
        if first.endswith((f".{end}", f".{end}.weight")):
            return f"is an adapter of the kind {kind} ({shown(first)}), which is not read here"
    if first.startswith("lora_te_"):
        return f"is a LoRA of SD 1 or 2, which have one text encoder ({shown(first)}); here those of SDXL are read"
    index = spellings(structure)
    stem = next((stem for stem in _fronts(first) if stem in index), None)
    if stem is not None:
        near = f"is no part of a module: {first[len(stem) + 1 :]!r:.60}"
    else:
        nearest = nearest_spelling(_without_part(first), structure)
        near = "is no module of this model" + (f"; the nearest is {nearest!r}" if nearest else "")
    count = f"{len(unknown)} names are" if len(unknown) > 1 else "a name is"
    return f"{count} not known: {named}{more}. {shown(first)} {near}. Is it of another model? See --model"


def _fronts(name: str) -> Iterator[str]:
    """Yield what stands before each dot of a name, the longest first."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _without_part(name: str) -> str:
    return next((name[: -len(end) - 1] for end, _, _ in _ENDINGS if name.endswith(f".{end}")), name)
