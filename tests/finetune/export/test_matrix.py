"""Every kind of adapter in every format: what is read back changes the weights as what was trained does.

The wide part reads files back with our own reader; the narrow one lets the programs that the formats are for read them,
or computes what they compute from the file's tensors.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import peft
import pytest
import safetensors.numpy
import torch
from diffusers import StableDiffusionXLPipeline
from numpy.typing import NDArray
from peft.tuners.lora import LoraLayer
from peft.tuners.lycoris_utils import LycorisLayer
from torch import Tensor, nn

from finetune.adapters.initial import without_initialisation
from finetune.adapters.plain import exact_lora
from finetune.adapters.weights import AdaptedModule, LohaModule, LokrModule, LoraModule
from finetune.dialects.lora_file import LoraFile
from finetune.errors import AtelierError
from finetune.export.registry import FORMATS
from finetune.naming.components import COMPONENTS, Component
from finetune.naming.keys import kohya_stem
from finetune.naming.structure import ModelStructure, TextStructure, UNetStructure

MakePipeline = Callable[..., StableDiffusionXLPipeline]
StructureOf = Callable[[StableDiffusionXLPipeline], ModelStructure]

STRUCTURE = ModelStructure(
    UNetStructure((16, 24, 48), (1, 1, 1), (False, True, True), (True, True, False), (1, 1, 1), 1, 40, 56),
    TextStructure(12, 20, 2),
    TextStructure(28, 36, 2, 28),
)
KINDS = ("LoRA", "rsLoRA", "DoRA", "PiSSA", "LoHa", "LoKr")
TARGETS = ("attention", "attention+feedforward", "attention+feedforward+convolutions")
WHERE: dict[str, tuple[Component, ...]] = {"unet": ("unet",), "all": COMPONENTS}
RANKS = ("rank unlike alpha", "mixed")
SLOW = pytest.mark.slow
HOLDS = {
    "kohya": KINDS,
    "kohya-diffusers": KINDS,
    "diffusers": ("LoRA", "rsLoRA", "DoRA", "PiSSA"),
    "peft": KINDS,
}
CASES = [case for case in itertools.product(FORMATS, KINDS, WHERE, TARGETS, RANKS) if case[1] in HOLDS[case[0]]]


def is_target(path: str, targets: str) -> bool:
    attention = path.rpartition(".to_")[2] in ("q", "k", "v", "out.0") and ".attn" in path
    encoder = path.startswith("text_model.")
    transformer = ".attentions." in path
    convolution = ".resnets." in path or "samplers." in path
    return encoder or attention or ("feedforward" in targets and transformer) or ("conv" in targets and convolution)


def small_split(size: int) -> int:
    """Return the divisor that peft's own rule takes for the first Kronecker part's side."""
    return max(side for side in range(1, int(size**0.5) + 1) if size % side == 0)


def make(kind: str, name: tuple[Component, str], shape: tuple[int, ...], rank: int, alpha: float) -> AdaptedModule:
    """Invent a trained module. Factors are drawn so that its change is of the order of one."""
    generator = torch.Generator().manual_seed(len(name[1]) * 100 + rank)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    component, module = name
    rows, *rest = shape
    ones = (1,) * (len(rest) - 1)
    inputs = int(np.prod(rest))
    scale = alpha / rank**0.5 if kind == "rsLoRA" else alpha / rank
    if kind == "LoHa":
        return LohaModule(component, module, shape, draw(rows, rank), draw(rank, inputs), draw(rows, rank),
                          draw(rank, inputs), scale)  # fmt: skip
    if kind == "LoKr":
        a, c = small_split(rows), small_split(rest[0])
        b, d = rows // a, rest[0] // c
        if rank < max(b, d) / 2:
            second = {"w2_a": draw(b, rank), "w2_b": draw(rank, d * inputs // rest[0])}
            return LokrModule(component, module, shape, scale, w1=draw(a, c), **second)
        return LokrModule(component, module, shape, 1.0, w1=draw(a, c), w2=draw(b, d, *rest[1:]))
    trained = LoraModule(component, module, draw(rank, *rest), draw(rows, rank, *ones), scale,
                         draw(rows).abs() + 1 if kind == "DoRA" else None)  # fmt: skip
    if kind == "PiSSA":
        began = LoraModule(component, module, draw(rank, *rest), draw(rows, rank, *ones), scale)
        return without_initialisation(trained, began)
    return trained


def make_all(kind: str, components: Sequence[Component], targets: str, ranks: str, structure: ModelStructure
             ) -> Iterator[AdaptedModule]:  # fmt: skip
    for number, (name, shape) in enumerate(structure.weights.items()):
        if name[0] in components and is_target(name[1], targets):
            mixed = ranks == "mixed"
            yield make(kind, name, shape, 2 + number % 3 if mixed else 3, 1.0 + number % 5 if mixed else 5.0)


@cache
def made(kind: str, where: str, targets: str, ranks: str) -> tuple[AdaptedModule, ...]:
    return tuple(make_all(kind, WHERE[where], targets, ranks, STRUCTURE))


def write(modules: Sequence[AdaptedModule], format_name: str, folder: Path, structure: ModelStructure) -> Path:
    known = FORMATS[format_name]
    path = known.place(folder, "cat")
    known.write(modules, path, precision="fp32", layout=structure.unet.layout, metadata={})
    return path


def assert_same(found: Tensor, wanted: AdaptedModule) -> None:
    expected = wanted.delta()
    assert found.shape == expected.shape
    assert expected.norm() > 0.1, "a change of nothing proves nothing"
    assert (found.double() - expected).norm() <= 1e-6 * expected.norm(), f"{wanted.component}.{wanted.module}"


def largest_or_slow(case: tuple[str, ...]) -> object:
    """The largest targets hold the modules of all others, so the rest of the matrix waits for a slow run."""
    largest = case[2] == "all" and case[3] == TARGETS[-1]
    return pytest.param(*case, marks=() if largest else SLOW)


@pytest.mark.parametrize(
    ("format_name", "kind", "where", "targets", "ranks"), [largest_or_slow(case) for case in CASES]
)
def test_what_is_read_back_is_what_was_trained(
    format_name: str, kind: str, where: str, targets: str, ranks: str, tmp_path: Path
) -> None:
    modules = made(kind, where, targets, ranks)
    path = write(modules, format_name, tmp_path, STRUCTURE)
    with LoraFile(path, STRUCTURE) as file:
        assert set(file.names) == {(module.component, module.module) for module in modules}
        for module in modules:
            found = file.load((module.component, module.module))
            assert_same(found.delta(), module)
            assert found.kind == module.kind
            assert (found.magnitude is None) == (module.magnitude is None)
            if module.magnitude is not None and found.magnitude is not None:
                assert torch.equal(found.magnitude, module.magnitude)


def test_the_matrix_is_whole() -> None:
    assert len(CASES) == 264
    counts = {targets: len(made("LoRA", "all", targets, "mixed")) for targets in TARGETS}
    assert sorted(counts.values()) == list(counts.values()), "each word means more than the one before"
    assert len(set(counts.values())) == 3
    assert len({module.rank for module in made("LoRA", "all", TARGETS[-1], "mixed")}) == 3


@pytest.mark.parametrize("kind", ["LoHa", "LoKr"])
def test_what_diffusers_cannot_hold_is_refused_and_held_as_plain_lora(kind: str, tmp_path: Path) -> None:
    modules = made(kind, "all", TARGETS[-1], "mixed")
    with pytest.raises(AtelierError, match=rf"is a {kind}, which the format diffusers cannot hold.*--as-lora exact"):
        write(modules, "diffusers", tmp_path, STRUCTURE)
    assert not list(tmp_path.rglob("*.safetensors"))
    path = write([exact_lora(module) for module in modules], "diffusers", tmp_path, STRUCTURE)
    with LoraFile(path, STRUCTURE) as file:
        for module in modules:
            assert_same(file.load((module.component, module.module)).delta(), module)


def test_what_peft_cannot_say_is_refused(tmp_path: Path) -> None:
    name: tuple[Component, str] = ("unet", "mid_block.attentions.0.proj_in")
    other: tuple[Component, str] = ("unet", "mid_block.attentions.0.proj_out")
    wide = LokrModule(*name, (48, 48), 1.0, w1=torch.ones(2, 24), w2=torch.ones(24, 2))
    with pytest.raises(AtelierError, match=r"proj_in: the shapes of its Kronecker parts follow from no"):
        write([wide, make("LoKr", other, (48, 48), 2, 1.0)], "peft", tmp_path, STRUCTURE)
    dora = LohaModule(*name, (48, 48), *[torch.ones(48, 2), torch.ones(2, 48)] * 2, 1.0, magnitude=torch.ones(48))
    with pytest.raises(AtelierError, match="peft has no DoRA for a LoHa"):
        write([dora], "peft", tmp_path, STRUCTURE)
    with pytest.raises(AtelierError, match="holds LoRA and LoHa; a configuration of peft is of one"):
        write(
            [make("LoRA", name, (48, 48), 2, 1.0), make("LoHa", other, (48, 48), 2, 1.0)], "peft", tmp_path, STRUCTURE
        )
    columns = LoraModule(*name, torch.ones(2, 48), torch.ones(48, 2), 1.0, torch.ones(48), magnitude_axis=1)
    for format_name in ("peft", "diffusers"):
        with pytest.raises(AtelierError, match="norms of columns"):
            write([columns], format_name, tmp_path, STRUCTURE)
        half = [make("DoRA", name, (48, 48), 2, 1.0), make("LoRA", other, (48, 48), 2, 1.0)]
        with pytest.raises(AtelierError, match="DoRA on some of its modules only"):
            write(half, format_name, tmp_path, STRUCTURE)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def loaded_layers(model: nn.Module) -> dict[str, LoraLayer | LycorisLayer]:
    return {
        name.removeprefix("base_model.model.").removeprefix("text_model."): layer
        for name, layer in model.named_modules()
        if isinstance(layer, (LoraLayer, LycorisLayer))
    }


def assert_reader_agrees(models: dict[Component, nn.Module], modules: Sequence[AdaptedModule]) -> None:
    layers = {component: loaded_layers(model) for component, model in models.items()}
    assert sum(map(len, layers.values())) == len(modules), "the reader attached itself to other modules"
    for module in modules:
        layer = layers[module.component][module.module.removeprefix("text_model.")]
        (adapter,) = layer.active_adapters
        assert_same(layer.get_delta_weight(adapter).detach(), module)


@pytest.mark.parametrize("kind", [pytest.param("LoRA", marks=SLOW), "rsLoRA", pytest.param("PiSSA", marks=SLOW)])
@pytest.mark.parametrize("format_name", ["kohya", "kohya-diffusers", "diffusers"])
def test_diffusers_loads_it(
    format_name: str, kind: str, make_pipeline: MakePipeline, structure_of: StructureOf, tmp_path: Path
) -> None:
    pipeline = make_pipeline()
    structure = structure_of(pipeline)
    modules = list(make_all(kind, COMPONENTS, TARGETS[-1], "mixed", structure))
    path = write(modules, format_name, tmp_path, structure)
    pipeline.load_lora_weights(path.parent, weight_name=path.name)
    assert_reader_agrees({component: getattr(pipeline, component) for component in COMPONENTS}, modules)


# peft 0.21 asks transformers 5.23 for a property under its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("ranks", [pytest.param(RANKS[0], marks=SLOW), RANKS[1]])
@pytest.mark.parametrize("kind", ["PiSSA", "LoHa", "LoKr"])
def test_peft_loads_it(
    kind: str, ranks: str, make_pipeline: MakePipeline, structure_of: StructureOf, tmp_path: Path
) -> None:
    pipeline = make_pipeline()
    structure = structure_of(pipeline)
    modules = list(make_all(kind, COMPONENTS, TARGETS[-1], ranks, structure))
    path = write(modules, "peft", tmp_path, structure)
    models = {
        component: peft.PeftModel.from_pretrained(getattr(pipeline, component), path / component)
        for component in COMPONENTS
    }
    assert_reader_agrees(models, modules)


def lycoris_change(tensors: dict[str, NDArray[np.float64]], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """What LyCORIS makes of a module's tensors (`modules/loha.py`, `lokr.py`), written out."""
    alpha = float(tensors["alpha"])
    if "hada_w1_a" in tensors:
        halves = [tensors[f"hada_w{half}_a"] @ tensors[f"hada_w{half}_b"] for half in "12"]
        return (alpha / len(tensors["hada_w1_b"]) * halves[0] * halves[1]).reshape(shape)
    first = tensors["lokr_w1"]
    if "lokr_w2" in tensors:
        return np.kron(first, tensors["lokr_w2"].reshape(len(tensors["lokr_w2"]), -1)).reshape(shape)
    second = tensors["lokr_w2_a"] @ tensors["lokr_w2_b"]
    return (alpha / len(tensors["lokr_w2_b"]) * np.kron(first, second)).reshape(shape)


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("kind", ["LoHa", "LoKr"])
def test_lycoris_would_compute_it(kind: str, ranks: str, tmp_path: Path) -> None:
    modules = made(kind, "all", TARGETS[-1], ranks)
    tensors = safetensors.numpy.load_file(write(modules, "kohya", tmp_path, STRUCTURE))
    for module in modules:
        stem = kohya_stem(module.component, module.module, STRUCTURE.unet.layout)
        own = {name.removeprefix(f"{stem}."): tensor.astype(np.float64) for name, tensor in tensors.items()
               if name.startswith(f"{stem}.")}  # fmt: skip
        assert_same(torch.from_numpy(lycoris_change(own, module.shape)), module)


@pytest.mark.parametrize("strength", [0.0, -1.5])
@pytest.mark.parametrize("kind", ["LoRA", "DoRA", "LoHa", "LoKr"])
def test_a_strength_of_nothing_or_against_it_is_kept(kind: str, strength: float, tmp_path: Path) -> None:
    """An alpha of 0 means the rank to some readers: it never stands in a file."""
    name: tuple[Component, str] = ("unet", "mid_block.attentions.0.proj_in")
    module = make(kind, name, (48, 48), 2, 1.0)
    module = replace(module, scale=strength)  # type: ignore[type-var]  # all kinds are dataclasses
    path = write([module], "kohya", tmp_path, STRUCTURE)
    tensors = safetensors.numpy.load_file(path)
    assert all(tensor != 0 for part, tensor in tensors.items() if part.endswith(".alpha"))
    with LoraFile(path, STRUCTURE) as file:
        found = file.load(name).delta()
    assert (found - module.delta()).abs().max() <= 1e-6 * found.abs().max()
    assert bool(found.any()) == (strength != 0.0)
