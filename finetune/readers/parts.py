"""The tensors of one module: what each is by the end of its key, what they are an adapter of, and whether they fit.

Every dialect's ends of keys are known here; which of them a program knows is for its own rules.
"""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Literal

from finetune.readers.adapter_file import AdapterFile, Shape, shape_size

Kind = Literal["lora", "loha", "lokr", "full", "norm", "glora", "oft", "ia3", "empty"]


"""What an adapter is made of: two factors (and LoCon's third), Hadamard or Kronecker products, a whole difference …"""


LOHA_SUFFIXES = tuple(f".hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2"))
LOKR_SUFFIXES = tuple(f".lokr_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b", "w1", "w2", "t2"))
"""The ends of keys that LyCORIS writes, which every program that reads its kinds knows."""

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
    *((suffix, suffix.removeprefix(".")) for suffix in LOHA_SUFFIXES),
    *((suffix, suffix.removeprefix(".")) for suffix in LOKR_SUFFIXES),
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


_NEEDED: Mapping[Kind, tuple[str, ...]] = {
    "lora": ("down", "up"),
    "loha": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
}


def split_key(key: str) -> tuple[str, str] | None:
    """Split a tensor's name into its stem and what it is; None if its end is that of no adapter known here."""
    for suffix, part in _SUFFIXES:
        if key.endswith(suffix) and len(key) > len(suffix):
            return key.removesuffix(suffix), part
    return None


def kind_of(keys: Mapping[str, str]) -> Kind:
    """Return what an adapter of these parts is made of."""
    for part, kind in _KINDS:
        if any(name.startswith(part) for name in keys):
            return kind
    return "empty"


def rank_of(file: AdapterFile, kind: Kind, keys: Mapping[str, str]) -> int | None:
    """Return the inner dimension of a module's factors; None where it has none."""
    part = {"lora": "down", "loha": "hada_w1_b"}.get(kind)
    if kind == "lokr":
        part = "lokr_w2_b" if "lokr_w2_b" in keys else "lokr_w1_b"
    shape = file.shapes.get(keys.get(part or "", ""), ())
    return shape[0] if shape else None


def misfit_of(file: AdapterFile, kind: Kind, keys: Mapping[str, str], weight: Shape | None) -> str:
    """Say what is wrong with a module's tensors, if anything is."""
    if kind == "empty":
        return "nothing but " + ", ".join(sorted(keys)) + ": no factors"
    absent = [part for part in _NEEDED.get(kind, ()) if part not in keys]
    if absent:
        return f"one half of a pair: {', '.join(absent)} is not there"
    shapes = {part: file.shapes[key] for part, key in keys.items()}
    if shape_size(shapes.get("alpha", ())) != 1:
        return f"its alpha holds {shape_size(shapes['alpha'])} numbers, not one"
    made = _made_shape(kind, shapes)
    if made == (0, 0):
        return "the factors do not fit together: " + ", ".join(_shown_shapes(shapes))
    if weight is not None and made is not None and made != (weight[0], prod(weight[1:])):
        return f"made for a weight of {made[0]} x {made[1]}, but this model's is {weight[0]} x {prod(weight[1:])}"
    return ""


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
