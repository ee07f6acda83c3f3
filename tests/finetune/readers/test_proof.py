"""The proof of a file: our own exports pass every reader, and one changed key fails just those that stumble over it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.adapters.weights import LoraModule
from finetune.errors import AtelierError, RecipeError
from finetune.export.registry import export_adapter
from finetune.naming.keys import SDXL_BASE_LAYOUT
from finetune.naming.structure import SDXL_BASE
from finetune.readers.adapter_file import AdapterFile
from finetune.readers.names import ModelNames, Module, underscored
from finetune.readers.proof import READERS, Proof, prove, prove_file, require_whole

NAMES = ModelNames(SDXL_BASE)
SIX = ("comfyui", "a1111", "forge", "invokeai", "kohya", "diffusers")
METADATA = {"ss_base_model_version": "sdxl_base_v1-0", "ss_network_module": "networks.lora"}
Q = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"


def rank_one(targets: str, *, with_magnitude: bool = False) -> list[LoraModule]:
    """Modules of the real shape: 560, 722 or 788 of the U-Net, 72 and 192 of the encoders."""
    modules = []
    for (component, path), shape in NAMES.shapes.items():
        is_attention = "transformer_blocks" in path and "attn" in path
        is_linear = is_attention or "transformer_blocks" in path or "attentions.0.proj" in path
        is_linear = is_linear or (".proj_" in path and "attentions" in path)
        is_inside = "blocks" in path or "block." in path
        wanted = {"560": is_attention, "722": is_linear, "788": is_inside}[targets]
        if not wanted if component == "unet" else path == "text_projection":
            continue
        down = torch.full((1, *shape[1:]), 0.5, dtype=torch.float16)
        up = torch.full((shape[0], 1, *[1] * (len(shape) - 2)), 0.5, dtype=torch.float16)
        magnitude = torch.ones(shape[0]) if with_magnitude else None
        modules.append(LoraModule(component, path, down, up, scale=0.5, magnitude=magnitude))
    return modules


def export(modules: list[LoraModule], folder: Path, kind: str, metadata: dict[str, str] = METADATA) -> Path:
    files = export_adapter(
        modules, folder, "lora", formats=[kind], precision="fp16", layout=SDXL_BASE_LAYOUT, metadata=metadata
    )
    return files[kind][0]


@pytest.mark.parametrize("targets", ["560", "722", "788"])
def test_our_kohya_file_of_the_real_shape_is_whole_in_every_reader(targets: str, tmp_path: Path) -> None:
    path = export(rank_one(targets), tmp_path, "kohya")
    proof = prove(path)
    assert proof.dialect == "kohya"
    assert proof.meant_for == SIX
    for name in SIX:
        reading = proof.readings[name]
        assert reading.is_whole, (name, reading.left[:3], reading.refusal)
        counts = {component: (count.taken, count.total) for component, count in reading.counts.items()}
        assert counts == {
            "unet": (int(targets), int(targets)), "text_encoder": (72, 72), "text_encoder_2": (192, 192),
        }  # fmt: skip
        assert reading.scale.state == reading.version.state == "right"
    require_whole(proof)
    require_whole(proof, SIX)


def test_our_diffusers_and_peft_files_are_whole_where_they_are_meant_for(tmp_path: Path) -> None:
    modules = rank_one("722")
    path = export(modules, tmp_path, "diffusers")
    proof = prove(path)
    assert (proof.dialect, proof.meant_for) == ("diffusers", ("diffusers",))
    require_whole(proof, ["diffusers"])
    # ComfyUI takes what has no `to_` in its name: 22 projections and 140 layers of feed-forward parts.
    assert proof.readings["comfyui"].counts["unet"].taken == 162
    assert proof.readings["a1111"].counts["unet"].taken == 0
    folder = export(modules, tmp_path, "peft", {}).parents[1]
    proof = prove(folder)
    assert (proof.dialect, proof.meant_for) == ("peft", ("peft",))
    require_whole(proof, ["peft"])
    assert [count.taken for count in proof.readings["peft"].counts.values()] == [722, 72, 192]
    single = prove(folder / "text_encoder")
    assert single.readings["peft"].is_whole
    assert list(single.readings["peft"].counts) == ["text_encoder"]


def test_dora_is_told_as_a_limit_and_is_an_error_only_where_a_reader_is_required(tmp_path: Path) -> None:
    modules = rank_one("560", with_magnitude=True)
    path = export(modules, tmp_path, "kohya")
    proof = prove(path)
    require_whole(proof)
    for name in SIX:
        reading = proof.readings[name]
        assert reading.state == "limited", name
        assert reading.dora.state == "limit"
        assert [limit.name for limit in reading.limits] == ["DoRA"]
        with pytest.raises(AtelierError, match="DoRA"):
            require_whole(proof, [name])
    path = export(modules, tmp_path, "diffusers")
    reading = prove(path).readings["diffusers"]
    assert reading.is_whole
    assert reading.dora.state == "right"


MakeFile = Callable[..., AdapterFile]


def failing(proof: Proof) -> set[str]:
    return {name for name in SIX if proof.readings[name].state in ("partial", "refused")}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        # A stem that is no module's: every reader leaves or refuses it.
        (lambda key: key.replace(Q, Q.replace("_4_1_", "_3_1_")), set(SIX)),
        # diffusers' name of the same module beside the original's: kohya knows it not, InvokeAI and diffusers mix none.
        (
            lambda key: key.replace(
                Q, "lora_unet_" + underscored("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q")
            ),
            {"kohya", "invokeai", "diffusers"},
        ),
        # A dotted name.
        (
            lambda key: key.replace(
                Q, "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q"
            ),
            {"a1111", "kohya", "invokeai", "diffusers"},
        ),
    ],
)  # fmt: skip
def test_one_changed_name_fails_just_the_readers_that_stumble(
    make_file: MakeFile, change: Callable[[str], str], expected: set[str]
) -> None:
    file = make_file()
    assert failing(prove_file(file)) == set()
    shapes = {change(key): shape for key, shape in file.shapes.items()}
    numbers = {change(key): number for key, number in file.numbers.items()}
    assert shapes.keys() != file.shapes.keys()
    proof = prove_file(replace(file, shapes=shapes, numbers=numbers))
    assert failing(proof) == expected
    with pytest.raises(AtelierError, match="is not read whole"):
        require_whole(proof)


def test_a_lost_half_names_its_module(make_file: MakeFile) -> None:
    file = make_file()
    shapes = {key: shape for key, shape in file.shapes.items() if key != f"{Q}.lora_up.weight"}
    proof = prove_file(replace(file, shapes=shapes))
    assert failing(proof) == set(SIX)
    with pytest.raises(AtelierError, match=Q):
        require_whole(proof, ["diffusers"])


def test_a_shape_that_does_not_fit_the_model_is_taken_by_none(make_file: MakeFile) -> None:
    file = make_file()
    proof = prove_file(replace(file, shapes=dict(file.shapes) | {f"{Q}.lora_down.weight": (1, 320)}))
    assert failing(proof) == set(SIX)
    (left, *_) = proof.readings["comfyui"].left
    assert "640 x 320" in left.reason
    assert "640 x 640" in left.reason


def test_attention_of_encoder_2_is_joint_in_a1111(make_file: MakeFile) -> None:
    modules = [module for module in NAMES.shapes if module[1].endswith((".q_proj", ".v_proj"))]
    proof = prove_file(make_file(modules))
    reading = proof.readings["a1111"]
    assert [(count.taken, count.total) for count in reading.counts.values()] == [(24, 24), (0, 64)]
    assert reading.state == "limited"
    assert proof.readings["comfyui"].is_whole


def test_mixed_alphas_are_read_wrong_by_diffusers_in_attentions_only(make_file: MakeFile) -> None:
    attention = ("unet", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
    projection = ("unet", "mid_block.attentions.0.proj_in")
    file = make_file()
    for module, state in ((attention, "limit"), (projection, "right")):
        key = stem(module) + ".alpha"
        changed = replace(file, numbers=dict(file.numbers) | {key: 0.25})
        proof = prove_file(changed)
        assert proof.readings["diffusers"].scale.state == state, module
        assert proof.readings["comfyui"].scale.state == "right"


def stem(module: Module) -> str:
    names = {path: original for original, path in NAMES.original.items()}
    return "lora_unet_" + underscored(names[module[1]])


@pytest.mark.parametrize(
    ("metadata", "wrong"),
    [
        ({}, set()),
        ({"ss_base_model_version": "sdxl_base_v1-0", "ss_v2": "False"}, set()),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, {"a1111"}),
        ({"ss_tag_frequency": "{}"}, {"a1111"}),
        ({"ss_v2": "True"}, {"a1111", "forge"}),
        ({"modelspec.architecture": "stable-diffusion-v1/lora"}, {"a1111", "forge"}),
        ({"ss_base_model_version": "sdxl_base_v1-0", "modelspec.architecture": "flux-1-dev/lora"}, {"forge"}),
    ],
)
def test_the_version_by_strings(metadata: dict[str, str], wrong: set[str], make_file: MakeFile) -> None:
    proof = prove_file(make_file(metadata=metadata))
    assert {name for name in SIX if proof.readings[name].version.state == "wrong"} == wrong
    assert failing(proof) == wrong


def test_a_proof_as_text_and_as_data(make_file: MakeFile) -> None:
    proof = prove_file(make_file())
    lines = proof.as_lines()
    assert len(lines) == 7
    assert lines[1].split() == ["ComfyUI", "722/722", "72/72", "192/192", "right", "-", "right", "whole"]
    data: dict[str, Any] = json.loads(json.dumps(proof.as_data()))
    assert data["is_whole"] is True
    assert [reader["reader"] for reader in data["readers"]] == list(READERS)
    assert data["readers"][0]["modules"]["unet"] == {"taken": 722, "total": 722}


def test_an_unknown_reader_is_refused_by_name(make_file: MakeFile) -> None:
    with pytest.raises(RecipeError, match=r"unknown reader 'automatic'.*comfyui"):
        require_whole(prove_file(make_file()), ["automatic"])
