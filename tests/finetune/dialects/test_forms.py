"""What files of each kind change, against the formulas of LyCORIS written out in numpy, and against peft itself."""

from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from finetune.adapters.plain import exact_lora
from finetune.adapters.weights import AdaptedModule
from finetune.dialects.lora_file import LoraFile
from finetune.naming.structure import ModelStructure, TextStructure, UNetStructure

# Small and unlike each other: outputs, inputs and ranks cannot be taken for one another.
STRUCTURE = ModelStructure(
    UNetStructure((16, 24, 48), (1, 1, 1), (False, True, True), (True, True, False), (1, 1, 1), 1, 40, 56),
    TextStructure(12, 20, 2),
    TextStructure(28, 36, 2, 28),
)
LINEAR = "mid_block.attentions.0.transformer_blocks.0.ff.net.2"  # (48, 192)
CONVOLUTION = "down_blocks.1.resnets.0.conv1"  # (24, 16, 3, 3)
POINTWISE = "down_blocks.1.resnets.0.conv_shortcut"  # (24, 16, 1, 1)
STEMS = {
    LINEAR: "lora_unet_middle_block_1_transformer_blocks_0_ff_net_2",
    CONVOLUTION: "lora_unet_input_blocks_3_0_in_layers_2",
    POINTWISE: "lora_unet_input_blocks_3_0_skip_connection",
}
Array = NDArray[np.float64]


def kronecker(first: Array, second: Array) -> Array:
    """Block (i, j) of outputs and inputs is first[i, j] · second, whose kernel stands behind."""
    rows, columns = first.shape
    blocks = [np.concatenate([first[i, j] * second for j in range(columns)], axis=1) for i in range(rows)]
    return np.concatenate(blocks, axis=0)


def tucker(core: Array, a: Array, b: Array) -> Array:
    result: Array = np.einsum("ijkl,ip,jr->prkl", core, a, b)
    return result


