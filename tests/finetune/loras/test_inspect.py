"""What is said of a LoRA file is what is in it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune.adapters.weights import AdaptedModule, FullModule, LohaModule, LokrModule, LoraModule
from finetune.export.kohya import write_kohya
from finetune.loras.inspect import change_norm, changes_by_block, hints, inspect_lora, plain_inspection
from finetune.model.structure import named_structure

STRUCTURE = named_structure("miniature")
PATH = "mid_block.attentions.0.proj_in"
OUT, IN = STRUCTURE.weights["unet", PATH]
METADATA = {"ss_base_model_version": "sdxl_base_v1-0", "modelspec.trigger_phrase": "ohwx", "ss_steps": "300",
            "modelspec.license": "CC0-1.0", "ss_tag_frequency": '{"a": {"cat": 3, "dog": 5}}',
            "atelier_recipe": "name: cat"}  # fmt: skip


def random_lora(component: str, path: str, rank: int, scale: float, strength: float = 1.0) -> LoraModule:
    rows, *columns = next(shape for name, shape in STRUCTURE.weights.items() if name == (component, path))
    generator = torch.Generator().manual_seed(rank)
    up = torch.randn(rows, rank, *[1] * (len(columns) - 1), generator=generator) * strength
    down = torch.randn(rank, *columns, generator=generator)
    return LoraModule(component, path, down, up, scale)  # type: ignore[arg-type]  # one of COMPONENTS


def write(path: Path, modules: list[AdaptedModule], metadata: dict[str, str] | None = None) -> Path:
    write_kohya(modules, path, precision="fp32", layout=STRUCTURE.unet.layout, metadata=metadata or {})
    return path


LAST = "text_model.encoder.layers.2.mlp.fc1"  # of the miniature's first encoder, which nothing ever reaches


@pytest.fixture
def modules() -> list[AdaptedModule]:
    return [
        random_lora("unet", PATH, 4, 0.5, strength=3.0),
        random_lora("unet", "down_blocks.0.resnets.0.conv1", 2, 1.0, strength=0.5),
        random_lora("unet", "up_blocks.0.resnets.0.conv1", 4, 0.5, strength=0.0),
        random_lora("text_encoder", LAST, 3, 1.0, strength=0.0),
    ]


def test_ranks_alphas_and_changes(modules: list[AdaptedModule], tmp_path: Path) -> None:
    plain = plain_inspection(inspect_lora(write(tmp_path / "cat.safetensors", modules, METADATA), STRUCTURE))
    assert plain["dialect"] == "kohya, original layout"
    assert plain["kinds"] == {"LoRA": 4}
    assert plain["components"]["unet"] == {
        "modules": 3,
        "ranks": {"4": 2, "2": 1},
        "alphas": {"2.0": 3},
    }
    expected = {
        "down_blocks.0": modules[1].delta().square().mean().sqrt().item(),
        "mid_block": modules[0].delta().square().mean().sqrt().item(),
        "up_blocks.0": 0.0,
        "text_encoder.layers.2": 0.0,
    }
    assert plain["changes"] == pytest.approx(expected, rel=1e-6)
    assert plain["strongest"][0]["module"] == f"unet.{PATH}"
    assert plain["weakest"][0]["module"] == "unet.down_blocks.0.resnets.0.conv1"
    assert plain["dead"] == ["unet.up_blocks.0.resnets.0.conv1", f"text_encoder.{LAST}"]
    told = {"trigger": "ohwx", "steps": "300", "licence": "CC0-1.0", "frequent tags": "dog, cat"}
    assert {key: plain["about"].get(key) for key in told} == told
    assert "recipe" in plain["about"]


def test_a_block_of_several_modules_is_weighed_by_their_sizes(tmp_path: Path) -> None:
    two: list[AdaptedModule] = [random_lora("unet", PATH, 4, 1.0),
                                random_lora("unet", "mid_block.resnets.0.conv1", 2, 1.0, strength=5)]  # fmt: skip
    found = changes_by_block(inspect_lora(write(tmp_path / "cat.safetensors", two), STRUCTURE).modules)
    both = torch.cat([module.delta().flatten() for module in two])
    assert found == {"mid_block": pytest.approx(both.square().mean().sqrt().item(), rel=1e-6)}


def test_norms_of_every_kind() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    kinds: list[AdaptedModule] = [
        LoraModule("unet", PATH, draw(3, 12), draw(8, 3), -0.5),
        LohaModule("unet", PATH, (8, 12), draw(8, 3), draw(3, 12), draw(8, 3), draw(3, 12), 0.25),
        LokrModule("unet", PATH, (8, 12), -2.0, w1=draw(2, 4), w2_a=draw(4, 2), w2_b=draw(2, 3)),
        FullModule("unet", PATH, draw(8, 12), 3.0),
    ]
    for module in kinds:
        assert change_norm(module) == pytest.approx(module.delta().norm().item(), rel=1e-5), module.kind


def test_numbers_that_are_not_finite_are_named(modules: list[AdaptedModule], tmp_path: Path) -> None:
    path = write(tmp_path / "cat.safetensors", modules, METADATA)
    tensors = load_file(path)
    name = "lora_unet_middle_block_1_proj_in.lora_up.weight"
    tensors[name][1, 1] = float("inf")
    save_file(tensors, path, METADATA)
    inspection = inspect_lora(path, STRUCTURE)
    assert inspection.not_finite == (name,)
    assert "mid_block" not in changes_by_block(inspection.modules)
    assert any("not finite" in hint for hint in hints(inspection))


def test_hints_say_what_is_wrong(modules: list[AdaptedModule], tmp_path: Path) -> None:
    inspection = inspect_lora(write(tmp_path / "cat.safetensors", modules, METADATA), STRUCTURE)
    said = "\n".join(hints(inspection))
    assert "1 modules change nothing" in said, "the encoder's last layer is not counted: nothing ever reaches it"
    assert "full precision" in said
    assert "A1111" not in said
    tensors = {**load_file(inspection.path), "emb_params": torch.ones(2, 8)}
    save_file(tensors, inspection.path, {"ss_network_dim": "128"})
    said = "\n".join(hints(inspect_lora(inspection.path, STRUCTURE)))
    assert "A1111 may hide it" in said
    assert "says it has rank 128" in said
    assert "a text embedding" in said


@pytest.mark.parametrize("tags", ["{", "[]", "3", '{"a": 3}', '{"a": {"b": "c"}}', '{"a": {"b": 1e999}}', "[" * 90_000])
def test_tags_of_strangers_that_are_none(tags: str, modules: list[AdaptedModule], tmp_path: Path) -> None:
    path = write(tmp_path / "cat.safetensors", modules, {"ss_tag_frequency": tags})
    assert "frequent tags" not in plain_inspection(inspect_lora(path, STRUCTURE))["about"]
