"""`atelier lora merge` as a person types it."""

import json
from pathlib import Path

import pytest
import torch

from finetune.adapters.weights import LoraModule
from finetune.cli.main import main
from finetune.dialects.lora_file import read_lora
from finetune.loras.writing import write_made
from finetune.model.structure import named_structure

SHARED, ALONE = "mid_block.attentions.0.proj_in", "mid_block.attentions.0.proj_out"


@pytest.fixture
def loras(tmp_path: Path) -> list[str]:
    """Two LoRAs of rank 3 for the miniature; the first has a module of its own."""
    structure = named_structure("miniature")
    width = structure.weights["unet", SHARED][0]
    generator = torch.Generator().manual_seed(0)
    paths = []
    for name, changed in (("cat", (SHARED, ALONE)), ("dog", (SHARED,))):
        path = tmp_path / f"{name}.safetensors"
        modules = []
        for module in changed:
            down, up = torch.randn(3, width, generator=generator), torch.randn(width, 3, generator=generator)
            modules.append(LoraModule("unet", module, down, up, 1.0))
        write_made(modules, path, precision="fp32", structure=structure, metadata={}, made_by={})
        paths.append(str(path))
    return paths


def test_two_files(loras: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "both.safetensors"
    line = ["lora", "merge", *loras, "--weights", "1", "-0.5", "--model", "miniature", "-o", str(target), "--json"]
    assert main(line) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["components"] == {"unet": {"shared": 1, "alone": 1, "ranks": [3, 6]}}
    structure = named_structure("miniature")
    first, second = ({module.module: module.delta() for module in read_lora(Path(path), structure)} for path in loras)
    merged = {module.module: module.delta() for module in read_lora(target, structure)}
    assert torch.allclose(merged[SHARED], first[SHARED] - 0.5 * second[SHARED], rtol=0, atol=1e-5)
    assert torch.equal(merged[ALONE], first[ALONE])


def test_a_table(loras: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "both.safetensors"
    line = ["lora", "merge", *loras, "--method", "ties", "--rank", "4", "--model", "miniature", "-o", str(target)]
    assert main(line) == 0
    assert "3 to 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "linear"], "adds up factors"),
        (["--weights", "1"], "one for each"),
        (["--weights", "1", "0"], "other than 0"),
        (["--rank", "4"], "ranks add up"),
    ],
)
def test_slips(
    options: list[str], message: str, loras: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "both.safetensors"
    assert main(["lora", "merge", *loras, "--model", "miniature", "-o", str(target), *options]) == 2
    assert message in capsys.readouterr().err
    assert not target.exists()
