"""The names that programs write, taken down from their files: each means the module that it means there."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from finetune.adapters.weights import LoraModule
from finetune.dialects.lora_file import LoraFile
from finetune.dialects.spelling import NAMINGS, spellings
from finetune.errors import AtelierError
from finetune.naming.structure import SDXL_BASE, SDXL_REFINER, ModelStructure

ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
OUT = "up_blocks.0.attentions.2.transformer_blocks.9.attn1.to_out.0"
FEEDFORWARD = "mid_block.attentions.0.transformer_blocks.3.ff.net.0.proj"
LAYER = "text_model.encoder.layers.7.self_attn.q_proj"

KOHYA = ("lora_down.weight", "lora_up.weight")
PEFT = ("lora_A.weight", "lora_B.weight")
DEFAULT = ("lora_A.default.weight", "lora_B.default.weight")
OLD = ("lora.down.weight", "lora.up.weight")
LINEAR_LAYER = ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight")
PROCESSOR = ("down.weight", "up.weight")

# The name before the part, both parts, the naming, the component and the module's path.
NAMES = [
    ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", KOHYA, "kohya", "unet", ATTENTION),
    ("lora_unet_output_blocks_2_1_transformer_blocks_9_attn1_to_out_0", KOHYA, "kohya", "unet", OUT),
    ("lora_unet_middle_block_1_transformer_blocks_3_ff_net_0_proj", KOHYA, "kohya", "unet", FEEDFORWARD),
    ("lora_unet_input_blocks_4_0_skip_connection", KOHYA, "kohya", "unet", "down_blocks.1.resnets.0.conv_shortcut"),
    ("lora_unet_label_emb_0_2", KOHYA, "kohya", "unet", "add_embedding.linear_2"),
    ("lora_te1_text_model_encoder_layers_7_self_attn_q_proj", KOHYA, "kohya", "text_encoder", LAYER),
    ("lora_te1_encoder_layers_7_self_attn_q_proj", KOHYA, "kohya", "text_encoder", LAYER),
    ("lora_te2_text_model_encoder_layers_7_self_attn_q_proj", KOHYA, "kohya", "text_encoder_2", LAYER),
    ("lora_te2_text_projection", KOHYA, "kohya", "text_encoder_2", "text_projection"),
    ("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k", KOHYA, "kohya-diffusers", "unet",
     ATTENTION),
    ("lora_unet_down_blocks_1_resnets_0_time_emb_proj", KOHYA, "kohya-diffusers", "unet",
     "down_blocks.1.resnets.0.time_emb_proj"),
    ("lycoris_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k", KOHYA, "lycoris", "unet", ATTENTION),
    ("lycoris_input_blocks_4_1_transformer_blocks_0_attn2_to_k", KOHYA, "lycoris", "unet", ATTENTION),
    ("diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k", KOHYA, "comfyui", "unet", ATTENTION),
    ("diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k", PEFT, "comfyui", "unet", ATTENTION),
    ("model.diffusion_model.middle_block.1.transformer_blocks.3.ff.net.0.proj", KOHYA, "comfyui", "unet", FEEDFORWARD),
    ("text_encoders.clip_l.transformer." + LAYER, KOHYA, "comfyui", "text_encoder", LAYER),
    ("text_encoders.clip_g.transformer.text_projection", KOHYA, "comfyui", "text_encoder_2", "text_projection"),
    ("unet.input_blocks.4.1.transformer_blocks.0.attn2.to_k", KOHYA, "omi", "unet", ATTENTION),
    ("clip_l." + LAYER, KOHYA, "omi", "text_encoder", LAYER),
    ("clip_g." + LAYER, KOHYA, "omi", "text_encoder_2", LAYER),
    ("lora_unet." + ATTENTION, KOHYA, "omi", "unet", ATTENTION),
    ("lora_te2." + LAYER, KOHYA, "omi", "text_encoder_2", LAYER),
    ("unet." + ATTENTION, PEFT, "diffusers", "unet", ATTENTION),
    ("unet." + ATTENTION, OLD, "diffusers", "unet", ATTENTION),
    ("unet.down_blocks.1.downsamplers.0.conv", OLD, "diffusers", "unet", "down_blocks.1.downsamplers.0.conv"),
    ("text_encoder." + LAYER, PEFT, "diffusers", "text_encoder", LAYER),
    ("text_encoder.encoder.layers.7.self_attn.q_proj", PEFT, "diffusers", "text_encoder", LAYER),
    ("text_encoder_2." + LAYER, LINEAR_LAYER, "diffusers", "text_encoder_2", LAYER),
    ("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora", PROCESSOR,
     "diffusers-processors", "unet", ATTENTION),
    ("up_blocks.0.attentions.2.transformer_blocks.9.attn1.processor.to_out_lora", PROCESSOR,
     "diffusers-processors", "unet", OUT),
    ("unet.up_blocks.0.attentions.2.transformer_blocks.9.attn1.to_out_lora", PROCESSOR, "diffusers-processors", "unet",
     OUT),
    ("text_encoder.text_model.encoder.layers.7.self_attn.to_q_lora", PROCESSOR, "diffusers-processors", "text_encoder",
     LAYER),
    (ATTENTION, PEFT, "peft", "unet", ATTENTION),
    ("base_model.model." + ATTENTION, PEFT, "peft", "unet", ATTENTION),
    ("base_model.model." + ATTENTION, DEFAULT, "peft", "unet", ATTENTION),
    ("base_model.model.text_model.encoder.layers.7.self_attn.q_proj", PEFT, "peft", "text_encoder_2", LAYER),
    ("base_model.model.encoder.layers.7.self_attn.q_proj", PEFT, "peft", "text_encoder", LAYER),
]  # fmt: skip


def write(path: Path, stem: str, parts: tuple[str, str], component: str, module: str) -> None:
    shape = next(shape for name, shape in SDXL_BASE.weights.items() if name == (component, module))
    down, up = torch.ones(2, *shape[1:]), torch.ones(shape[0], 2, *[1] * (len(shape) - 2))
    save_file({f"{stem}.{parts[0]}": down, f"{stem}.{parts[1]}": up}, path)


@pytest.mark.parametrize(("stem", "parts", "naming", "component", "module"), NAMES)
def test_a_name_of_another_program(
    stem: str, parts: tuple[str, str], naming: str, component: str, module: str, tmp_path: Path
) -> None:
    path = tmp_path / "cat.safetensors"
    write(path, stem, parts, component, module)
    with LoraFile(path) as file:
        assert file.names == ((component, module),)
        assert file.dialects == {naming: 1}
        assert file.keys(file.names[0]) == {"down": f"{stem}.{parts[0]}", "up": f"{stem}.{parts[1]}"}
        loaded = file.load(file.names[0])
        assert isinstance(loaded, LoraModule)
        assert (loaded.rank, loaded.scale) == (2, 1.0)


def test_every_naming_has_an_example() -> None:
    assert {naming for _, _, naming, _, _ in NAMES} == set(NAMINGS)


def test_a_file_in_two_dialects_is_read(tmp_path: Path) -> None:
    tensors = {}
    for stem, parts in (("lora_unet_middle_block_1_proj_in", KOHYA), ("unet.mid_block.attentions.0.proj_out", PEFT)):
        tensors |= {f"{stem}.{parts[0]}": torch.ones(2, 1280), f"{stem}.{parts[1]}": torch.ones(1280, 2)}
    path = tmp_path / "cat.safetensors"
    save_file(tensors, path)
    with LoraFile(path) as file:
        assert file.dialects == {"kohya": 1, "diffusers": 1}
        assert len(list(file.modules())) == 2


def test_encoders_are_named_alike_in_both_layouts_of_kohya(tmp_path: Path) -> None:
    tensors = {}
    stems = ("lora_unet_mid_block_attentions_0_proj_in", "lora_te2_text_model_encoder_layers_7_self_attn_q_proj")
    for stem in stems:
        tensors |= {f"{stem}.lora_down.weight": torch.ones(2, 1280), f"{stem}.lora_up.weight": torch.ones(1280, 2)}
    path = tmp_path / "cat.safetensors"
    save_file(tensors, path)
    with LoraFile(path) as file:
        assert file.dialect == "kohya, diffusers' layout"


@pytest.mark.parametrize("structure", [SDXL_BASE, SDXL_REFINER], ids=["base", "refiner"])
def test_every_module_has_words_and_no_word_two_meanings(structure: ModelStructure) -> None:
    index = spellings(structure)
    meant = {module for known in index.values() for module in known.modules}
    assert meant == set(structure.weights)
    unclear = {word: known for word, known in index.items() if len(known.modules) > 1}
    assert all(known.naming == "peft" for known in unclear.values())
    assert all({component for component, _ in known.modules} == {"text_encoder", "text_encoder_2"}
               for known in unclear.values())  # fmt: skip
    # A refiner has one encoder, so there nothing is left open.
    assert bool(unclear) == (structure is SDXL_BASE)


def test_a_wrong_guess_tells_the_nearest_name(tmp_path: Path) -> None:
    path = tmp_path / "cat.safetensors"
    save_file(
        {"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_kk.lora_A.weight": torch.ones(2, 2)}, path
    )
    with pytest.raises(AtelierError, match=r"the nearest is 'unet\.down_blocks\.1.*attn2\.to_k'"):
        LoraFile(path)
