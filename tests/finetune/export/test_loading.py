"""diffusers and peft load what we export, into all three models, and compute what was trained."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import peft
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from finetune.adapters.weights import LoraModule
from finetune.export.registry import export_adapter
from finetune.naming.components import COMPONENTS
from finetune.naming.keys import UNetLayout

MakePipeline = Callable[..., StableDiffusionXLPipeline]
MakeModules = Callable[..., list[LoraModule]]

TRAINED = [
    pytest.param({"targets": "attention", "rank": 4, "alpha": 4.0}, id="attention"),
    pytest.param({"targets": "attention+feedforward", "rank": 4, "alpha": 1.0}, id="feedforward, alpha below rank"),
    pytest.param({"rank": 2, "alpha": 6.0}, id="convolutions, alpha above rank"),
    pytest.param({"rank": 3, "alpha": 2.0, "use_rslora": True}, id="rslora"),
    pytest.param({"components": ("unet",), "targets": ["conv_in", "conv_out", "time_embedding.linear_1", "to_q"]},
                 id="own patterns"),
    pytest.param({"components": ("text_encoder",), "alpha": 3.0}, id="first encoder only"),
    pytest.param({"components": ("unet", "text_encoder_2"), "alpha": 3.0}, id="without the first encoder"),
]  # fmt: skip


@contextlib.contextmanager
def no_warnings_logged() -> Iterator[None]:
    """Fail when a library logs a warning about keys: an adapter that is not loaded only says so there."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers", "peft")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    messages = [record.getMessage() for record in records]
    assert [message for message in messages if "No LoRA keys associated" not in message] == []


def loaded_layer(model: nn.Module, path: str) -> LoraLayer:
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}
    name = path if path in layers else path.removeprefix("text_model.")
    return layers[name]


@pytest.mark.parametrize("format_name", ["kohya", "diffusers"])
def test_diffusers_loads_an_adapter_of_a_miniature(
    format_name: str, make_pipeline: MakePipeline, make_modules: MakeModules, tmp_path: Path
) -> None:
    """One resnet a block: other indices in the original layout."""
    pipeline = make_pipeline(layers_per_block=1)
    modules = make_modules(pipeline, rank=3, alpha=4.0)
    layout = UNetLayout.from_config(pipeline.unet.config)
    written = export_adapter(
        modules, tmp_path, "cat", formats=[format_name], precision="fp32", layout=layout, metadata={}
    )
    with no_warnings_logged():
        pipeline.load_lora_weights(written[format_name][0])
    assert_loaded_deltas_equal(pipeline, modules)


def assert_loaded_deltas_equal(pipeline: StableDiffusionXLPipeline, modules: list[LoraModule]) -> None:
    count = 0
    for component in COMPONENTS:
        model = getattr(pipeline, component)
        count += sum(isinstance(layer, LoraLayer) for layer in model.modules())
    assert count == len(modules), "the reader attached LoRA to other modules than were trained"
    for module in modules:
        layer = loaded_layer(getattr(pipeline, module.component), module.module)
        (adapter,) = layer.active_adapters
        delta = layer.get_delta_weight(adapter)
        trained = module.delta(torch.float32)
        assert trained.abs().max() > 0.01
        difference = (delta - trained).abs().max().item()
        assert difference < 1e-6, f"{module.component}.{module.module}: ΔW differs by {difference}"


@pytest.mark.parametrize("trained", TRAINED)
@pytest.mark.parametrize("format_name", ["kohya", "diffusers"])
def test_diffusers_loads_what_was_trained(
    format_name: str,
    trained: dict[str, object],
    make_pipeline: MakePipeline,
    make_modules: MakeModules,
    layout: UNetLayout,
    tmp_path: Path,
) -> None:
    pipeline = make_pipeline()
    modules = make_modules(pipeline, **trained)
    written = export_adapter(
        modules, tmp_path, "cat", formats=[format_name], precision="fp32", layout=layout, metadata={}
    )
    (path,) = written[format_name]
    with no_warnings_logged():
        pipeline.load_lora_weights(path.parent, weight_name=path.name)
    assert_loaded_deltas_equal(pipeline, modules)


