"""What a file holds, before asking any reader: its keys sorted into modules, the kind of each, the scale it means.

A key is a stem, which names a module in some dialect, and a part, which says what the tensor is to the module
(`.lora_down.weight`). Which stems and parts a program knows is for its own rules; here every dialect's are known, so
that what a program leaves can be counted and named.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod, sqrt
from typing import Any, Literal

from finetune.naming.components import Component
from finetune.readers.adapter_file import AdapterFile, Shape
from finetune.readers.names import ModelNames, Module, underscored

Kind = Literal["lora", "loha", "lokr", "full", "norm", "glora", "oft", "ia3", "empty"]
"""What an adapter is made of: two factors (and LoCon's third), Hadamard or Kronecker products, a whole difference …"""

Dialect = Literal[
    "kohya", "kohya, diffusers' names", "diffusers", "old diffusers", "peft", "original", "mixed", "unknown"
]

# Suffix of a key → what the tensor is. Longer ones first where one ends another.
_SUFFIXES: tuple[tuple[str, str], ...] = (
    (".lora_linear_layer.down.weight", "down"),
    (".lora_linear_layer.up.weight", "up"),
    (".lora_A.default.weight", "down"),
    (".lora_B.default.weight", "up"),
    (".lora_down.weight", "down"),
    (".lora_up.weight", "up"),
    (".lora_mid.weight", "mid"),
    (".lora.down.weight", "down"),
    (".lora.up.weight", "up"),
    ("_lora.down.weight", "down"),
    ("_lora.up.weight", "up"),
    (".lora_A.weight", "down"),
    (".lora_B.weight", "up"),
    (".lora_A", "down"),
    (".lora_B", "up"),
    (".lora_B.bias", "bias"),
    (".lora_magnitude_vector.weight", "magnitude"),
    (".lora_magnitude_vector.default.weight", "magnitude"),
    (".lora_magnitude_vector.default", "magnitude"),
    (".lora_magnitude_vector", "magnitude"),
    (".dora_scale", "dora_scale"),
    (".alpha", "alpha"),
    (".scale", "scale"),
    (".scalar", "scalar"),
    *((f".hada_{part}", f"hada_{part}") for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
    *((f".lokr_{part}", f"lokr_{part}") for part in ("w1_a", "w1_b", "w2_a", "w2_b", "w1", "w2", "t2")),
    *((f".{part}.weight", f"glora_{part}") for part in ("a1", "a2", "b1", "b2")),
    (".oft_blocks", "oft"),
    (".oft_diag", "oft"),
    (".rescale", "rescale"),
    (".diff_b", "bias"),
    (".diff", "diff"),
    (".w_norm", "w_norm"),
    (".b_norm", "bias"),
    (".set_weight", "set"),
    (".reshape_weight", "reshape"),
    (".bias_indices", "bias"),
    (".bias_values", "bias"),
    (".bias_size", "bias"),
    (".on_input", "ia3"),
    (".weight", "weight"),
)

_PREFIXES: tuple[tuple[str, Component], ...] = (
    ("lora_unet_", "unet"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te_", "text_encoder"),
    ("lycoris_", "unet"),
    ("unet.", "unet"),
    ("text_encoder_2.", "text_encoder_2"),
    ("text_encoder.", "text_encoder"),
    ("diffusion_model.", "unet"),
    ("text_encoders.clip_l.transformer.", "text_encoder"),
    ("text_encoders.clip_g.transformer.", "text_encoder_2"),
    ("unet/", "unet"),
    ("text_encoder_2/", "text_encoder_2"),
    ("text_encoder/", "text_encoder"),
    ("down_blocks.", "unet"),
    ("mid_block.", "unet"),
    ("up_blocks.", "unet"),
)

_PEFT = "base_model.model."


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
        found = {_dialect_of(entry.stem, entry.keys) for entry in self.entries}
        if "kohya, diffusers' names" in found and not any(_has_original_blocks(entry.stem) for entry in self.entries):
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
    known = _any_name(names)
    settings = adapter_settings(file)
    entries = []
    for stem, keys in sorted(groups.items()):
        if set(keys) <= {"weight", "scale", "scalar"} or stem.startswith(("bundle_emb", "emb_params")):
            others += keys.values()
            continue
        module = known.get(stem)
        component = module[0] if module else _component(stem)
        kind = _kind(keys)
        rank = _rank(file, kind, keys)
        misfit = _misfit(file, kind, keys, None if module is None else names.shapes[module])
        scale = _meant_scale(file, kind, keys, rank, component, module, settings)
        entries.append(Entry(stem, keys, kind, component, module, rank, scale, misfit))
    return Contents(file, names, tuple(entries), tuple(sorted(others)))


def split_key(key: str) -> tuple[str, str] | None:
    """Split a tensor's name into its stem and what it is; None if its end is that of no adapter known here."""
    for suffix, part in _SUFFIXES:
        if key.endswith(suffix) and len(key) > len(suffix):
            return key.removesuffix(suffix), part
    return None


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

    A pattern fits a path that is it, or ends with it behind a dot. Patterns here are read as plain names, `^` apart:
    those that programs write for SDXL are.
    """
    for pattern, value in patterns.items() if isinstance(patterns, Mapping) else ():
        name = str(pattern)
        fits = path == name.removeprefix("^") if name.startswith("^") else path == name or path.endswith("." + name)
        if fits and isinstance(value, (int, float)):
            return float(value)
    return float(default) if isinstance(default, (int, float)) else None


def _any_name(names: ModelNames) -> dict[str, Module]:
    """Return every stem that any dialect has for each module."""
    found: dict[str, Module] = {}
    paths = {path: original for original, path in names.original.items()}
    for path in names.unet_paths:
        module: Module = ("unet", path)
        stems = [f"lora_unet_{underscored(path)}", f"lycoris_{underscored(path)}", f"unet/{_PEFT}{path}", path]
        stems += [f"unet.{path}", f"unet.{_PEFT}{path}", f"{_PEFT}{path}", f"unet/{path}"]
        if ".to_" in path:
            old = path.replace(".to_", ".processor.to_").replace(".to_out.0", ".to_out")
            stems += [old, f"unet.{old}"]
        if path in paths:
            stems += [f"lora_unet_{underscored(paths[path])}", f"diffusion_model.{paths[path]}"]
        found |= dict.fromkeys(stems, module)
    numbers: Mapping[Component, str] = {"text_encoder": "1", "text_encoder_2": "2"}
    clip = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
    for component, number in numbers.items():
        own = [path for named, path in names.shapes if named == component]
        for path in own:
            module = (component, path)
            short = path.removeprefix("text_model.")
            stems = [f"text_encoders.{clip[component]}.transformer.{path}"]
            for name in (path, short):
                stems += [f"lora_te{number}_{underscored(name)}", f"{component}.{name}"]
                stems += [f"{component}/{_PEFT}{name}", f"{component}.{_PEFT}{name}", f"{component}/{name}"]
                if "self_attn" in name:
                    old = name.replace("_proj", "").replace("self_attn.", "self_attn.to_")
                    stems.append(f"{component}.{old}")
                if component == "text_encoder" or names.structure.text_encoder is None:
                    stems.append(f"lora_te_{underscored(name)}")
                if names.structure.text_encoder is None:
                    stems.append(f"text_encoder.{name}")
            found |= dict.fromkeys(stems, module)
    return found


def _component(stem: str) -> Component | None:
    for prefix, component in _PREFIXES:
        if stem.startswith(prefix):
            return component
    if stem.startswith(_PEFT):
        return "unet" if "blocks" in stem or "block." in stem else None
    return None


def _dialect_of(stem: str, keys: Mapping[str, str]) -> Dialect:
    if _PEFT in stem or "/" in stem:
        return "peft"
    if stem.startswith(("lora_unet_", "lycoris_")):
        is_new = any(name in stem for name in ("down_blocks_", "up_blocks_", "mid_block_"))
        return "kohya, diffusers' names" if is_new else "kohya"
    if stem.startswith(("lora_te1_", "lora_te2_", "lora_te_")):
        return "kohya"
    if stem.startswith(("diffusion_model.", "text_encoders.")):
        return "original"
    if any("lora_A" in key or "lora_B" in key for key in keys.values()):
        return "diffusers"
    if stem.startswith(("unet.", "text_encoder.", "text_encoder_2.", "down_blocks.", "up_blocks.", "mid_block.")):
        return "old diffusers"
    return "unknown"


def _has_original_blocks(stem: str) -> bool:
    return stem.startswith(("lora_unet_input_blocks_", "lora_unet_middle_block_", "lora_unet_output_blocks_"))


def _kind(keys: Mapping[str, str]) -> Kind:
    for part, kind in _KINDS:
        if any(name.startswith(part) for name in keys):
            return kind
    return "empty"


_KINDS: tuple[tuple[str, Kind], ...] = (
    ("down", "lora"),
    ("up", "lora"),
    ("hada_", "loha"),
    ("lokr_", "lokr"),
    ("glora_", "glora"),
    ("oft", "oft"),
    ("ia3", "ia3"),
    ("diff", "full"),
    ("set", "full"),
    ("w_norm", "norm"),
)


def _rank(file: AdapterFile, kind: Kind, keys: Mapping[str, str]) -> int | None:
    part = {"lora": "down", "loha": "hada_w1_b"}.get(kind)
    if kind == "lokr":
        part = "lokr_w2_b" if "lokr_w2_b" in keys else "lokr_w1_b"
    shape = file.shapes.get(keys.get(part or "", ""), ())
    return shape[0] if shape else None


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
    if alpha is None or not rank:
        return 1.0
    return alpha / sqrt(rank) if config.get("use_rslora") is True else alpha / rank


def _misfit(file: AdapterFile, kind: Kind, keys: Mapping[str, str], weight: Shape | None) -> str:
    """Say what is wrong with a module's tensors, if anything is."""
    if kind == "empty":
        return "nothing but " + ", ".join(sorted(keys)) + ": no factors"
    absent = [part for part in _NEEDED.get(kind, ()) if part not in keys]
    if absent:
        return f"one half of a pair: {', '.join(absent)} is not there"
    shapes = {part: file.shapes[key] for part, key in keys.items()}
    made = _made_shape(kind, shapes)
    if made == (0, 0):
        return "the factors do not fit together: " + ", ".join(_shown_shapes(shapes))
    if weight is not None and made is not None and made != (weight[0], prod(weight[1:])):
        return f"made for a weight of {made[0]} x {made[1]}, but this model's is {weight[0]} x {prod(weight[1:])}"
    return ""


_NEEDED: Mapping[Kind, tuple[str, ...]] = {
    "lora": ("down", "up"),
    "loha": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
}


def _shown_shapes(shapes: Mapping[str, Shape]) -> Iterator[str]:
    for part, shape in sorted(shapes.items()):
        if part not in ("alpha", "scale"):
            yield f"{part} {'x'.join(map(str, shape))}"


def _made_shape(kind: Kind, shapes: Mapping[str, Shape]) -> tuple[int, int] | None:
    """Return outputs and inputs (kernel included) of the weight that factors make; (0, 0) where they do not fit."""
    if kind == "lora":
        return _product(shapes["up"], shapes["down"], shapes.get("mid"))
    if kind == "loha":
        first = _product(shapes["hada_w1_a"], shapes["hada_w1_b"], shapes.get("hada_t1"), is_hada=True)
        second = _product(shapes["hada_w2_a"], shapes["hada_w2_b"], shapes.get("hada_t2"), is_hada=True)
        return first if first == second else (0, 0)
    if kind == "lokr":
        return _kronecker(shapes)
    if kind == "full" and "diff" in shapes:
        shape = shapes["diff"]
        return (shape[0], prod(shape[1:])) if shape else (0, 0)
    return None


def _product(up: Shape, down: Shape, mid: Shape | None, *, is_hada: bool = False) -> tuple[int, int]:
    if len(up) < 2 or len(down) < 2:
        return (0, 0)
    if mid is None:
        return (up[0], prod(down[1:])) if prod(up[1:]) == down[0] else (0, 0)
    if len(mid) < 3:
        return (0, 0)
    # Tucker's form. LoCon: up (out, r), down (r, in); LoHa: both (r, …).
    out, rank = (up[1], up[0]) if is_hada else (up[0], up[1])
    return (out, down[1] * prod(mid[2:])) if mid[0] == rank and mid[1] == down[0] else (0, 0)


def _kronecker(shapes: Mapping[str, Shape]) -> tuple[int, int]:
    first = shapes.get("lokr_w1")
    if first is None and "lokr_w1_a" in shapes and "lokr_w1_b" in shapes:
        first = _product(shapes["lokr_w1_a"], shapes["lokr_w1_b"], None)
    second = shapes.get("lokr_w2")
    if second is None and "lokr_w2_a" in shapes and "lokr_w2_b" in shapes:
        second = _product(shapes["lokr_w2_a"], shapes["lokr_w2_b"], shapes.get("lokr_t2"), is_hada="lokr_t2" in shapes)
    if first is None or second is None or len(first) < 2 or len(second) < 2:
        return (0, 0)
    return (first[0] * second[0], first[1] * prod(second[1:]))
