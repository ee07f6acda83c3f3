"""Put a module's tensors together to its neutral form, after seeing that they fit each other and the model.

No product is formed here: what a file may make one hold is what the file itself holds, however large the shapes that it
claims. The formulas stand with the forms, in `finetune.adapters.weights`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.adapters.weights import FullModule, LohaModule, LokrModule, LoraModule
from finetune.dialects.parts import ALLOWED, KINDS
from finetune.dialects.peft_config import AdapterConfig
from finetune.dialects.spelling import ModuleName
from finetune.errors import AtelierError

Shape = tuple[int, ...]
AnyModule = LoraModule | LohaModule | LokrModule | FullModule


@dataclass(frozen=True)
class Given:
    """What a file holds of one module.

    Attributes:
        where: the file and the module, for messages.
        name: component and path.
        shape: of the weight it belongs to.
        parts: the shape of each tensor, by part.
        config: what the file's configuration says, where it has one.
    """

    where: str
    name: ModuleName
    shape: Shape
    parts: Mapping[str, Shape]
    config: AdapterConfig | None


def kind_of(parts: Mapping[str, object], where: str) -> str:
    """Return 'LoRA', 'LoHa', 'LoKr' or 'full'.

    Raises:
        AtelierError: the parts are of none, of several, or of one kind with parts of others.
    """
    kinds = {KINDS[part] for part in parts if part in KINDS}
    if len(kinds) != 1:
        missing = "lora_down.weight" if "up" in parts else "its first factor"
        reason = f"is of several kinds at once: {', '.join(sorted(kinds))}" if kinds else f"{missing} is missing"
        raise AtelierError(f"{where}: {reason}")
    kind = kinds.pop()
    foreign = sorted(set(parts) - ALLOWED[kind])
    if foreign:
        raise AtelierError(f"{where}: is a {kind}, which has no {foreign[0]}")
    return kind


def check_shapes(given: Given) -> str:
    """Return the kind of a module whose tensors fit each other and the weight, by their shapes alone.

    Raises:
        AtelierError: they do not, or one is missing.
    """
    kind = kind_of(given.parts, given.where)
    {"LoRA": _check_lora, "LoHa": _check_loha, "LoKr": _check_lokr, "full": _check_full}[kind](given)
    _check_alpha(given)
    magnitude_axis(given)
    if given.config is not None and given.config.use_dora and not {"magnitude", "dora_scale"} & set(given.parts):
        raise AtelierError(f"{given.where}: is said to be DoRA, but its magnitude is missing")
    return kind


def build_form(given: Given, tensors: Mapping[str, Tensor]) -> AnyModule:
    """Return the neutral form of a module that `check_shapes` has passed.

    Args:
        given: what the file says.
        tensors: its parts, float32.

    Raises:
        AtelierError: its alpha is zero, which readers take for different things.
    """
    kind = kind_of(given.parts, given.where)
    component, module = given.name
    axis = magnitude_axis(given)
    found = tensors.get("magnitude", tensors.get("dora_scale"))
    magnitude = None if found is None or axis is None else found.flatten()
    axis = axis or 0
    scale = scale_of(given, kind, tensors)
    if kind == "LoRA":
        down, up = _folded(given, tensors)
        return LoraModule(component, module, down, up, scale, magnitude, axis)
    own = {name.partition("_")[2]: tensor for name, tensor in tensors.items() if name.startswith(("hada_", "lokr_"))}
    if kind == "LoHa":
        own |= {name: own[name].flatten(1) for name in ("w1_b", "w2_b")}
        return LohaModule(component, module, given.shape, scale=scale, magnitude=magnitude, magnitude_axis=axis, **own)
    if kind == "LoKr":
        return LokrModule(component, module, given.shape, scale=scale, magnitude=magnitude, magnitude_axis=axis, **own)
    return FullModule(component, module, tensors["diff"].reshape(given.shape), scale, magnitude, axis)


def scale_of(given: Given, kind: str, tensors: Mapping[str, Tensor]) -> float:
    """Return what the product is multiplied by.

    LyCORIS and readers divide alpha by the rank of what is factored, and take 1 where nothing is (a LoKr of two whole
    parts, a full change); so alpha / sqrt(rank) of rsLoRA is stored as alpha * sqrt(rank) (LyCORIS,
    `modules/locon.py`, `self.alpha`). peft has alpha / r of its configuration, whatever is factored.
    """
    rank = _rank(given, kind)
    alpha = tensors.get("alpha")
    if alpha is not None:
        value = alpha.item()
        if rank is None:
            return 1.0
        if value == 0:
            raise AtelierError(f"{given.where}: its alpha is 0, which some readers take for none and some for the rank")
        return value / rank
    return 1.0 if given.config is None else given.config.scale_of(given.name[1], rank)


def magnitude_axis(given: Given) -> int | None:
    """Return what DoRA's magnitude holds the norms of: 0 rows, 1 columns; None where there is none.

    peft has norms of rows, (out,) or (1, out, 1, 1). LyCORIS says it by the shape: (out, 1, …) with
    `wd_on_output`, else (1, in, …).

    Raises:
        AtelierError: it is neither.
    """
    num_out, num_in = given.shape[:2]
    if "magnitude" in given.parts:
        shape = given.parts["magnitude"]
        if shape not in ((num_out,), (1, num_out, 1, 1), (num_out, 1), (1, num_out)):
            raise AtelierError(
                f"{given.where}: its DoRA magnitude is {shape}, not one number for each of the {num_out} outputs"
            )
        return 0
    if "dora_scale" not in given.parts:
        return None
    shape, ones = given.parts["dora_scale"], (1,) * (len(given.shape) - 2)
    if shape in ((num_out,), (num_out, 1), (num_out, 1, *ones)):
        return 0
    if shape in ((1, num_in), (1, num_in, *ones)):
        return 1
    raise AtelierError(
        f"{given.where}: its DoRA magnitude is {shape}, neither one number for each of the {num_out} outputs, "
        f"({num_out}, 1), nor one for each of the {num_in} inputs, (1, {num_in})"
    )


def _check_alpha(given: Given) -> None:
    shape = given.parts.get("alpha", ())
    count = 1
    for size in shape:
        count *= size
    if count != 1:
        raise AtelierError(f"{given.where}: its alpha holds {count} numbers, not one")


def _check_lora(given: Given) -> None:
    down, up = _need(given, "down"), _need(given, "up")
    mid = given.parts.get("mid")
    num_out, *inner = given.shape
    kernel = tuple(inner[1:])
    rank = down[0] if down else 0
    fits = rank > 0 and up[:2] == (num_out, rank) and up[2:] in ((), (1,) * len(kernel))
    if mid is not None:
        _require(given, "mid", bool(kernel) and mid == (rank, rank, *kernel))
        fits = fits and down[1:] in ((inner[0],), (inner[0], *(1,) * len(kernel)))
    else:
        pointwise = kernel == (1, 1) and down[1:] == (inner[0],)
        # diffusers' old processors and some converters write the factors of a Linear as a 1 by 1 convolution's.
        as_convolution = not kernel and down[1:] == (inner[0], 1, 1) and up[2:] == (1, 1)
        fits = (fits and (down[1:] == tuple(inner) or pointwise)) or (
            as_convolution and rank > 0 and up[:2] == (num_out, rank)
        )
    if not fits:
        raise AtelierError(f"{given.where}: the factors do not fit together or the weight: {down} and {up} "
                           f"for {given.shape}")  # fmt: skip


def _check_loha(given: Given) -> None:
    num_out, num_in, *kernel = given.shape
    flat = _product(given.shape[1:])
    rank = _need(given, "hada_w1_b")[0] if given.parts.get("hada_w1_b") else 0
    _require(given, "hada_w1_b", rank > 0)
    cores = "hada_t1" in given.parts
    if cores != ("hada_t2" in given.parts):
        raise AtelierError(f"{given.where}: one of hada_t1 and hada_t2 is missing")
    for half in ("1", "2"):
        a, b = _need(given, f"hada_w{half}_a"), _need(given, f"hada_w{half}_b")
        if cores:
            _require(given, f"hada_t{half}", bool(kernel) and given.parts[f"hada_t{half}"] == (rank, rank, *kernel))
        _require(given, f"hada_w{half}_a", a == ((rank, num_out) if cores else (num_out, rank)))
        _require(
            given, f"hada_w{half}_b", b == (rank, num_in) if cores else b in ((rank, flat), (rank, *given.shape[1:]))
        )


def _check_lokr(given: Given) -> None:
    parts = given.parts
    for name in ("lokr_w1", "lokr_w2"):
        factored = {f"{name}_a", f"{name}_b"} & set(parts)
        if (name in parts) == bool(factored) or len(factored) == 1:
            raise AtelierError(f"{given.where}: {name} must be there, or {name}_a and {name}_b, and not both")
    num_out, num_in, *kernel = given.shape
    if "lokr_w1" in parts:
        rows, columns = _matrix(given, "lokr_w1")
    else:
        rows, inner = _matrix(given, "lokr_w1_a")
        other, columns = _matrix(given, "lokr_w1_b")
        _require(given, "lokr_w1_b", inner == other)
    _require(given, "lokr_w1" if "lokr_w1" in parts else "lokr_w1_a", num_out % rows == 0 and num_in % columns == 0)
    b, d = num_out // rows, num_in // columns
    if "lokr_w2" in parts:
        whole = parts["lokr_w2"] in ((b, d, *kernel), (b, d * _product(tuple(kernel))))
        _require(given, "lokr_w2", whole and "lokr_t2" not in parts)
        return
    first, second = parts["lokr_w2_a"], parts["lokr_w2_b"]
    if "lokr_t2" in parts:
        rank = second[0] if second else 0
        _require(given, "lokr_t2", bool(kernel) and rank > 0 and parts["lokr_t2"] == (rank, rank, *kernel))
        _require(given, "lokr_w2_a", first == (rank, b))
        _require(given, "lokr_w2_b", second == (rank, d))
    else:
        rank = first[1] if len(first) == 2 else 0
        _require(given, "lokr_w2_a", rank > 0 and first == (b, rank))
        _require(given, "lokr_w2_b", second in ((rank, d * _product(tuple(kernel))), (rank, d, *kernel)))
    if "lokr_w1_b" in parts and parts["lokr_w1_b"][0] != rank:
        ranks = f"{parts['lokr_w1_b'][0]} and {rank}"
        raise AtelierError(f"{given.where}: its two parts are of ranks {ranks}: what alpha is divided by is not told")


def _check_full(given: Given) -> None:
    _require(given, "diff", given.parts["diff"] == given.shape)


def _rank(given: Given, kind: str) -> int | None:
    if kind == "LoRA":
        return given.parts["down"][0]
    names = {"LoHa": ("hada_w1_b",), "LoKr": ("lokr_w2_b", "lokr_w1_b"), "full": ()}[kind]
    return next((given.parts[name][0] for name in names if name in given.parts), None)


def _folded(given: Given, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return both factors in the form of the weight; a Tucker core between them becomes part of the first.

    LyCORIS' LoCon with `use_tucker` has a (rank, rank, height, width) core between two 1 by 1 convolutions
    (`functional/general.py`, `tucker_weight_from_conv`): sum over j of core[i, j] down[j, in] is a first factor
    with the weight's own kernel.
    """
    down, up = tensors["down"], tensors["up"]
    kernel = given.shape[2:]
    if "mid" in tensors:
        down = torch.einsum("ijkl,jr->irkl", tensors["mid"], down.flatten(1))
    down = down.reshape(down.shape[0], *given.shape[1:])
    return down.contiguous(), up.reshape(*up.shape[:2], *(1,) * len(kernel))


def _matrix(given: Given, name: str) -> tuple[int, int]:
    shape = given.parts[name]
    _require(given, name, len(shape) == 2 and 0 not in shape)
    return shape[0], shape[1]


def _need(given: Given, part: str) -> Shape:
    if part not in given.parts:
        names = {"down": "lora_down.weight (lora_A.weight)", "up": "lora_up.weight (lora_B.weight)"}
        raise AtelierError(f"{given.where}: {names.get(part, part)} is missing")
    return given.parts[part]


def _require(given: Given, part: str, fits: bool) -> None:
    if not fits:
        raise AtelierError(
            f"{given.where}: {part} is {given.parts.get(part)}, which does not fit the others or the weight, "
            f"{given.shape}"
        )


def _product(sizes: tuple[int, ...]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result
