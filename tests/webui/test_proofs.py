"""The proof on the page: what each program takes of a file, in words, with nothing of the file as markup."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from finetune.errors import AtelierError
from webui.proofs import proof_of, proof_table

STEM = "lora_unet_middle_block_1_transformer_blocks_0_attn2_to_k"
GOOD = {
    f"{STEM}.lora_down.weight": np.zeros((1, 2048), np.float16),
    f"{STEM}.lora_up.weight": np.zeros((1280, 1), np.float16),
    f"{STEM}.alpha": np.array(1.0, np.float32),
}
METADATA = {"ss_base_model_version": "sdxl_base_v1-0"}


def table_of(path: Path) -> str:
    proof = proof_of(path)
    assert proof is not None
    return proof_table(proof)


def test_a_good_file_is_whole_everywhere(tmp_path: Path) -> None:
    save_file(GOOD, tmp_path / "cat.safetensors", METADATA)
    table = table_of(tmp_path / "cat.safetensors")
    assert table.count('class="whole"') == 6
    assert table.count("<td>1 of 1</td>") == 6
    assert "Encoder" not in table
    assert "remarks" not in table


def test_what_is_left_is_told_and_is_text(tmp_path: Path) -> None:
    strange = "lora_unet_<img src=x onerror=alert(1)>.alpha"
    save_file(GOOD | {strange: np.array(1.0, np.float32)}, tmp_path / "cat.safetensors", METADATA)
    table = table_of(tmp_path / "cat.safetensors")
    assert '<td class="partial">in part</td>' in table
    assert "&lt;img src=x" in table
    assert "<img" not in table


def test_a_part_of_a_whole_model_has_no_proof_and_a_broken_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model" / "unet").mkdir(parents=True)
    (tmp_path / "model" / "model_index.json").write_text("{}")
    save_file(GOOD, tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    assert proof_of(tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors") is None
    (tmp_path / "cut.safetensors").write_bytes(b"\x08")
    with pytest.raises(AtelierError):
        proof_of(tmp_path / "cut.safetensors")
