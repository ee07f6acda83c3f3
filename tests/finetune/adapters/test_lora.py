"""One matrix of properties over every adapter that is trained here, on the U-Net and on the encoders."""

import copy
import math
import re

import numpy as np
import pytest
import torch

from finetune.adapters.dropout import DropoutKey
from finetune.adapters.lora import (
    ADAPTER_NAME,
    LoraSettings,
    apply_lora,
    inject_lora,
    lora_disabled,
    lora_layers,
    lora_parameters,
    lora_scaled,
    loras_scaled,
    remove_loras,
)
from finetune.adapters.products import split_size
from finetune.adapters.trained import trained_modules
from finetune.adapters.weights import LoraModule
from finetune.errors import RecipeError
from finetune.recipe import Recipe
from finetune.training.groups import TrainedGroup

_ALL = "attention+feedforward+convolutions"
_METHODS = {
    "lora": {},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "pissa": {"init": "pissa"},
    "olora": {"init": "olora"},
    "loha": {"kind": "loha"},
    "lokr": {"kind": "lokr"},
    "lokr of factor 4": {"kind": "lokr", "factor": 4},
}
_PRODUCTS = ("loha", "lokr", "lokr of factor 4")
_CASES = [
    pytest.param(component, targets, method, id=f"{component}-{method}")
    for component, targets in (("unet", _ALL), ("text_encoder", "attention+feedforward"), ("text_encoder_2", ["fc1"]))
    for method in _METHODS
]
each_case = pytest.mark.parametrize(("component", "targets", "method"), _CASES)


def _inject(model, component, targets, method, seed=0, **more):
    settings = LoraSettings(rank=4, alpha=2.0, targets=targets, **_METHODS[method], **more)
    inject_lora(model, component, settings, seed, DropoutKey(seed))
    return model


def _adapter(targets, method, component):
    """Return the recipe's adapter section that `_inject` stands for."""
    word = list(targets) if isinstance(targets, list) else targets
    section = {"unet": None, component: {"rank": 4, "alpha": 2.0, "targets": word}}
    content = {
        "schema_version": 1,
        "model": {"kind": "miniature"},
        "data": {"sources": [{"kind": "folder", "path": "/nowhere"}]},
        "adapter": {**section, **_METHODS[method]},
    }
    return Recipe.model_validate(content).adapter


def _named(model, component):
    group = TrainedGroup(component, model, 1.0)
    return group.parameters() | group.initial()


def _applied_change(layer):
    """Return what a layer adds to its base's weight: as peft says where it is peft's own, else measured.

    Each channel of the input alone is one, at a single place: what comes out is the column of the weight it meets.
    """
    if type(layer.lora_B[ADAPTER_NAME]) in (torch.nn.Linear, torch.nn.Conv2d):
        return layer.get_delta_weight(ADAPTER_NAME)
    base = layer.get_base_layer()
    inputs, kernel = base.weight.shape[1], base.weight.shape[2:]
    with torch.no_grad():
        if not kernel:
            return (
                layer.scaling[ADAPTER_NAME]
                * layer.lora_B[ADAPTER_NAME](layer.lora_A[ADAPTER_NAME](torch.eye(inputs))).T
            )
        # The kernel's corner lies on the point at output 0 when the point is moved to it, one place after the other.
        columns = torch.zeros(*base.weight.shape)
        for row in range(kernel[0]):
            for column in range(kernel[1]):
                points = torch.zeros(inputs, inputs, 8, 8)
                place = (2 * base.stride[0] - base.padding[0] + row, 2 * base.stride[1] - base.padding[1] + column)
                points[range(inputs), range(inputs), place[0], place[1]] = 1.0
                seen = layer.lora_B[ADAPTER_NAME](layer.lora_A[ADAPTER_NAME](points))[:, :, 2, 2]
                columns[:, :, row, column] = layer.scaling[ADAPTER_NAME] * seen.T
    return columns


def _scale(method):
    return 2.0 / math.sqrt(4) if method == "rslora" else 2.0 / 4


