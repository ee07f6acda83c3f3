"""`atelier lora scale-blocks` as a person types it."""

import json
from pathlib import Path

import pytest
import torch

from finetune.adapters.weights import LoraModule
from finetune.cli.main import main
from finetune.dialects.lora_file import read_lora
from finetune.loras.writing import write_made
from finetune.model.structure import named_structure

PATHS = ("down_blocks.1.attentions.0.proj_in", "mid_block.attentions.0.proj_in")


@pytest.fixture
def lora(tmp_path: Path) -> str:
    structure = named_structure("miniature")
    modules = []
    for path in PATHS:
        width = structure.weights["unet", path][0]
        modules.append(LoraModule("unet", path, torch.ones(2, width), torch.ones(width, 2), 1.0))
    file = tmp_path / "cat.safetensors"
    write_made(modules, file, precision="fp16", structure=structure, metadata={}, made_by={})
    return str(file)


def test_a_line_and_its_answers(lora: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "new.safetensors"
    line = ["lora", "scale-blocks", lora, "--set", "down_blocks.1=0.5", "--set", "mid_block=0", "-o", str(target)]
    line += ["--model", "miniature"]
    assert main(line) == 0
    shown = capsys.readouterr().out
    assert "1 modules, as unet.down_blocks.1.attentions.0.proj_in" in shown
    assert "0 modules as they were, 1 left out" in shown
    assert [(m.module, m.scale) for m in read_lora(target, named_structure("miniature"))] == [(PATHS[0], 0.5)]
    assert main([*line, "--overwrite", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rules"][1] == {"pattern": "mid_block", "strength": 0.0, "modules": [f"unet.{PATHS[1]}"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "down_block.1=0.5"], "Nearest: down_blocks.1"),
        (["--set", "down_blocks.1"], "BLOCK=STRENGTH"),
        (["--lbw", "1,1,1"], "got 3 numbers"),
    ],
)
def test_slips(options: list[str], message: str, lora: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "new.safetensors"
    assert main(["lora", "scale-blocks", lora, "--model", "miniature", "-o", str(target), *options]) == 2
    assert message in capsys.readouterr().err
    assert not target.exists()
