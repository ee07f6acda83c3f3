"""What a file holds, before asking any reader: its keys sorted into modules, the kind of each, the scale it means.

A key is a stem, which names a module in some dialect, and a part, which says what the tensor is to the module
(`.lora_down.weight`). Which stems and parts a program knows is for its own rules; here every dialect's are known, so
that what a program leaves can be counted and named.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any

from finetune.naming.components import Component
from finetune.readers.adapter_file import AdapterFile
from finetune.readers.names import ModelNames, Module
from finetune.readers.parts import Kind, kind_of, misfit_of, rank_of, split_key
from finetune.readers.stems import Dialect, component_of, dialect_of, every_stem, has_original_blocks


@dataclass(frozen=True)
class Entry:
    """What a file holds for one module.

    Attributes:
        stem: the module's name in the file.
        keys: its tensors' full names, by what they are.
        kind: what the adapter of this module is made of.
        component: the model the name says it belongs to; None where it does not say.
        module: the module, in any dialect that is known; None if it is none of the model's.
        rank: the inner dimension; None for kinds without one.
        scale: what its product is to be multiplied by, as the file means it.
        misfit: what is wrong with its tensors, whoever reads them; empty if nothing is.
    """

    stem: str
    keys: Mapping[str, str]
    kind: Kind
    component: Component | None
    module: Module | None
    rank: int | None
    scale: float
    misfit: str = ""

    @property
    def is_dora(self) -> bool:
        """Whether it has magnitudes of DoRA."""
        return "dora_scale" in self.keys or "magnitude" in self.keys


@dataclass(frozen=True)
class Contents:
    """A file's keys in order.

    Attributes:
        file: the file.
        names: the model it is held against.
        entries: its modules.
        others: keys that are no part of an adapter known here: bundled embeddings, anything else.
    """

    file: AdapterFile
    names: ModelNames
    entries: tuple[Entry, ...]
    others: tuple[str, ...]

    @cached_property
    def dialect(self) -> Dialect:
        """The dialect of its names."""
        found = {dialect_of(entry.stem, entry.keys) for entry in self.entries}
        if "kohya, diffusers' names" in found and not any(has_original_blocks(entry.stem) for entry in self.entries):
            # Kohya's names of the encoders are the same beside either.
            found.discard("kohya")
        return found.pop() if len(found) == 1 else "mixed" if found else "unknown"

    @cached_property
    def totals(self) -> Mapping[Component, int]:
        """How many modules of each component the file has something for."""
        totals: dict[Component, int] = {}
        for entry in self.entries:
            if entry.component is not None:
                totals[entry.component] = totals.get(entry.component, 0) + 1
        return totals

    @cached_property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of adapters in it."""
        return frozenset(entry.kind for entry in self.entries)

    @property
    def has_dora(self) -> bool:
        """Whether any module has magnitudes of DoRA."""
        return any(entry.is_dora for entry in self.entries)


def sort_contents(file: AdapterFile, names: ModelNames) -> Contents:
    """Sort a file's keys into modules of a model."""
    groups: dict[str, dict[str, str]] = {}
    others = []
    for key in file.shapes:
        split = split_key(key)
        if split is None:
            others.append(key)
        else:
            groups.setdefault(split[0], {})[split[1]] = key
    _leave_out_twins(file, groups)
    known = every_stem(names)
    settings = adapter_settings(file)
    entries = []
    for stem, keys in sorted(groups.items()):
        if set(keys) <= {"weight", "scale", "scalar"} or stem.startswith(("bundle_emb", "emb_params")):
            others += keys.values()
            continue
        module = known.get(stem)
        component = module[0] if module else component_of(stem)
        kind = kind_of(keys)
        rank = rank_of(file, kind, keys)
        misfit = misfit_of(file, kind, keys, None if module is None else names.shapes[module])
        scale = _meant_scale(file, kind, keys, rank, component, module, settings)
        entries.append(Entry(stem, keys, kind, component, module, rank, scale, misfit))
    return Contents(file, names, tuple(entries), tuple(sorted(others)))


