"""A spooled file is the one that safetensors makes of the same tensors, whole or not there."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from finetune.tensors.header import read_header
from finetune.tensors.reading import TensorFile
from finetune.tensors.spool import spooled_file

TENSORS = {
    "z": torch.randn(3, 5),
    "a": torch.randn(4, 2).half(),
    "nested.name": torch.randn(2, 3, 3, 3).bfloat16(),
    "alpha": torch.tensor(2.0),
    "empty": torch.empty(0, 4),
    "whole": torch.arange(4),
    "tiny": torch.randn(8).to(torch.float8_e4m3fn),
    # Beyond a MiB, so that kohya's second hash has bytes to see.
    "large": torch.randn(700, 700),
}
METADATA = {"ss_output_name": "cat", "modelspec.title": "Katze, größer"}


def with_hashes(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> dict[str, str]:
    """Kohya's hashes as sd-scripts takes them (`train_util.precalculate_safetensors_hashes`), from the whole file."""
    content = save(tensors, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    header_end = 8 + int.from_bytes(content[:8], "little")
    model_hash = hashlib.sha256(content[header_end:]).hexdigest()
    return {
        **metadata,
        "sshs_model_hash": model_hash,
        "sshs_legacy_hash": hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8],
        "modelspec.hash_sha256": f"0x{model_hash}",
    }


def test_it_is_what_the_library_writes(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cat.safetensors"
    with spooled_file(path) as spool:
        for name, tensor in TENSORS.items():
            spool.add(name, tensor)
        spool.finish({})
    assert path.read_bytes() == save(TENSORS)
    assert list(path.parent.iterdir()) == [path]


def test_strings_and_hashes(tmp_path: Path) -> None:
    path = tmp_path / "cat.safetensors"
    with spooled_file(path) as spool:
        for name in sorted(TENSORS, reverse=True):
            spool.add(name, TENSORS[name])
        spool.finish(METADATA, with_hashes=True)
    header = read_header(path)
    assert header.metadata == with_hashes(TENSORS, METADATA)
    loaded = load_file(path)
    assert loaded.keys() == TENSORS.keys()
    with TensorFile(header) as file:
        for name, tensor in TENSORS.items():
            assert torch.equal(loaded[name].float(), tensor.float()), name
            assert file.raw(name).dtype == tensor.dtype
            assert torch.equal(file.raw(name).float(), tensor.float()), name


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "cat.safetensors"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError, match="half way"), spooled_file(path) as spool:  # noqa: PT012 - the block is it
        spool.add("a", torch.ones(3))
        raise RuntimeError("half way")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_the_header_is_json_with_ordered_places(tmp_path: Path) -> None:
    path = tmp_path / "cat.safetensors"
    with spooled_file(path) as spool:
        spool.add("b", torch.ones(2))
        spool.add("a", torch.ones(3))
        spool.finish(METADATA)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert list(header) == ["__metadata__", "a", "b"]
    assert header["a"]["data_offsets"] == [0, 12]
