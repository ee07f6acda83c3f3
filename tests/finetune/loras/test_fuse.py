"""A fused model computes what its base with the LoRA beside it computes, and is else the base to the byte."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor, nn

from finetune.adapters.lora import apply_lora, lora_scaled, remove_loras
from finetune.adapters.weights import AdaptedModule, LoraModule
from finetune.errors import AtelierError, RecipeError
from finetune.loras.fuse import check_fused_output, fuse, fused_weight
from finetune.model.geometry import MINIATURE_FOLDER
from finetune.model.weight_files import open_weights
from finetune.naming.structure import ModelStructure

MakeModule = Callable[..., LoraModule]
WriteLora = Callable[..., Path]

BASE = MINIATURE_FOLDER / "base"
LAYER = "text_model.encoder.layers.1"
CHANGED = [
    ("unet", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"),
    ("unet", "down_blocks.0.resnets.0.conv2"),
    ("unet", "up_blocks.0.upsamplers.0.conv"),
    ("text_encoder", f"{LAYER}.mlp.fc1"),
    ("text_encoder_2", f"{LAYER}.self_attn.q_proj"),
    ("text_encoder_2", f"{LAYER}.self_attn.v_proj"),
    ("text_encoder_2", "text_projection"),
]


@pytest.fixture(scope="module")
def wide_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature in float32, so that a fused weight can be held against a computed one."""
    folder = tmp_path_factory.mktemp("wide") / "base"
    shutil.copytree(BASE, folder)
    for path in folder.glob("*/*.safetensors"):
        tensors = {name: value.float() for name, value in safetensors.torch.load_file(path).items()}
        safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    return folder


def predict(unet: UNet2DConditionModel) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    config = unet.config
    pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
    with torch.no_grad():
        sample: Tensor = unet(
            torch.randn(1, 4, 16, 16, generator=generator),
            500,
            torch.randn(1, 7, config["cross_attention_dim"], generator=generator),
            added_cond_kwargs={
                "text_embeds": torch.randn(1, pooled, generator=generator),
                "time_ids": torch.full((1, 6), 64.0),
            },
        ).sample
    return sample


def outputs(model: nn.Module, component: str) -> Tensor:
    if component == "unet":
        assert isinstance(model, UNet2DConditionModel)
        return predict(model)
    with torch.no_grad():
        states = model(torch.arange(77)[None], output_hidden_states=True)
    return torch.cat([states.hidden_states[-2].flatten(), states[0].flatten()])


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_diffusers_draws_with_it_what_base_and_lora_draw(
    use_dora: bool,
    strength: float,
    wide_base: Path,
    tmp_path: Path,
    make_module: MakeModule,
    write_lora: WriteLora,
) -> None:
    inside = CHANGED[:-1]  # the live adapter knows no projection of the pooled text
    modules = [make_module(*name, alpha=8.0, seed=seed, use_dora=use_dora) for seed, name in enumerate(inside)]
    lora = write_lora("cat", modules)
    with open_weights(wide_base) as base:
        report = fuse(base, [lora], [strength], tmp_path / "fused")
    assert report.modules == {"unet": 3, "text_encoder": 1, "text_encoder_2": 2}
    assert report.rounding < 1e-6 * report.change
    load: Any = StableDiffusionXLPipeline.from_pretrained
    live, fused = (
        load(folder, local_files_only=True, add_watermarker=False) for folder in (wide_base, tmp_path / "fused")
    )
    for component in ("unet", "text_encoder", "text_encoder_2"):
        model = getattr(live, component)
        before = outputs(model, component)
        own = [module for module in modules if module.component == component]
        apply_lora(model, component, own)  # type: ignore[arg-type]
        with lora_scaled([model], strength):
            expected = outputs(model, component)
        remove_loras(model)
        found = outputs(getattr(fused, component), component)
        assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()
        assert (before - expected).abs().max() > 1e-3 * expected.abs().max(), "the LoRA did nothing"