def random(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(sum(map(len, shapes)))
    return {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


def lora(t: dict[str, Array]) -> Array:
    up, down = t["lora_up.weight"], t["lora_down.weight"]
    if "lora_mid.weight" in t:
        return tucker(t["lora_mid.weight"], up[:, :, 0, 0].T, down[:, :, 0, 0])
    return np.tensordot(up.reshape(up.shape[:2]), down, 1)


def loha(t: dict[str, Array]) -> Array:
    if "hada_t1" in t:
        return tucker(t["hada_t1"], t["hada_w1_a"], t["hada_w1_b"]) * tucker(
            t["hada_t2"], t["hada_w2_a"], t["hada_w2_b"]
        )
    return (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])


def lokr(t: dict[str, Array]) -> Array:
    first = t["lokr_w1"] if "lokr_w1" in t else t["lokr_w1_a"] @ t["lokr_w1_b"]
    if "lokr_t2" in t:
        return kronecker(first, tucker(t["lokr_t2"], t["lokr_w2_a"], t["lokr_w2_b"]))
    return kronecker(first, t["lokr_w2"] if "lokr_w2" in t else t["lokr_w2_a"] @ t["lokr_w2_b"])


# kind and what is special, module, parts, the formula, and the rank that alpha is divided by (None: it is not).
FORMS = {
    "LoRA": (LINEAR, {"lora_down.weight": (3, 192), "lora_up.weight": (48, 3)}, lora, 3),
    "LoRA on a convolution": (
        CONVOLUTION, {"lora_down.weight": (5, 16, 3, 3), "lora_up.weight": (24, 5, 1, 1)}, lora, 5),
    "LoCon with a core": (
        CONVOLUTION,
        {"lora_down.weight": (5, 16, 1, 1), "lora_up.weight": (24, 5, 1, 1), "lora_mid.weight": (5, 5, 3, 3)}, lora, 5),
    "LoHa": (
        LINEAR, {"hada_w1_a": (48, 3), "hada_w1_b": (3, 192), "hada_w2_a": (48, 3), "hada_w2_b": (3, 192)}, loha, 3),
    "LoHa on a convolution": (
        CONVOLUTION,
        {"hada_w1_a": (24, 5), "hada_w1_b": (5, 144), "hada_w2_a": (24, 5), "hada_w2_b": (5, 144)}, loha, 5),
    "LoHa with cores": (
        CONVOLUTION,
        {"hada_t1": (4, 4, 3, 3), "hada_w1_a": (4, 24), "hada_w1_b": (4, 16),
         "hada_t2": (4, 4, 3, 3), "hada_w2_a": (4, 24), "hada_w2_b": (4, 16)}, loha, 4),
    "LoKr of two whole parts": (LINEAR, {"lokr_w1": (6, 12), "lokr_w2": (8, 16)}, lokr, None),
    "LoKr, the second factored": (
        LINEAR, {"lokr_w1": (6, 12), "lokr_w2_a": (8, 3), "lokr_w2_b": (3, 16)}, lokr, 3),
    "LoKr, both factored": (
        LINEAR,
        {"lokr_w1_a": (6, 2), "lokr_w1_b": (2, 12), "lokr_w2_a": (8, 2), "lokr_w2_b": (2, 16)}, lokr, 2),
    "LoKr, the first factored": (LINEAR, {"lokr_w1_a": (6, 2), "lokr_w1_b": (2, 12), "lokr_w2": (8, 16)}, lokr, 2),
    "LoKr taller than wide": (LINEAR, {"lokr_w1": (12, 6), "lokr_w2_a": (4, 3), "lokr_w2_b": (3, 32)}, lokr, 3),
    "LoKr on a convolution": (CONVOLUTION, {"lokr_w1": (4, 2), "lokr_w2": (6, 8, 3, 3)}, lokr, None),
    "LoKr, factored, on a convolution": (
        CONVOLUTION, {"lokr_w1": (4, 2), "lokr_w2_a": (6, 3), "lokr_w2_b": (3, 72)}, lokr, 3),
    "LoKr with a core": (
        CONVOLUTION, {"lokr_w1": (4, 2), "lokr_t2": (3, 3, 3, 3), "lokr_w2_a": (3, 6), "lokr_w2_b": (3, 8)}, lokr, 3),
    "LoHa on one pixel": (
        POINTWISE, {"hada_w1_a": (24, 3), "hada_w1_b": (3, 16), "hada_w2_a": (24, 3), "hada_w2_b": (3, 16)}, loha, 3),
    "a whole change": (CONVOLUTION, {"diff": (24, 16, 3, 3)}, lambda t: t["diff"], None),
}  # fmt: skip


def read_one(path: Path) -> AdaptedModule:
    with LoraFile(path, STRUCTURE) as file:
        (name,) = file.names
        return file.load(name)


@pytest.mark.parametrize("name", FORMS)
def test_the_change_is_the_formulas(name: str, tmp_path: Path) -> None:
    module, shapes, formula, rank = FORMS[name]
    tensors = random(**shapes)
    stem, path = STEMS[module], tmp_path / "cat.safetensors"
    alpha = {} if name == "a whole change" else {"alpha": torch.tensor(2.5)}
    save_file({f"{stem}.{part}": tensor for part, tensor in (tensors | alpha).items()}, path)
    read = read_one(path)
    scale = 1.0 if rank is None else 2.5 / rank
    expected = scale * formula({part: tensor.double().numpy() for part, tensor in tensors.items()})
    expected = expected.reshape(STRUCTURE.weights["unet", module])
    delta = read.delta().numpy()
    assert read.shape == delta.shape == expected.shape
    # Of a core between the factors one product is taken in float32 while the file is read.
    assert np.linalg.norm(delta - expected) < (1e-6 if "lora_mid.weight" in shapes else 1e-13) * np.linalg.norm(
        expected
    )
    plain = exact_lora(read)
    assert plain.rank <= min(expected.shape[0], expected[0].size)
    assert np.linalg.norm(plain.delta().numpy() - expected) < 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("config", "module"),
    [
        (peft.LoHaConfig(r=3, alpha=5, init_weights=False), LINEAR),
        (peft.LoHaConfig(r=3, alpha=5, init_weights=False), CONVOLUTION),
        (peft.LoHaConfig(r=3, alpha=5, init_weights=False, use_effective_conv2d=True), CONVOLUTION),
        (peft.LoHaConfig(r=3, alpha=5, init_weights=False), POINTWISE),
        (peft.LoKrConfig(r=2, alpha=5, init_weights=False), LINEAR),
        (peft.LoKrConfig(r=2, alpha=5, init_weights=False, decompose_both=True), LINEAR),
        (peft.LoKrConfig(r=2, alpha=5, init_weights=False, decompose_factor=4), LINEAR),
        (peft.LoKrConfig(r=64, alpha=5, init_weights=False), LINEAR),  # both parts whole: alpha / r all the same
        (peft.LoKrConfig(r=2, alpha=5, init_weights=False), CONVOLUTION),
        (peft.LoKrConfig(r=2, alpha=5, init_weights=False, use_effective_conv2d=True), CONVOLUTION),
        (peft.LoraConfig(r=3, lora_alpha=5, init_lora_weights=False), CONVOLUTION),
        (peft.LoraConfig(r=3, lora_alpha=5, init_lora_weights=False, use_rslora=True), LINEAR),
        (peft.LoraConfig(r=3, lora_alpha=5, init_lora_weights=False, alpha_pattern={"ff.net.2": 7}), LINEAR),
    ],
)
def test_what_peft_saves_is_what_peft_computes(config: peft.PeftConfig, module: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = STRUCTURE.weights["unet", module]
    layer: nn.Module = nn.Linear(shape[1], shape[0]) if len(shape) == 2 else nn.Conv2d(shape[1], shape[0], shape[2:])
    root = nn.Module()
    place = root
    *front, last = module.split(".")
    for word in front:
        place.add_module(word, nn.Module())
        place = place.get_submodule(word)
    place.add_module(last, layer)
    config.target_modules = {module}
    model = peft.get_peft_model(root, config)
    model.save_pretrained(tmp_path / "unet")
    expected = model.base_model.model.get_submodule(module).get_delta_weight("default").detach().double()
    delta = read_one(tmp_path / "unet").delta()
    assert (delta - expected).norm() < 1e-6 * expected.norm()
    assert expected.norm() > 0


@pytest.mark.parametrize("module", [LINEAR, CONVOLUTION])
@pytest.mark.parametrize("axis", [0, 1])
def test_which_norms_a_magnitude_holds_is_told_by_its_shape(axis: int, module: str, tmp_path: Path) -> None:
    """LyCORIS: (out, 1, …) with `wd_on_output`, else (1, in, …)."""
    shape = STRUCTURE.weights["unet", module]
    ones = [1] * (len(shape) - 2)
    tensors = random(**{
        "lora_down.weight": (2, *shape[1:]),
        "lora_up.weight": (shape[0], 2, *ones),
        "dora_scale": (shape[0], 1, *ones) if axis == 0 else (1, shape[1], *ones),
    })  # fmt: skip
    path = tmp_path / "cat.safetensors"
    save_file({f"{STEMS[module]}.{part}": tensor for part, tensor in tensors.items()}, path)
    read = read_one(path)
    assert read.magnitude_axis == axis
    assert read.magnitude is not None
    assert torch.equal(read.magnitude, tensors["dora_scale"].flatten())
