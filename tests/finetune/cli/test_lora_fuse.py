"""`atelier lora fuse` and `atelier lora extract` as a person types them: into the miniature and out of it again."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from finetune.adapters.weights import LoraModule
from finetune.cli.main import main
from finetune.dialects.lora_file import read_lora
from finetune.loras.writing import write_made
from finetune.model.geometry import MINIATURE_FOLDER
from finetune.model.structure import named_structure

PATH = "mid_block.attentions.0.proj_in"


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    structure = named_structure("miniature")
    width = structure.weights["unet", PATH][0]
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, width, generator=generator), torch.randn(width, 2, generator=generator)
    file = tmp_path / "cat.safetensors"
    module = LoraModule("unet", PATH, down, up, 0.25)
    write_made([module], file, precision="fp32", structure=structure, metadata={}, made_by={})
    return file


def test_in_and_out_again(lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fused, found = tmp_path / "fused", tmp_path / "found.safetensors"
    assert main(["lora", "fuse", "miniature", str(lora), "--weights", "0.5", "-o", str(fused), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["modules"] == {"unet": 1}
    assert 0 < told["rounding_relative"] < 0.01
    line = ["lora", "extract", "miniature", str(fused), "--rank", "2", "-o", str(found)]
    assert main(line) == 0
    shown = capsys.readouterr()
    assert PATH in shown.out
    assert not shown.err, "nothing else differs"
    structure = named_structure("miniature")
    ((before,), (after,)) = (read_lora(path, structure) for path in (lora, found))
    assert (after.delta() - 0.5 * before.delta()).norm() < 0.01 * before.delta().norm()
    assert main([*line, "--overwrite", "--only", "text_encoder"]) == 1
    assert "no module would be changed" in capsys.readouterr().err
    assert main(["lora", "fuse", "miniature", str(lora), "-o", str(fused)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["lora", "fuse", "miniature", str(lora), "-o", str(fused), "--overwrite"]) == 0
    assert "1 weights changed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["fuse", "nowhere", "cat.safetensors", "-o", "x"], "does not exist"),
        (["fuse", "miniature", "cat.safetensors", "-o", "x", "--weights", "1", "1"], "one for each"),
        (["fuse", "miniature", "cat.safetensors", "-o", "cat.safetensors"], "one of the inputs"),
        (["extract", "miniature", ".", "--rank", "2", "-o", "x.safetensors"], "unet/config.json is missing"),
        (["extract", "miniature", "nowhere", "--rank", "2", "-o", "x.safetensors"], "does not exist"),
        (["extract", "miniature", "miniature", "--rank", "2", "--only", "vae", "-o", "x.safetensors"], "is none of"),
        (["extract", "miniature", "miniature", "--rank", "2", "-o", "x"], "ends in .safetensors"),
    ],
)
def test_slips(
    line: list[str],
    message: str,
    lora: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["lora", *line]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["cat.safetensors"]


def test_a_models_own_files_are_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model"
    shutil.copytree(MINIATURE_FOLDER / "base", model)
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    before = weights.read_bytes()
    line = ["lora", "extract", "miniature", str(model), "--rank", "2", "-o", str(weights), "--overwrite"]
    assert main(line) == 2
    assert "one of the inputs" in capsys.readouterr().err
    assert weights.read_bytes() == before