@each_case
def test_starts_as_the_identity(load, run, component, targets, method):
    model = load(component)
    with torch.no_grad():
        plain = run(model, component)
        adapted = run(_inject(model, component, targets, method), component)
    if method in ("dora", "pissa", "olora"):  # they divide by a norm and multiply by it, or take away what they add
        torch.testing.assert_close(adapted, plain, rtol=0, atol=1e-5)
    else:
        assert torch.equal(adapted, plain)


def test_adapters_are_switched_back_to_what_they_were(load):
    unet = _inject(load("unet"), "unet", _ALL, "lora")
    layers = [layer for _, layer in lora_layers(unet)]
    with lora_disabled([unet]):
        with lora_disabled([unet]):
            assert all(layer.disable_adapters for layer in layers)
        assert all(layer.disable_adapters for layer in layers), "the block around is not over yet"
    assert not any(layer.disable_adapters for layer in layers)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_dora_starts_as_the_identity_on_a_base_of_lower_precision(load, run, dtype):
    """Norms in the base's precision would move the output by about 1 % (bf16) or 0.1 % (fp16)."""
    unet = _inject(load("unet", dtype), "unet", _ALL, "dora")
    with torch.no_grad(), torch.autocast("cpu", dtype):
        adapted = run(unet).double()
        with lora_disabled([unet]):
            plain = run(unet).double()
    assert float((adapted - plain).norm() / plain.norm()) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
def test_magnitudes_start_as_the_norms_of_the_weights(load, dtype):
    unet = _inject(load("unet", dtype), "unet", _ALL, "dora")
    kinds = set()
    for _, layer in lora_layers(unet):
        magnitude = layer.lora_magnitude_vector[ADAPTER_NAME].weight.detach()
        norm = layer.base_layer.weight.detach().double().flatten(1).norm(dim=1)
        torch.testing.assert_close(magnitude.flatten().double(), norm, rtol=1e-6, atol=0)
        convolution = layer.base_layer.weight.dim() == 4
        assert magnitude.shape == ((1, len(norm), 1, 1) if convolution else (len(norm),))  # peft's shapes
        kinds.add(convolution)
    assert kinds == {True, False}


@pytest.mark.parametrize(
    "path", ["mid_block.attentions.0.transformer_blocks.0.attn1.to_q", "mid_block.resnets.0.conv1"]
)
def test_dora_in_bf16_divides_by_a_float32_norm(load, path):
    """A small change must not be lost in the sum with a bf16 weight."""
    unet = _inject(load("unet", torch.bfloat16), "unet", [path], "dora")
    layer = unet.get_submodule(path)
    dora, weight = layer.lora_magnitude_vector[ADAPTER_NAME], layer.base_layer.weight.detach()
    change = weight * 2.0**-12  # below bf16's last digit
    norm = dora.get_weight_norm(weight, change, 0.5)
    expected = (weight.double() * (1 + 2.0**-13)).flatten(1).norm(dim=1)
    torch.testing.assert_close(norm.flatten().double(), expected, rtol=1e-6, atol=0)


@each_case
def test_only_its_own_parameters_take_gradients(load, run, component, targets, method):
    model = _inject(load(component), component, targets, method)
    parameters = lora_parameters(model)
    layers = dict(lora_layers(model))
    factors = {"dora": {3}, "loha": {4}}.get(method, {2, 3} if method in _PRODUCTS else {2})
    of_layer = {path: sum(name.startswith(path + ".") for name in parameters) for path in layers}
    assert set(of_layer.values()) <= factors
    assert sum(of_layer.values()) == len(parameters) > 0
    assert all(".lora_" in name for name in parameters)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(parameters.values(), lr=1.0)
    for _ in range(2):  # the first factor moves once the second is no longer zero
        run(model, component).pow(3).mean().backward()  # the mean square after a layer norm has no gradient
        optimizer.step()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == set(parameters)


