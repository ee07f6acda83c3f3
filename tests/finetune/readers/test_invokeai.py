"""InvokeAI's rules: what its own code (the wheel of 6.14.2, run by hand on such files) made of each."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from finetune.naming.structure import SDXL_BASE
from finetune.readers.adapter_file import AdapterFile
from finetune.readers.names import ModelNames, Module, underscored
from finetune.readers.proof import prove_file
from finetune.readers.reading import Reading

MakeFile = Callable[..., AdapterFile]
NAMES = ModelNames(SDXL_BASE)
FEW = [module for module in NAMES.shapes if module[1].endswith(("attn1.to_q", "attn2.to_k", "proj_in"))]
MIDDLE = "lora_unet_middle_block_1_proj_"


def ending(*ends: str, component: str = "unet") -> list[Module]:
    return [module for module in NAMES.shapes if module[0] == component and module[1].endswith(ends)]


def read(file: AdapterFile) -> Reading:
    # Files hold their tensors in the order of names.
    return prove_file(replace(file, shapes=dict(sorted(file.shapes.items())))).readings["invokeai"]


def test_what_it_takes(make_file: MakeFile) -> None:
    assert len(read(make_file(FEW)).scales) == 151
    assert len(read(make_file(ending("attn1.to_q"))).scales) == 70
    new = make_file(list(NAMES.shapes), lambda module: f"lora_{PREFIX[module[0]]}_{underscored(module[1])}")
    assert len(read(new).scales) == 1059


PREFIX = {"unet": "unet", "text_encoder": "te1", "text_encoder_2": "te2"}


@pytest.mark.parametrize("component", ["text_encoder", "text_encoder_2", "both"])
def test_encoders_alone_tell_it_nothing(component: str, make_file: MakeFile) -> None:
    modules = [
        module
        for module in NAMES.shapes
        if module[0] != "unet" and "self_attn" in module[1] and component in (module[0], "both")
    ]
    reading = read(make_file(modules))
    assert (reading.state, reading.version.state) == ("limited", "limit")
    assert not reading.scales


def test_two_blocks_deep_are_not_deep_enough(make_file: MakeFile) -> None:
    """Without cross-attention it knows SDXL by a third transformer block, which the two outer stages lack."""
    shallow = [module for module in ending("attn1.to_q") if module[1].startswith("down_blocks.1.")]
    assert not read(make_file(shallow)).scales
    assert read(make_file([*shallow, *ending("mid_block.attentions.0.transformer_blocks.2.attn1.to_q")])).scales


@pytest.mark.parametrize(
    ("change", "is_refused"),
    [
        (lambda key: key.replace(f"{MIDDLE}in.lora_up", f"{MIDDLE}in.lora_upp"), True),
        (lambda key: key.replace(f"{MIDDLE}in.lora_down", f"{MIDDLE}in.lora_downn"), True),
        (lambda key: key.replace(f"{MIDDLE}in", "lora_unet_input_blocks_3_1_nothing"), True),
        (lambda key: key.replace(".lora_down", ".lora_A").replace(".lora_up", ".lora_B"), True),
        (lambda key: key.replace(f"{MIDDLE}in", f"lora_te1_{underscored('encoder.layers.0.mlp.fc9')}"), False),
    ],
)
def test_what_ends_its_loading(change: Callable[[str], str], is_refused: bool, make_file: MakeFile) -> None:
    file = make_file(FEW)
    reading = read(replace(file, shapes={change(key): shape for key, shape in file.shapes.items()}))
    assert (not reading.scales) == is_refused
    assert reading.state == ("refused" if is_refused else "partial")