def merged(weight: Tensor, module: LoraModule) -> Tensor:
    """DoRA (Liu et al. 2024, equation 5) by hand, with the norm of each output's row."""
    changed = weight.double() + module.delta()
    assert module.magnitude is not None
    norms = changed.flatten(1).norm(dim=1)
    ratio = (module.magnitude.double() / norms).reshape(-1, *[1] * (changed.dim() - 1))
    return changed * ratio


def layer_output(layer: nn.Module, weight: Tensor, inputs: Tensor) -> Tensor:
    bias = None if layer.bias is None else layer.bias.double()
    if isinstance(layer, nn.Conv2d):
        return nn.functional.conv2d(inputs.double(), weight, bias, layer.stride, layer.padding)
    return nn.functional.linear(inputs.double(), weight, bias)


def assert_outputs_equal(model: nn.Module, modules: list[LoraModule]) -> None:
    generator = torch.Generator().manual_seed(2)
    for module in modules:
        layer = loaded_layer(model, module.module)
        base = layer.get_base_layer()
        shape = (2, base.weight.shape[1], 6, 6) if base.weight.dim() == 4 else (2, base.weight.shape[1])
        inputs = torch.randn(shape, generator=generator)
        expected = layer_output(base, merged(base.weight, module), inputs)
        with torch.no_grad():
            assert torch.allclose(layer(inputs).double(), expected, rtol=1e-4, atol=1e-5), module.module
            assert not torch.allclose(base(inputs).double(), expected, rtol=1e-2, atol=1e-2), "DoRA changed nothing"


def test_diffusers_loads_dora_from_its_own_format(
    make_pipeline: MakePipeline, make_modules: MakeModules, layout: UNetLayout, tmp_path: Path
) -> None:
    pipeline = make_pipeline()
    modules = make_modules(pipeline, use_dora=True, rank=4, alpha=6.0)
    written = export_adapter(
        modules, tmp_path, "cat", formats=["diffusers"], precision="fp32", layout=layout, metadata={}
    )
    with no_warnings_logged():
        pipeline.load_lora_weights(written["diffusers"][0])
    for component in COMPONENTS:
        own = [module for module in modules if module.component == component]
        assert_outputs_equal(getattr(pipeline, component), own)


# peft 0.21 asks transformers 5.23 for a property under its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("use_dora", [False, True])
def test_peft_loads_each_component(
    use_dora: bool, make_pipeline: MakePipeline, make_modules: MakeModules, layout: UNetLayout, tmp_path: Path
) -> None:
    pipeline = make_pipeline()
    modules = make_modules(pipeline, rank=3, alpha=5.0, use_dora=use_dora)
    export_adapter(modules, tmp_path, "cat", formats=["peft"], precision="fp32", layout=layout, metadata={})
    for component in COMPONENTS:
        own = [module for module in modules if module.component == component]
        with no_warnings_logged():
            model = peft.PeftModel.from_pretrained(getattr(pipeline, component), tmp_path / "cat-peft" / component)
        layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
        assert len(layers) == len(own)
        if use_dora:
            assert_outputs_equal(model.base_model.model, own)
            continue
        for module in own:
            delta = loaded_layer(model.base_model.model, module.module).get_delta_weight("default")
            assert (delta - module.delta(torch.float32)).abs().max() < 1e-6


@pytest.mark.parametrize("use_dora", [False, True])
def test_models_load_the_peft_folders_by_themselves(
    use_dora: bool, make_pipeline: MakePipeline, make_modules: MakeModules, layout: UNetLayout, tmp_path: Path
) -> None:
    """`load_adapter` of transformers, which needs no pipeline."""
    pipeline = make_pipeline()
    modules = make_modules(pipeline, rank=3, alpha=5.0, use_dora=use_dora, components=COMPONENTS[1:])
    export_adapter(modules, tmp_path, "cat", formats=["peft"], precision="fp32", layout=layout, metadata={})
    for component in COMPONENTS[1:]:
        own = [module for module in modules if module.component == component]
        model = getattr(pipeline, component)
        with no_warnings_logged():
            model.load_adapter(str(tmp_path / "cat-peft" / component))
        if use_dora:
            assert_outputs_equal(model, own)
            continue
        for module in own:
            delta = loaded_layer(model, module.module).get_delta_weight("default")
            assert (delta - module.delta(torch.float32)).abs().max() < 1e-6