def _leave_out_twins(file: AdapterFile, groups: dict[str, dict[str, str]]) -> None:
    """Leave out names that stand in peft's folder for an older transformers beside those of today's.

    peft takes the names that the model has, and passes over the others: a module of encoder 1 that stands there with
    and without `text_model.` is whole in both.
    """
    front = "text_encoder/base_model.model."
    for stem in [stem for stem in groups if stem.startswith(f"{front}text_model.")]:
        own = groups.get(stem.replace(f"{front}text_model.", front))
        if own is None or own.keys() != groups[stem].keys():
            continue
        if all(file.shapes[key] == file.shapes[groups[stem][part]] for part, key in own.items()):
            del groups[stem]


def adapter_settings(file: AdapterFile) -> Mapping[Component, Mapping[str, Any]]:
    """Return peft's settings of each component: of a folder's config, or diffusers' `lora_adapter_metadata`.

    Settings that are not JSON, or of another form, are as if they were not there: diffusers fails at such a file, and
    its own rules say so.
    """
    if file.configs:
        return file.configs
    try:
        given = json.loads(file.metadata.get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError):
        return {}
    settings: dict[Component, dict[str, Any]] = {}
    for name, value in given.items() if isinstance(given, dict) else ():
        component, _, field = name.partition(".")
        if component in ("unet", "text_encoder", "text_encoder_2"):
            settings.setdefault(component, {})[field] = value
    return settings


def pattern_value(patterns: object, path: str, default: object) -> float | None:
    """Return what peft's rank or alpha patterns say for a module (peft, utils/other.py, `get_pattern_key`).

    A pattern fits a path that is it, or ends with it behind a dot; the first of several counts. Patterns here are read
    as plain names, `^` apart: those that programs write for SDXL are. What is no finite number is as if not there.
    """
    given = patterns if isinstance(patterns, Mapping) else {}
    parts = path.split(".")
    ends = {".".join(parts[start:]) for start in range(len(parts))} | {f"^{path}"}
    fitting = ends & given.keys()
    if len(fitting) > 1:
        fitting = {next(pattern for pattern in given if pattern in fitting)}
    for pattern in fitting:
        value = _finite(given[pattern])
        if value is not None:
            return value
    return _finite(default)


def _finite(value: object) -> float | None:
    if not isinstance(value, (int, float)) or not -1e30 < value < 1e30:
        return None
    return float(value)


def _meant_scale(
    file: AdapterFile,
    kind: Kind,
    keys: Mapping[str, str],
    rank: int | None,
    component: Component | None,
    module: Module | None,
    settings: Mapping[Component, Mapping[str, Any]],
) -> float:
    """Return the scale that a file's own words give a module: its alpha by its rank, or peft's settings, or 1."""
    alpha = file.numbers.get(keys.get("alpha", ""))
    if alpha is not None:
        return alpha / rank if rank else 1.0
    config = settings.get(component) if component is not None else None
    if config is None or module is None:
        return 1.0
    return peft_scale(config, kind, rank, module[1])


def peft_scale(config: Mapping[str, Any], kind: Kind, rank: int | None, path: str) -> float:
    """Return what peft multiplies a module's product by, as its settings have it; 1 where they have nothing.

    LoKr is divided by the rank of the settings, also where no factor has it.
    """
    alpha = pattern_value(config.get("alpha_pattern"), path, config.get("lora_alpha" if kind == "lora" else "alpha"))
    if kind == "lokr":
        told = pattern_value(config.get("rank_pattern"), path, config.get("r"))
        rank = rank if told is None else int(told)
    if alpha is None or rank is None or rank < 1:
        return 1.0
    return alpha / sqrt(rank) if config.get("use_rslora") is True else alpha / rank
