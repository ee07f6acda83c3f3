"""`atelier lora convert` as a person types it."""

import json
from pathlib import Path

import pytest
import torch

from finetune.adapters.weights import LohaModule, LoraModule
from finetune.cli.main import main
from finetune.dialects.lora_file import LoraFile, read_lora
from finetune.export.kohya import write_kohya
from finetune.export.registry import FORMATS
from finetune.model.structure import named_structure
from finetune.tensors.header import read_header, read_metadata

STRUCTURE = named_structure("miniature")
PATH = "mid_block.attentions.0.proj_in"
OUT, IN = STRUCTURE.weights["unet", PATH]
METADATA = {
    "ss_base_model_version": "sdxl_base_v1-0",
    "ss_output_name": "old",
    "ss_tag_frequency": '{"private": {"ohwx": 3}}',
    "ss_network_dim": "999",
    "modelspec.sai_model_spec": "1.0.1",
    "modelspec.title": "A cat",
    "modelspec.trigger_phrase": "ohwx",
    "sshs_model_hash": "stale",
    "lora_adapter_metadata": '{"stale": 1}',
}


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """Three modules of rank 4 and alpha 2 in half precision."""
    generator = torch.Generator().manual_seed(0)
    layer = "text_model.encoder.layers.0.mlp.fc1"
    modules = []
    for component, path in (("unet", PATH), ("text_encoder", layer), ("text_encoder_2", layer)):
        rows, columns = STRUCTURE.weights[component, path]
        down, up = torch.randn(4, columns, generator=generator), torch.randn(rows, 4, generator=generator)
        modules.append(LoraModule(component, path, down.half().float(), up.half().float(), 0.5))
    path = tmp_path / "cat.safetensors"
    write_kohya(modules, path, precision="fp16", layout=STRUCTURE.unet.layout, metadata=METADATA)
    return path


