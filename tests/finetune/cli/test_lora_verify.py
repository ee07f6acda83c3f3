"""`atelier lora verify`: its table, its words, its exit codes."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from finetune.cli.main import main

BLOCK = "lora_unet_input_blocks_4_1_transformer_blocks_0"
WIDTHS = {"attn1_to_q": 640, "attn2_to_k": 2048, "attn2_to_v": 2048}
METADATA = {"ss_base_model_version": "sdxl_base_v1-0"}


def save(path: Path, *, block: str = BLOCK, metadata: dict[str, str] = METADATA, dora: bool = False) -> Path:
    tensors = {}
    for name, width in WIDTHS.items():
        tensors[f"{block}_{name}.lora_down.weight"] = np.ones((2, width), np.float16)
        tensors[f"{block}_{name}.lora_up.weight"] = np.ones((640, 2), np.float16)
        tensors[f"{block}_{name}.alpha"] = np.array(2.0, np.float32)
        if dora:
            tensors[f"{block}_{name}.dora_scale"] = np.ones((640, 1), np.float32)
    save_file(tensors, path, metadata)
    return path


def test_a_whole_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "whole.safetensors")
    assert main(["lora", "verify", str(path)]) == 0
    out = capsys.readouterr().out
    assert "3 modules of lora, names of kohya" in out
    lines = [line.split() for line in out.splitlines()]
    for reader in ("ComfyUI", "A1111", "Forge", "InvokeAI", "kohya", "diffusers"):
        assert [reader, "3/3", "right", "-", "right", "whole"] in lines
    assert out.rstrip().endswith("taken whole by: ComfyUI, A1111, Forge, InvokeAI, kohya, diffusers")


def test_a_broken_file_names_keys_and_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "broken.safetensors", block=BLOCK.replace("_4_1_", "_3_1_"), metadata={"ss_tag": "x"})
    assert main(["lora", "verify", str(path)]) == 1
    out = capsys.readouterr().out
    assert "not taken whole by: ComfyUI, A1111" in out
    assert f"{BLOCK.replace('_4_1_', '_3_1_')}_attn1_to_q" in out
    assert "awkward: no-base-version" in out
    assert f"remedy: atelier lora convert {path} --to kohya" in out


def test_a_limit_counts_only_for_a_reader_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "a dora.safetensors", dora=True)
    assert main(["lora", "verify", str(path)]) == 0
    out = capsys.readouterr().out
    assert "note: dora" in out
    assert "taken whole by: no program; with limits (DoRA): ComfyUI, A1111, Forge, InvokeAI, kohya, diffusers" in out
    assert f"atelier lora convert '{path}' --to diffusers" in out
    assert "FILE" not in out
    assert main(["lora", "verify", str(path), "--for", "invokeai"]) == 1
    assert "not taken whole by: InvokeAI" in capsys.readouterr().out


def test_a_reader_that_is_asked_for_says_why_it_does_not_take_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "whole.safetensors")
    assert main(["lora", "verify", str(path), "--for", "peft"]) == 1
    assert (
        "not taken whole by: peft\n  peft: refuses the file: there is no adapter_config.json" in capsys.readouterr().out
    )


def test_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "whole.safetensors")
    assert main(["lora", "verify", str(path), "--for", "comfyui", "--for", "diffusers", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["passes"], told["required"], told["findings"]) == (True, ["comfyui", "diffusers"], [])
    assert {reader["state"] for reader in told["readers"] if reader["reader"] != "peft"} == {"whole"}


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (["--for", "automatic"], 2, "unknown reader 'automatic'"),
        (["--model", "sd15"], 2, "--model 'sd15'"),
    ],
)
def test_wrong_options(
    line: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "whole.safetensors")
    assert main(["lora", "verify", str(path), *line]) == code
    assert words in capsys.readouterr().err


def test_what_is_no_lora_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pickle = tmp_path / "lora.ckpt"
    pickle.write_bytes(b"\x80\x04.")
    assert main(["lora", "verify", str(pickle)]) == 1
    assert "only .safetensors files are read" in capsys.readouterr().err
    folder = tmp_path / "adapter"
    folder.mkdir()
    assert main(["lora", "verify", str(folder)]) == 1
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04.")
    assert main(["lora", "verify", str(folder)]) == 1
    assert "adapter_model.bin is a pickle" in capsys.readouterr().err


def test_a_runs_folder_is_answered_with_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "exports").mkdir()
    path = save(tmp_path / "exports" / "cat.safetensors")
    assert main(["lora", "inspect", str(tmp_path)]) == 1
    assert f"Give one of its files: {path}" in capsys.readouterr().err


def test_a_program_that_can_do_nothing_with_a_kind_is_not_said_to_take_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stem = f"{BLOCK}_attn2_to_k"
    parts = {"hada_w1_a": (640, 2), "hada_w1_b": (2, 2048), "hada_w2_a": (640, 2), "hada_w2_b": (2, 2048)}
    tensors = {f"{stem}.{part}": np.ones(shape, np.float16) for part, shape in parts.items()}
    path = tmp_path / "loha.safetensors"
    save_file({**tensors, f"{stem}.alpha": np.array(2.0, np.float32)}, path, METADATA)
    assert main(["lora", "verify", str(path)]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert (
        line
        == "taken whole by: ComfyUI, A1111, Forge, InvokeAI, kohya; not at all (LoHa, LoKr and the like): diffusers"
    )
