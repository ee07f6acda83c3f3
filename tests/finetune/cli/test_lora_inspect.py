"""`atelier lora inspect` as a person types it."""

import json
from pathlib import Path

import pytest
import torch

from finetune.adapters.weights import LohaModule, LoraModule
from finetune.cli.lora.inspect import merged_layers, one_line
from finetune.cli.main import main
from finetune.export.kohya import write_kohya
from finetune.model.structure import named_structure

STRUCTURE = named_structure("miniature")
PATH = "mid_block.attentions.0.proj_in"


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    out, inputs = STRUCTURE.weights["unet", PATH]
    plain = LoraModule("unet", PATH, torch.ones(4, inputs), torch.ones(out, 4), 0.5, magnitude=torch.ones(out))
    factors = {"w1_a": torch.ones(out, 2), "w1_b": torch.ones(2, inputs)}
    factors |= {"w2_a": torch.ones(out, 2), "w2_b": torch.ones(2, inputs)}
    loha = LohaModule("unet", "mid_block.attentions.0.proj_out", (out, inputs), scale=0.25, **factors)
    path = tmp_path / "cat.safetensors"
    metadata = {"modelspec.title": "a \x1b[2J[bold]cat[/bold]\n\u202eevil", "ss_base_model_version": "sdxl_base_v1-0"}
    write_kohya([plain, loha], path, precision="fp16", layout=STRUCTURE.unet.layout, metadata=metadata)
    return path


def test_on_a_terminal(lora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lora", "inspect", str(lora), "--model", "miniature"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "kohya, original layout",
        "1 LoRA, 1 LoHa, 1 with DoRA",
        "4 (1), 2 (1)",
        "mid_block",
        "█",
        "--as-lora",
    ):
        assert words in shown, words
    assert "[2J[bold]cat[/bold]" in shown, "what a file says is shown as it is, and does nothing"
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert not [line for line in shown.splitlines() if line != line.rstrip()], "blanks at the end of a line"


def test_on_a_narrow_terminal(lora: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "44")
    assert main(["lora", "inspect", str(lora), "--model", "miniature"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("- ")]
    assert max(map(len, lines)) <= 44
    assert any(line.split()[0] == "mid_block" and "█" in line for line in lines if line.strip()), "no name is cut"


def test_as_json(lora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lora", "inspect", str(lora), "--model", "miniature", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["kinds"] == {"LoRA": 1, "LoHa": 1}
    assert plain["changes"]["mid_block"] == pytest.approx(((2.0**2 + 1.0**2) / 2) ** 0.5, rel=1e-3)
    assert plain["about"]["model"] == "sdxl_base_v1-0"


def test_a_file_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cat.safetensors"
    path.write_bytes(b"<html>")
    assert main(["lora", "inspect", str(path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_layers_are_joined_to_a_few_rows() -> None:
    changes = {"mid_block": 1.0, **{f"text_encoder_2.layers.{layer}": float(layer) for layer in range(32)},
               "text_encoder.layers.1": 7.0}  # fmt: skip
    rows = merged_layers(changes)
    assert list(rows) == ["mid_block", *(f"text_encoder_2 {first} to {first + 5}" for first in (0, 6, 12, 18, 24)),
                          "text_encoder_2 30 to 31", "text_encoder 1"]  # fmt: skip
    assert rows["text_encoder_2 6 to 11"] == 11.0


def test_text_of_strangers_stays_on_its_line() -> None:
    assert one_line("a\nb\x1b[31mc\x07") == "a b [31mc "
    assert len(one_line("a" * 10_000)) == 200
