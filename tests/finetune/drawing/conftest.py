"""A run folder with two saved steps of a LoRA that changes pictures, made without training."""

from pathlib import Path

import pytest

RECIPE = """\
schema_version: 1
name: cat
model: {kind: miniature}
refiner: {kind: miniature}
data: {sources: [{kind: folder, path: "sample:shapes"}]}
adapter: {unet: {rank: 2, targets: attention}, text_encoder: {rank: 2}}
training: {steps: 20, precision: fp32, device: cpu}
preview: {num_inference_steps: 3, guidance_scale: 3.0}
"""


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run's folder with checkpoints of the steps 10 and 20, and an exported file of the last."""
    import torch
    from torch import nn

    from finetune.adapters.dropout import DropoutKey
    from finetune.adapters.lora import LoraSettings, inject_lora, lora_parameters
    from finetune.adapters.trained import trained_modules
    from finetune.export.registry import export_adapter
    from finetune.model.miniature import Miniature
    from finetune.naming.keys import UNetLayout
    from finetune.recipe import load_recipe
    from finetune.recipe.schema import LoraAdapter
    from finetune.run.folder import RunFolder
    from finetune.training.checkpoint import load_checkpoint, save_checkpoint

    folder = RunFolder.create(tmp_path_factory.mktemp("runs") / "cat")
    folder.recipe.write_text(RECIPE, encoding="utf-8")
    files = Miniature()
    models: dict[str, nn.Module] = {"unet": files.load_unet(torch.float32)}
    encoder = files.load_text_encoder(torch.float32)
    assert encoder is not None
    models["text_encoder"] = encoder
    parameters = {}
    generator = torch.Generator().manual_seed(3)
    for component, model in models.items():
        targets = "attention"
        inject_lora(model, component, LoraSettings(2, 2.0, targets), 0, DropoutKey())  # type: ignore[arg-type]
        parameters |= {f"{component}.{name}": value for name, value in lora_parameters(model).items()}
    for step in (10, 20):
        with torch.no_grad():
            for value in parameters.values():
                value.add_(torch.randn(value.shape, generator=generator) * 0.08)
        optimizer = torch.optim.SGD([{"params": list(parameters.values()), "name": "all"}], lr=1.0)
        save_checkpoint(folder.checkpoint(step), step, parameters, optimizer, {})
    recipe = load_recipe(str(folder.recipe))
    assert isinstance(recipe.adapter, LoraAdapter)
    export_adapter(
        trained_modules(load_checkpoint(folder.checkpoint(20)).exported, recipe.adapter),
        folder.exports,
        "cat",
        formats=("kohya",),
        precision="fp32",
        layout=UNetLayout.from_config(files.geometry().unet_config),
        metadata={},
        expected=None,
    )
    return folder.path