@each_case
def test_off_is_the_base_bit_for_bit_also_after_training(load, run, moved, component, targets, method):
    model = load(component)
    with torch.no_grad():
        plain = run(model, component)
        _inject(model, component, targets, method)
        moved(model)
        assert not torch.allclose(run(model, component), plain, atol=1e-3)
        with lora_disabled([model]):
            assert torch.equal(run(model, component), plain)
        assert not torch.allclose(run(model, component), plain, atol=1e-3)
    assert all(parameter.requires_grad for parameter in lora_parameters(model).values())


@each_case
def test_parameters_are_float32_on_a_bf16_base(load, run, component, targets, method):
    model = _inject(load(component, torch.bfloat16), component, targets, method)
    assert {parameter.dtype for parameter in lora_parameters(model).values()} == {torch.float32}
    others = {p.dtype for p in model.parameters() if not p.requires_grad}
    assert others == {torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        run(model, component).float().square().mean().backward()
    ends = {"loha": (".w2_a",), "lokr": (".w2", ".w2_b"), "lokr of factor 4": (".w2", ".w2_b")}.get(
        method, (".weight",)
    )
    second = [
        parameter.grad
        for name, parameter in lora_parameters(model).items()
        if name.endswith(ends) and (method in _PRODUCTS or ".lora_B." in name)
    ]
    assert {gradient.dtype for gradient in second} == {torch.float32}
    assert all(gradient.abs().max() > 0 for gradient in second)


@each_case
def test_learned_change_is_what_peft_applies(load, moved, component, targets, method):
    """Per module: the neutral form's delta against peft's, with rank != alpha."""
    model = _inject(load(component), component, targets, method)
    moved(model)
    modules = trained_modules(_named(model, component), _adapter(targets, method, component))
    layers = dict(lora_layers(model))
    assert len(modules) == len(layers)
    for module in modules:
        assert module.component == component
        path = module.module if component == "unet" else module.module.removeprefix("text_model.")
        layer = layers.get(path) or layers["text_model." + path]
        expected = _applied_change(layer)
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(module.delta(torch.float32), expected, rtol=1e-5, atol=2e-6)
        if module.rank is not None:
            assert module.scale == pytest.approx(_scale(method))
            assert module.rank == (8 if method in ("pissa", "olora") else 4)
        assert (module.magnitude is not None) == (method == "dora")
        if component != "unet":
            assert module.module.startswith("text_model.encoder.layers.")


@each_case
def test_applied_to_a_fresh_model_it_gives_the_same_output(load, run, moved, component, targets, method):
    model = _inject(load(component), component, targets, method)
    moved(model)
    modules = trained_modules(_named(model, component), _adapter(targets, method, component))
    fresh = load(component)
    with torch.no_grad():
        plain = run(fresh, component)
        apply_lora(fresh, component, modules)
        applied = run(fresh, component)
        # Equal weights in other places of memory: kernels that look at alignment round otherwise.
        torch.testing.assert_close(applied, run(model, component), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(applied, plain, atol=1e-3)
        with lora_disabled([fresh]):
            assert torch.equal(run(fresh, component), plain)
    assert not any(parameter.requires_grad for parameter in fresh.parameters())


def test_one_module_by_hand(load):
    """y = W x + b + scale * up (down x), and DoRA's magnitude / norm around W and the product (2402.09353, eq. 5)."""
    for method in ("lora", "dora", "rslora"):
        unet = load()
        path = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
        weight = unet.get_submodule(path).weight.detach().double()
        _inject(unet, "unet", [path], method)
        layer = unet.get_submodule(path)
        generator = torch.Generator().manual_seed(0)
        up = torch.randn(128, 4, generator=generator) * 0.1
        layer.lora_B[ADAPTER_NAME].weight.data = up
        hidden = torch.randn(3, 128, generator=generator)
        change = _scale(method) * up.double() @ layer.lora_A[ADAPTER_NAME].weight.detach().double()
        expected = weight + change
        if method == "dora":
            magnitude = weight.norm(dim=1) * 1.25
            layer.lora_magnitude_vector[ADAPTER_NAME].weight.data = magnitude.float()
            expected = expected * (magnitude / expected.norm(dim=1))[:, None]
        with torch.no_grad():
            torch.testing.assert_close(layer(hidden).double(), hidden.double() @ expected.T, rtol=0, atol=1e-5)


def test_strength_multiplies_the_change(load, run, moved):
    unet = load()
    path = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    _inject(unet, "unet", [path], "lora")
    moved(unet)
    layer, hidden = unet.get_submodule(path), torch.randn(2, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        base, full = layer.base_layer(hidden), layer(hidden)
        for strength in (0.0, 0.5, -2.0):
            with lora_scaled([unet], strength):
                torch.testing.assert_close(layer(hidden), base + strength * (full - base))
        assert torch.equal(layer(hidden), full)


@pytest.mark.parametrize("component", ["unet", "text_encoder"])
def test_doras_strength_goes_from_the_base_to_what_was_learned(load, run, moved, component):
    model = load(component)
    with torch.no_grad():
        plain = run(model, component)
        _inject(model, component, _ALL if component == "unet" else "attention+feedforward", "dora")
        moved(model)
        learned, before = run(model, component), copy.deepcopy(model.state_dict())
        assert not torch.allclose(learned, plain, atol=1e-2)
        with lora_scaled([model], 0.0):
            torch.testing.assert_close(run(model, component), plain, rtol=0, atol=1e-5)
        with lora_scaled([model], 1.0):
            assert torch.equal(run(model, component), learned)
        with pytest.raises(KeyError), lora_scaled([model], 0.3):
            raise KeyError("restored after an error too")
        assert torch.equal(run(model, component), learned)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("strength", [0.5, 1.5])
def test_doras_strength_by_hand(load, strength):
    """(n + s (m - n)) (W + s BA) / norm(W + s BA) with n = norm(W), for a Linear and a convolution."""
    unet = load()
    paths = ["mid_block.attentions.0.transformer_blocks.0.attn1.to_q", "mid_block.resnets.0.conv1"]
    _inject(unet, "unet", paths, "dora")
    generator = torch.Generator().manual_seed(0)
    for path in paths:
        layer = unet.get_submodule(path)
        up, magnitude = layer.lora_B[ADAPTER_NAME].weight, layer.lora_magnitude_vector[ADAPTER_NAME].weight
        up.data = torch.randn(up.shape, generator=generator) * 0.1
        magnitude.data *= 1.25
        weight = layer.base_layer.weight.detach().double()
        tail = [1] * (weight.dim() - 1)
        norm = weight.flatten(1).norm(dim=1)
        merged = weight + strength * layer.get_delta_weight(ADAPTER_NAME).detach().double()
        merged *= ((norm + strength * 0.25 * norm) / merged.flatten(1).norm(dim=1)).reshape(-1, *tail)
        hidden = torch.randn(2, weight.shape[1], *(4 * side for side in tail[1:]), generator=generator)
        expected = copy.deepcopy(layer.base_layer).double()
        expected.weight.data = merged
        with torch.no_grad(), lora_scaled([unet], strength):
            torch.testing.assert_close(layer(hidden).double(), expected(hidden.double()), rtol=0, atol=1e-5)


def test_the_first_factor_is_keyed_by_seed_component_and_module(load):
    first, again, other = (
        lora_parameters(_inject(load(), "unet", "attention", "lora", seed=seed)) for seed in (0, 0, 1)
    )
    torch.manual_seed(1234)
    fewer = lora_parameters(_inject(load(), "unet", ["attn2.to_q"], "lora", seed=0))
    downs = [name for name in first if ".lora_A." in name]
    for name in downs:
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])
    assert all(torch.equal(parameter, first[name]) for name, parameter in fewer.items())  # whatever else is adapted
    same_shape = [first[name] for name in downs if first[name].shape == (4, 128)]
    assert len(same_shape) > 5
    assert torch.stack(same_shape).unique(dim=0).shape[0] == len(same_shape)
    # Kaiming uniform with a = sqrt(5): within 1 / sqrt(fan in)
    assert float(same_shape[0].detach().abs().max()) == pytest.approx(1 / math.sqrt(128), rel=0.05)


def test_ranks_may_differ_from_module_to_module(load, run):
    """Files from elsewhere have them, and paths of which one begins with another must not be mixed up."""
    unet = load()
    generator = torch.Generator().manual_seed(0)
    modules = []
    ranks = {"attn1.to_q": 2, "attn1.to_k": 5, "attn2.to_k": 5, "ff.net.0.proj": 3, "ff.net.2": 7}
    first, second = "mid_block.attentions.0.transformer_blocks.1", "up_blocks.0.attentions.0.transformer_blocks.0"
    paths = {f"{first}.{end}": rank for end, rank in ranks.items()}
    paths |= {f"{second}.{end}": rank + 1 for end, rank in ranks.items()}  # some shared, some not
    for path, rank in paths.items():
        out, width = unet.get_submodule(path).weight.shape
        down, up = torch.randn(rank, width, generator=generator), torch.randn(out, rank, generator=generator)
        modules.append(LoraModule("unet", path, down, up, scale=0.25))
    apply_lora(unet, "unet", modules)
    layers = dict(lora_layers(unet))
    assert sorted(layers) == sorted(module.module for module in modules)
    for module in modules:
        layer = layers[module.module]
        assert layer.r[ADAPTER_NAME] == layer.lora_A[ADAPTER_NAME].out_features == module.rank
        torch.testing.assert_close(
            layer.get_delta_weight(ADAPTER_NAME), module.delta(torch.float32), rtol=1e-5, atol=1e-6
        )


def test_a_module_the_model_does_not_have_is_refused(load):
    module = LoraModule("unet", "mid_block.nothing.to_q", torch.zeros(1, 4), torch.zeros(4, 1), 1.0)
    with pytest.raises(ValueError, match=r"1 modules are not in the unet, the first: mid_block\.nothing\.to_q"):
        apply_lora(load(), "unet", [module])


@pytest.mark.parametrize(
    ("end", "down", "up", "message"),
    [
        ("attentions.0.transformer_blocks.0.attn1.to_q", (2, 640), (128, 2), r"\(128, 640\), .* \(128, 128\)"),
        ("attentions.0.transformer_blocks.0.attn1.to_q", (2, 128), (64, 2), r"\(64, 128\), .* \(128, 128\)"),
        ("attentions.0.transformer_blocks.0.attn1.to_q", (2, 128, 1, 1), (128, 2, 1, 1), r"1, 1\), .* \(128, 128\)"),
        ("resnets.0.conv1", (2, 128, 1, 1), (128, 2, 1, 1), r"\(128, 128, 1, 1\), .* \(128, 128, 3, 3\)"),
        ("resnets.0.conv1", (2, 128), (128, 2), r"\(128, 128\), .* \(128, 128, 3, 3\)"),
        ("resnets.0.norm1", (1, 1), (128, 1), "is a GroupNorm; LoRA goes into a Linear or a convolution"),
    ],
)
def test_factors_of_another_shape_are_refused_before_anything_changes(load, end, down, up, message):
    unet = load()
    fits = LoraModule("unet", "mid_block.resnets.1.conv2", torch.ones(1, 128, 3, 3), torch.ones(128, 1, 1, 1), 1.0)
    other = LoraModule("unet", f"mid_block.{end}", torch.ones(down), torch.ones(up), 1.0)
    names = [name for name, _ in unet.named_modules()]
    with pytest.raises(ValueError, match=rf"^unet\.mid_block\.{re.escape(end)}.*{message}"):
        apply_lora(unet, "unet", [fits, other])
    assert [name for name, _ in unet.named_modules()] == names
    apply_lora(unet, "unet", [fits])


def test_a_magnitude_of_another_length_is_refused(load):
    path = "text_model.encoder.layers.0.self_attn.q_proj"
    module = LoraModule("text_encoder", path, torch.ones(1, 64), torch.ones(64, 1), 1.0, magnitude=torch.ones(65))
    with pytest.raises(ValueError, match=r"q_proj: the magnitude has 65 numbers for 64 outputs"):
        apply_lora(load("text_encoder"), "text_encoder", [module])


def test_two_models_do_not_share_an_adapter(load, run, moved):
    first = _inject(load(), "unet", "attention", "lora")
    second = copy.deepcopy(first)
    with torch.no_grad():
        before = run(second)
        moved(first)
        assert torch.equal(run(second), before)


def _drawn_modules(model, component, paths, seed, rank=3, dora=False):
    """Return an adapter of random factors on some of a model's modules."""
    generator = torch.Generator().manual_seed(seed)
    modules = []
    for path in paths:
        weight = model.get_submodule(path).weight
        down = torch.randn(rank, *weight.shape[1:], generator=generator) * 0.2
        up = torch.randn(weight.shape[0], rank, *([1] * (weight.dim() - 2)), generator=generator) * 0.2
        magnitude = weight.detach().flatten(1).norm(dim=1) * 1.2 if dora else None
        prefix = "" if component == "unet" or path.startswith("text_model.") else "text_model."
        modules.append(LoraModule(component, prefix + path, down, up, 0.25 * seed, magnitude))
    return modules


_QUERY, _KEY, _CONVOLUTION = (
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_k",
    "mid_block.resnets.0.conv1",
)


def test_several_adapters_change_the_weights_by_their_sum(load, run):
    """Against a model whose weights have every strength * scale * up @ down added, in float64."""
    unet, merged = load("unet", torch.float64), load("unet", torch.float64)
    adapters = {
        "one": _drawn_modules(unet, "unet", [_QUERY, _KEY, _CONVOLUTION], seed=1),
        "two": _drawn_modules(unet, "unet", [_QUERY, _CONVOLUTION], seed=2, rank=5),
        "three": _drawn_modules(unet, "unet", [_KEY], seed=3, rank=1),
    }
    strengths = {"one": 0.7, "two": -1.3, "three": 0.0}
    with torch.no_grad():
        for name, modules in adapters.items():
            apply_lora(unet, "unet", modules, name)
            for module in modules:
                merged.get_submodule(module.module).weight += strengths[name] * module.delta(torch.float64)
        for path, layer in lora_layers(unet):  # the sum is meant, not what float32 leaves of it
            assert path in {_QUERY, _KEY, _CONVOLUTION}
            layer.double()
        hidden = torch.randn(3, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
        with loras_scaled([unet], strengths):
            for path in (_QUERY, _KEY):
                torch.testing.assert_close(
                    unet.get_submodule(path)(hidden), merged.get_submodule(path)(hidden), rtol=1e-11, atol=1e-11
                )
            width = merged.get_submodule(_CONVOLUTION).weight.shape[1]
            pixels = torch.randn(1, width, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
            torch.testing.assert_close(
                unet.get_submodule(_CONVOLUTION)(pixels),
                merged.get_submodule(_CONVOLUTION)(pixels),
                rtol=1e-11,
                atol=1e-11,
            )


def test_adapters_of_strength_zero_are_the_base_bit_for_bit_and_removed_ones_too(load, run):
    unet = load()
    with torch.no_grad():
        plain = run(unet)
        apply_lora(unet, "unet", _drawn_modules(unet, "unet", [_QUERY, _KEY], seed=1), "one")
        with loras_scaled([unet], {"one": 1.0}):
            alone = run(unet)
        apply_lora(unet, "unet", _drawn_modules(load(), "unet", [_KEY], seed=2, dora=True), "two")
        with loras_scaled([unet], {"one": 0.0, "two": 0.0}):
            assert torch.equal(run(unet), plain)
        with loras_scaled([unet], {"one": 1.0, "two": 0.0}):
            assert torch.equal(run(unet), alone), "the other is as if it were not there"
        both = run(unet)
        assert not torch.allclose(both, alone, atol=1e-4)
        with lora_disabled([unet]):
            assert torch.equal(run(unet), plain)
        remove_loras(unet)
        assert not list(lora_layers(unet))
        assert torch.equal(run(unet), plain)


@pytest.mark.parametrize("dora_first", [True, False])
def test_a_dora_beside_a_lora_changes_what_each_alone_would(load, dora_first):
    """W' = m (W + s BA) / norm(W + s BA) + the other's change, whichever was attached first; two DoRA are refused."""
    unet = load()
    adapters = {
        "dora": _drawn_modules(unet, "unet", [_QUERY], seed=1, dora=True),
        "plain": _drawn_modules(unet, "unet", [_QUERY], seed=2),
    }
    weight = unet.get_submodule(_QUERY).weight.detach().double()
    for name in ("dora", "plain") if dora_first else ("plain", "dora"):
        apply_lora(unet, "unet", adapters[name], name)
    one, other = adapters["dora"][0], adapters["plain"][0]
    expected = weight + one.delta()
    expected *= (one.magnitude.double() / expected.norm(dim=1))[:, None]
    expected += other.delta()
    hidden = torch.randn(3, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        given = unet.get_submodule(_QUERY)(hidden).double()
    torch.testing.assert_close(given, hidden.double() @ expected.T, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="two adapters with DoRA"):
        apply_lora(unet, "unet", _drawn_modules(load(), "unet", [_KEY], seed=3, dora=True), "another")


@pytest.mark.parametrize("kind", ["pissa", "olora"])
@pytest.mark.parametrize(
    "path", ["mid_block.attentions.0.transformer_blocks.0.attn2.to_k", "mid_block.resnets.0.conv1"]
)
def test_what_an_adapter_begins_as_is_a_part_of_the_base(load, kind, path):
    """PiSSA: the largest singular values (numpy, float64). OLoRA: the first columns of a QR decomposition."""
    unet = load()
    weight = unet.get_submodule(path).weight.detach().double().flatten(1).numpy()
    _inject(unet, "unet", [path], kind)
    layer = unet.get_submodule(path)
    down = layer.lora_A[ADAPTER_NAME].initial.double().flatten(1).numpy()
    up = layer.lora_B[ADAPTER_NAME].initial.double().flatten(1).numpy()
    part = layer.scaling[ADAPTER_NAME] * up @ down
    if kind == "pissa":
        left, values, right = np.linalg.svd(weight, full_matrices=False)
        expected = left[:, :4] * values[:4] @ right[:4]
    else:
        orthogonal, upper = np.linalg.qr(weight)
        expected = orthogonal[:, :4] @ upper[:4]
    assert np.linalg.norm(part - expected) < 1e-5 * np.linalg.norm(expected)
    assert np.linalg.norm(up) > 0.1
    assert torch.equal(layer.lora_A[ADAPTER_NAME].weight, layer.lora_A[ADAPTER_NAME].initial)


def test_a_rank_that_no_weight_has_is_refused_where_an_adapter_begins_as_a_part(load):
    settings = LoraSettings(rank=500, alpha=1.0, targets="attention", init="pissa")
    with pytest.raises(RecipeError, match=r"adapter\.unet\.rank: .*rank 500 is more than .* Give a smaller rank"):
        inject_lora(load(), "unet", settings, 0, DropoutKey(0))


@pytest.mark.parametrize(
    ("size", "factor", "expected"),
    [(1280, None, (32, 40)), (1280, 8, (8, 160)), (1280, 200, (32, 40)), (1280, 7, (5, 256)), (7, None, (1, 7)),
     (1, 4, (1, 1))],
)  # fmt: skip
def test_sizes_are_split(size, factor, expected):
    assert split_size(size, factor) == expected


def test_a_module_outside_the_text_model_is_found(load, run):
    """The second encoder's projection, which files of LyCORIS may change, has no `text_model.` before it."""
    encoder = load("text_encoder_2")
    out, inputs = encoder.text_projection.weight.shape
    module = LoraModule("text_encoder_2", "text_projection", torch.ones(1, inputs), torch.ones(out, 1), 0.1)
    with torch.no_grad():
        plain = run(encoder, "text_encoder_2")
        apply_lora(encoder, "text_encoder_2", [module])
        changed = run(encoder, "text_encoder_2")
        remove_loras(encoder)
        assert not torch.allclose(changed, plain)
        assert torch.equal(run(encoder, "text_encoder_2"), plain)