def test_all_else_in_the_folder_is_the_base_to_the_byte(
    tmp_path: Path, make_module: MakeModule, write_lora: WriteLora
) -> None:
    base_folder = tmp_path / "base"
    shutil.copytree(BASE, base_folder)
    (base_folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"the weights from before")
    (base_folder / "whole_model.safetensors").write_bytes(b"and here")
    (base_folder / "README.md").write_text("a card")
    target = tmp_path / "fused"
    with open_weights(base_folder) as base:
        report = fuse(base, [write_lora("cat", [make_module(*CHANGED[0])])], [1.0], target)
    changed = target / "unet" / "diffusion_pytorch_model.safetensors"
    assert report.left_behind == ["unet/diffusion_pytorch_model.bin", "whole_model.safetensors"]
    files = {path.relative_to(target).as_posix(): path for path in target.rglob("*") if path.is_file()}
    expected = {path.relative_to(BASE).as_posix() for path in BASE.rglob("*") if path.is_file()} | {"README.md"}
    assert files.keys() == expected
    for name, path in files.items():
        assert (path.read_bytes() == (base_folder / name).read_bytes()) == (path != changed), name
    before, after = (
        safetensors.torch.load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
        for folder in (base_folder, target)
    )
    differing = [name for name in before if not torch.equal(before[name], after[name])]
    assert differing == [f"{CHANGED[0][1]}.weight"]
    with safetensors.safe_open(changed, "pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"
    assert json.loads(metadata["atelier_made_by"]) == {
        "verb": "fuse",
        "base": "base",
        "of": [{"name": "cat", "weight": 1.0}],
    }


def test_a_checkpoint(
    checkpoint: Path, tmp_path: Path, structure: ModelStructure, make_module: MakeModule, write_lora: WriteLora
) -> None:
    first = [make_module(*name, alpha=8.0, seed=seed) for seed, name in enumerate(CHANGED)]
    second = [make_module(*CHANGED[0], seed=77)]
    target = tmp_path / "fused.safetensors"
    with open_weights(checkpoint, config=BASE) as base:
        fuse(base, [write_lora("cat", first), write_lora("dog", second)], [1.0, -0.5], target)
    before, after = safetensors.torch.load_file(checkpoint), safetensors.torch.load_file(target)
    assert list(before) == list(after)
    touched = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(touched) == len(CHANGED) - 1, "q and v of one layer lie in one tensor"
    with open_weights(checkpoint, config=BASE) as base, open_weights(target, config=BASE) as fused:
        for module in first:
            expected = base.get(module.component, module.module).double() + module.delta()
            if (module.component, module.module) == CHANGED[0]:
                expected -= 0.5 * second[0].delta()
            found = fused.get(module.component, module.module)
            assert torch.equal(found, expected.float().half().float()) or torch.allclose(
                found.double(), expected, rtol=1.01 * 2**-11, atol=1e-7
            )
        own = base.get("text_encoder_2", f"{LAYER}.self_attn.k_proj")
        assert torch.equal(own, fused.get("text_encoder_2", f"{LAYER}.self_attn.k_proj")), "between q and v"
    with safetensors.safe_open(target, "pt") as file:
        assert file.metadata().keys() == {"modelspec.title", "atelier_made_by"}


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3, 3)])
def test_doras_norms_by_their_axis(axis: int, shape: tuple[int, ...]) -> None:
    """Against the formula written out, row by row or column by column."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator)
    down = torch.randn(2, *shape[1:], generator=generator)
    up = torch.randn(6, 2, *[1] * (len(shape) - 2), generator=generator)
    magnitude = torch.rand(shape[axis], generator=generator)
    module = LoraModule("unet", "conv_in", down, up, 0.5, magnitude, axis)
    summed = weight.double() + module.delta()
    expected = torch.empty_like(summed)
    for index in range(shape[axis]):
        part = summed.select(axis, index)
        expected.select(axis, index).copy_(part / part.norm() * magnitude[index].double())
    found = fused_weight(weight, [(1.0, module)])
    assert torch.allclose(found.double(), expected, rtol=0, atol=1e-6)
    assert torch.allclose(fused_weight(weight, [(0.0, module)]), weight, rtol=0, atol=1e-6)


def test_a_plain_lora_beside_one_with_dora_adds_its_own_change(make_module: MakeModule) -> None:
    weight = torch.randn(128, 128, generator=torch.Generator().manual_seed(0))
    path = "mid_block.attentions.0.proj_in"
    plain, dora = make_module("unet", path, seed=1), make_module("unet", path, seed=2, use_dora=True)
    alone = fused_weight(weight, [(1.0, dora)])
    orders: list[Sequence[tuple[float, AdaptedModule]]] = [[(0.5, plain), (1.0, dora)], [(1.0, dora), (0.5, plain)]]
    for parts in orders:
        assert torch.allclose(fused_weight(weight, parts), alone + 0.5 * plain.delta(torch.float32), atol=1e-5)
    with pytest.raises(AtelierError, match="two of the files have DoRA"):
        fused_weight(weight, [(1.0, dora), (1.0, dora)])


def test_what_does_not_fit_leaves_nothing(
    checkpoint: Path, tmp_path: Path, make_module: MakeModule, write_lora: WriteLora
) -> None:
    huge = make_module(*CHANGED[0])
    huge.up.mul_(1e7)
    lora = write_lora("huge", [huge])
    for model, target in ((checkpoint, tmp_path / "fused.safetensors"), (BASE, tmp_path / "fused")):
        with open_weights(model, config=BASE) as base:
            with pytest.raises(AtelierError, match="too large for the base's numbers"):
                fuse(base, [lora], [1.0], target)
            with pytest.raises(RecipeError, match="one for each"):
                fuse(base, [lora], [1.0, 1.0], target)
            with pytest.raises(RecipeError, match="needs numbers"):
                fuse(base, [lora], [float("nan")], target)
        assert not target.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["huge.safetensors", "miniature.safetensors"]


def test_narrow_bases_are_refused(
    checkpoint: Path, tmp_path: Path, make_module: MakeModule, write_lora: WriteLora
) -> None:
    tensors = safetensors.torch.load_file(checkpoint)
    narrow = {name: value.to(torch.float8_e4m3fn) for name, value in tensors.items()}
    path = tmp_path / "narrow.safetensors"
    safetensors.torch.save_file(narrow, path)
    with open_weights(path, config=BASE) as base, pytest.raises(AtelierError, match="too narrow"):
        fuse(base, [write_lora("cat", [make_module(*CHANGED[0])])], [1.0], tmp_path / "fused.safetensors")


def test_outputs_that_would_cost_something(checkpoint: Path, tmp_path: Path) -> None:
    lora = tmp_path / "cat.safetensors"
    lora.touch()
    kept = tmp_path / "kept"
    kept.mkdir()
    for base, target, message in (
        (checkpoint, checkpoint, "one of the inputs"),
        (checkpoint, lora, "one of the inputs"),
        (checkpoint, tmp_path / "fused.pt", "ends in .safetensors"),
        (BASE, tmp_path / "fused.safetensors", "Name a folder"),
        (BASE, BASE / "fused", "lies in "),
        (BASE, BASE.parent, "one of the inputs lies in it"),
        (BASE, tmp_path, "one of the inputs lies in it"),
        (BASE, kept, "is there already"),
    ):
        with pytest.raises(RecipeError, match=message):
            check_fused_output(target, base, [lora], overwrite=True)
    (kept / "model_index.json").touch()
    check_fused_output(kept, BASE, [lora], overwrite=True)
    with pytest.raises(RecipeError, match="is there already"):
        check_fused_output(kept, BASE, [lora], overwrite=False)