@pytest.fixture
def loha(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    shapes = {"w1_a": (OUT, 2), "w1_b": (2, IN), "w2_a": (OUT, 2), "w2_b": (2, IN)}
    factors = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    path = tmp_path / "hat.safetensors"
    module = LohaModule("unet", PATH, (OUT, IN), scale=0.25, **factors)
    write_kohya([module], path, precision="fp32", layout=STRUCTURE.unet.layout, metadata={})
    return path


def convert(*words: object) -> int:
    return main(["lora", "convert", *map(str, words), "--model", "miniature"])


def deltas(path: Path) -> dict[tuple[str, str], torch.Tensor]:
    return {(module.component, module.module): module.delta() for module in read_lora(path, STRUCTURE)}


@pytest.mark.parametrize(
    ("to", "where"),
    [
        ("diffusers", "cat-diffusers/pytorch_lora_weights.safetensors"),
        ("peft", "cat-peft"),
        ("kohya-diffusers", "cat-kohya-diffusers.safetensors"),
        ("kohya", "cat-kohya.safetensors"),
    ],
)
def test_there_and_back_changes_nothing(
    to: str, where: str, lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(lora, "--to", to) == 0
    shown = capsys.readouterr().out
    assert "kohya, original layout; 3 LoRA; modules: unet 1, text_encoder 1, text_encoder_2 1" in shown
    there = tmp_path / where
    back = tmp_path / "back.safetensors"
    assert convert(there, "--to", "kohya", "--output", back) == 0
    before, after = deltas(lora), deltas(back)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with LoraFile(there, STRUCTURE) as file:
        assert file.precision == "fp16", "keep keeps"
    assert {entry.dtype for name, entry in read_header(back).entries.items() if "alpha" not in name} == {"F16"}


def test_metadata_are_carried_over_and_made_right(lora: Path, tmp_path: Path) -> None:
    target = tmp_path / "new.safetensors"
    assert convert(lora, "--to", "kohya-diffusers", "-o", target) == 0
    metadata = read_metadata(target)
    expected = {
        "ss_output_name": "new",
        "ss_network_dim": "4",
        "ss_network_alpha": "2.0",
        "ss_network_module": "networks.lora",
        "ss_tag_frequency": METADATA["ss_tag_frequency"],
        "modelspec.implementation": "https://github.com/huggingface/diffusers",
        "modelspec.trigger_phrase": "ohwx",
    }
    assert {key: metadata.get(key) for key in expected} == expected
    assert metadata["sshs_model_hash"] != "stale"
    assert "lora_adapter_metadata" not in metadata


def test_minimal_metadata_tell_nothing_of_the_pictures(lora: Path, tmp_path: Path) -> None:
    target = tmp_path / "new.safetensors"
    assert convert(lora, "--to", "kohya", "-o", target, "--minimal-metadata") == 0
    metadata = read_metadata(target)
    assert "ohwx" not in json.dumps(metadata)
    assert metadata["modelspec.title"] == "A cat"
    assert metadata["ss_base_model_version"] == "sdxl_base_v1-0"


@pytest.mark.parametrize("to", ["diffusers", "peft"])
def test_a_loha_becomes_plain_where_the_format_needs_it(
    to: str, loha: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / ("out" if to == "peft" else "out.safetensors")
    if to == "diffusers":
        assert convert(loha, "--to", to, "-o", target) == 1
        assert "--as-lora exact" in capsys.readouterr().err
        assert not target.exists()
    assert convert(loha, "--to", to, "-o", target, "--as-lora", "exact", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["kinds"], report["made_plain"]) == ({"LoHa": 1}, 1)
    (plain,) = read_lora(target, STRUCTURE)
    assert (plain.kind, plain.rank) == ("LoRA", 4)
    (wanted,) = deltas(loha).values()
    assert (plain.delta() - wanted).norm() < 1e-6 * wanted.norm()


def test_a_rank_too_small_keeps_the_largest_singular_values(loha: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    assert convert(loha, "--to", "kohya", "-o", target, "--as-lora", 2) == 0
    (wanted,) = deltas(loha).values()
    (plain,) = read_lora(target, STRUCTURE)
    left, values, right = torch.linalg.svd(wanted)
    best = left[:, :2] * values[:2] @ right[:2]
    assert plain.rank == 2
    assert (plain.delta() - best).norm() < 1e-6 * wanted.norm()


def test_pissa_needs_what_it_began_as(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As peft saves it: the base has lost the first factors, so the last ones alone are wrong on the untouched base."""
    folders = {}
    for name, fill in (("trained", 0.5), ("pissa_init", 0.25)):
        module = LoraModule("unet", PATH, torch.full((2, IN), fill), torch.full((OUT, 2), fill), 1.5)
        (config, *_) = (path for path in FORMATS["peft"].write(
            [module], tmp_path / name, precision="fp32", layout=STRUCTURE.unet.layout, metadata={}
        ) if path.suffix == ".json")  # fmt: skip
        settings = json.loads(config.read_text())
        config.write_text(json.dumps(settings | {"init_lora_weights": "pissa" if name == "trained" else True}))
        folders[name] = config.parent
    target = tmp_path / "out.safetensors"
    assert convert(folders["trained"], "--to", "kohya", "-o", target) == 1
    assert "--initial FOLDER" in capsys.readouterr().err
    assert not target.exists()
    assert convert(folders["trained"], "--to", "kohya", "-o", target, "--initial", folders["pissa_init"]) == 0
    (plain,) = read_lora(target, STRUCTURE)
    assert plain.rank == 4
    wanted = torch.full((OUT, IN), 1.5 * 2 * (0.5**2 - 0.25**2), dtype=torch.float64)
    assert (plain.delta() - wanted).norm() < 1e-6 * wanted.norm()


def test_nothing_is_written_over(lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = lora.read_bytes()
    assert convert(lora, "--to", "kohya", "-o", lora, "--overwrite") == 2
    assert "one of the inputs" in capsys.readouterr().err
    link = tmp_path / "link.safetensors"
    link.hardlink_to(lora)
    assert convert(lora, "--to", "kohya", "-o", link, "--overwrite") == 2
    assert lora.read_bytes() == content
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"mine")
    assert convert(lora, "--to", "kohya", "-o", other) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert other.read_bytes() == b"mine"
    assert convert(lora, "--to", "kohya", "-o", other, "--overwrite") == 0
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    assert convert(lora, "--to", "peft", "-o", mine, "--overwrite") == 2
    assert (mine / "thesis.txt").read_text() == "years of work"


def test_a_refusal_leaves_nothing_behind(lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of another model than the one named: nothing is written, and the way round is told."""
    target = tmp_path / "out.safetensors"
    assert main(["lora", "convert", str(lora), "--to", "kohya", "--model", "base", "-o", str(target)]) == 1
    assert "do not fit together or the weight" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [lora]


@pytest.mark.parametrize("word", ["0", "-3", "many", "1e3"])
def test_a_rank_that_is_none(word: str, lora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(lora, "--to", "kohya", f"--as-lora={word}") == 2
    assert "needs a rank" in capsys.readouterr().err
