"""`atelier lora resize` as a person types it."""

import json
import os
from pathlib import Path

import pytest
import torch

from finetune.adapters.weights import LoraModule
from finetune.cli.main import main
from finetune.dialects.lora_file import read_lora
from finetune.loras.writing import write_made
from finetune.model.structure import named_structure

PATHS = ("mid_block.attentions.0.proj_in", "down_blocks.0.resnets.0.conv2")


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """A LoRA of rank 6 for the miniature."""
    structure = named_structure("miniature")
    path = tmp_path / "cat.safetensors"
    generator = torch.Generator().manual_seed(0)
    modules = []
    for module in PATHS:
        out, *rest = structure.weights["unet", module]
        down = torch.randn(6, *rest, generator=generator)
        up = torch.randn(out, 6, *[1] * (len(rest) - 1), generator=generator)
        modules.append(LoraModule("unet", module, down, up, 0.5))
    write_made(modules, path, precision="fp16", structure=structure, metadata={}, made_by={})
    return path


def test_a_rank_by_hand(lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "small.safetensors"
    line = ["lora", "resize", str(lora), "--rank", "2", "--model", "miniature", "--output", str(target)]
    assert main(line) == 0
    shown = capsys.readouterr().out
    assert "unet" in shown
    assert "Errors are relative" in shown
    assert [module.rank for module in read_lora(target, named_structure("miniature"))] == [2, 2]
    assert main(line) == 2, "it is there already"
    assert "--overwrite" in capsys.readouterr().err
    assert main([*line, "--overwrite"]) == 0


def test_a_share_as_json(lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "small.safetensors"
    line = ["lora", "resize", str(lora), "--energy", "0.9", "--max-rank", "4", "--model", "miniature", "--json"]
    assert main([*line, "-o", str(target)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["file"] == str(target)
    assert told["components"]["unet"]["modules"] == 2
    assert told["total"]["old_ranks"] == [6, 6]
    assert told["total"]["new_ranks"][1] <= 4
    assert 0 < told["total"]["relative_error"] < 0.6
    assert told["bytes_after"] == target.stat().st_size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rank", "0", "-o", "new.safetensors"], "1 or more"),
        (["--rank", "2", "--max-rank", "2", "-o", "new.safetensors"], "leave it out"),
        (["--rank", "2", "-o", "new.pt"], r"ends in .safetensors"),
        (["--rank", "2", "-o", "cat.safetensors", "--overwrite"], "one of the inputs"),
        (["--rank", "2", "-o", "new.safetensors", "--model", "sdxl"], "base, refiner"),
    ],
)
def test_slips_are_told_and_change_nothing(
    options: list[str],
    message: str,
    lora: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = lora.read_bytes()
    model = [] if "--model" in options else ["--model", "miniature"]
    assert main(["lora", "resize", "cat.safetensors", *options, *model]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["cat.safetensors"]
    assert lora.read_bytes() == before


@pytest.mark.skipif(os.name == "nt", reason="Windows limits whole paths instead")
@pytest.mark.parametrize("length", [235, 250], ids=["its temporary name", "itself"])
def test_a_name_that_is_too_long_is_told(
    lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], length: int
) -> None:
    target = tmp_path / f"{'a' * length}.safetensors"
    assert main(["lora", "resize", str(lora), "--rank", "2", "--model", "miniature", "-o", str(target)]) == 6
    assert "too long" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [lora]
