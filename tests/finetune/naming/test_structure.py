"""The structure names every Linear and convolution that the real classes have, with its shape."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from finetune.model.geometry import MINIATURE_FOLDER, SHIPPED_SETTINGS, read_json
from finetune.naming.keys import UNetLayout
from finetune.naming.structure import SDXL_BASE, SDXL_REFINER, TextStructure, UNetStructure

CONFIGS = {
    "base": SHIPPED_SETTINGS / "base",
    "refiner": SHIPPED_SETTINGS / "refiner",
    "miniature base": MINIATURE_FOLDER / "base",
    "miniature refiner": MINIATURE_FOLDER / "refiner",
}


def weights_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    }


def config_of(folder: Path, part: str) -> dict[str, Any]:
    return read_json(folder / part / "config.json")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_unet(name: str) -> None:
    config = config_of(CONFIGS[name], "unet")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    structure = UNetStructure.from_config(unet.config)
    assert dict(structure.weights()) == weights_of(unet)
    assert structure.layout == UNetLayout.from_config(unet.config)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_encoders(name: str) -> None:
    for part, projected in (("text_encoder", False), ("text_encoder_2", True)):
        if not (CONFIGS[name] / part).is_dir():
            continue
        config = config_of(CONFIGS[name], part)
        model_class = CLIPTextModelWithProjection if projected else CLIPTextModel
        with torch.device("meta"):
            model = model_class(CLIPTextConfig.from_dict(config))
        found = {
            path if path == "text_projection" else "text_model." + path.removeprefix("text_model."): shape
            for path, shape in weights_of(model).items()
        }
        assert found, "the walk found no layers"
        assert dict(TextStructure.from_config(config, projected=projected).weights()) == found


def test_the_published_models() -> None:
    for structure, name in ((SDXL_BASE, "base"), (SDXL_REFINER, "refiner")):
        assert UNetStructure.from_config(config_of(CONFIGS[name], "unet")) == structure.unet
        second = config_of(CONFIGS[name], "text_encoder_2")
        assert TextStructure.from_config(second, projected=True) == structure.text_encoder_2
    assert SDXL_BASE.text_encoder == TextStructure.from_config(
        config_of(CONFIGS["base"], "text_encoder"), projected=False
    )
    unet = [shape for (component, _), shape in SDXL_BASE.weights.items() if component == "unet"]
    assert len(unet) == 794
    assert len(SDXL_BASE.weights) == 794 + 72 + 193
