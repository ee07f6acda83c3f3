"""A shard gives back what was put into it, or says that it is damaged; safetensors' own reader reads it, too."""

import random

import pytest
import safetensors
import safetensors.torch
import torch

from finetune.cache.shards import (
    DamagedShardError,
    ForeignShardError,
    MappedShards,
    Part,
    RawValue,
    read_index,
    write_shard,
)
from finetune.cache.values import to_raw, to_tensors


def _values(count=3):
    draws = torch.Generator().manual_seed(0)
    return {
        f"{index:064x}": to_raw({
            "mean": torch.randn(2, 3 + index, generator=draws),
            "std": torch.rand(2, 3 + index, generator=draws).bfloat16(),
        })
        for index in range(count)
    }  # fmt: skip


def _read_all(path):
    """Return every value that is whole, as its key and bytes."""
    index, mapped = read_index(path, {}), MappedShards()
    found = {}
    for key, place in index.places.items():
        try:
            value = mapped.read(path, index.num_bytes, place)
        except DamagedShardError:
            continue
        found[key] = (value.layout, bytes(value.data))
    mapped.close()
    return found


def test_what_is_written_is_read_and_the_index_is_the_one_that_was_returned(tmp_path):
    values = _values()
    written = write_shard(tmp_path / "one.safetensors", values)
    assert read_index(tmp_path / "one.safetensors", {}) == written
    assert _read_all(tmp_path / "one.safetensors") == {
        key: (value.layout, bytes(value.data)) for key, value in values.items()
    }
    assert [path.name for path in tmp_path.iterdir()] == ["one.safetensors"]


def test_safetensors_own_reader_reads_it(tmp_path):
    values = _values()
    write_shard(tmp_path / "one.safetensors", values)
    theirs = safetensors.torch.load_file(tmp_path / "one.safetensors")
    expected = {f"{key}.{name}": tensor for key, raw in values.items() for name, tensor in to_tensors(raw).items()}
    assert theirs.keys() == expected.keys()
    for name, tensor in expected.items():
        assert theirs[name].dtype == tensor.dtype
        assert torch.equal(theirs[name], tensor)


def test_every_bit_of_a_value_comes_back():
    """Also what comparisons of numbers do not tell apart: negative zero, payloads of NaN."""
    bits = torch.tensor([0x80000000, 0x7FC00001, 0xFFFFFFFF, 0x00000001, 0x7F800000], dtype=torch.int64)
    odd = bits.to(torch.int32).view(torch.float32).view(1, 5)
    for tensor in (odd, odd.bfloat16(), odd[:, ::2].half()):
        back = to_tensors(to_raw({"x": tensor}))["x"]
        assert back.dtype == tensor.dtype
        assert back.shape == tensor.shape
        width = torch.int32 if tensor.dtype == torch.float32 else torch.int16
        assert torch.equal(back.view(width), tensor.contiguous().view(width))


def test_no_flipped_bit_gives_a_wrong_value(tmp_path):
    """Each byte of a shard, flipped: values are lost, never changed, and never found under another's key."""
    path = tmp_path / "one.safetensors"
    values = _values(2)
    write_shard(path, values)
    whole, expected = path.read_bytes(), _read_all(path)
    draws, lost = random.Random(0), 0
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draws.randrange(8)
        path.write_bytes(flipped)
        try:
            found = _read_all(path)
        except (DamagedShardError, ForeignShardError):
            lost += 1
            continue
        assert found.items() <= expected.items(), f"byte {place}"
        if found == expected:
            # Nothing but white space of the header may change without a word.
            assert whole[place : place + 1] == b" "
        else:
            lost += 1
    assert lost >= len(whole) - 7


def test_no_shortened_shard_passes(tmp_path):
    path = tmp_path / "one.safetensors"
    write_shard(path, _values(2))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedShardError):
            read_index(path, {})
    path.write_bytes(whole + b"\0")
    with pytest.raises(DamagedShardError):
        read_index(path, {})


def test_a_shard_that_is_cut_while_it_is_mapped_does_not_end_the_process(tmp_path):
    path = tmp_path / "one.safetensors"
    big = {f"{index:064x}": RawValue((Part("x", "U8", (1 << 16,)),), bytes([index]) * (1 << 16)) for index in range(4)}
    index, mapped = write_shard(path, big), MappedShards()
    keys = list(index.places)
    mapped.read(path, index.num_bytes, index.places[keys[0]])
    with path.open("r+b") as file:
        file.truncate(1 << 16)
    with pytest.raises(DamagedShardError):
        mapped.read(path, index.num_bytes, index.places[keys[3]])


def test_a_shard_of_another_version_is_told_from_a_damaged_one(tmp_path):
    path = tmp_path / "one.safetensors"
    safetensors.torch.save_file({"a.x": torch.zeros(1)}, path, {"format": "atelier-cache-9", "a": "00"})
    with pytest.raises(ForeignShardError):
        read_index(path, {})
    safetensors.torch.save_file({"a.x": torch.zeros(1)}, path)
    with pytest.raises(DamagedShardError):
        read_index(path, {})


def test_few_shards_are_mapped_at_a_time(tmp_path):
    mapped = MappedShards(max_mapped=2)
    for number in range(5):
        path = tmp_path / f"{number}.safetensors"
        index = write_shard(path, _values(1))
        for place in index.places.values():
            mapped.read(path, index.num_bytes, place)
    assert [path.name for path in mapped._maps] == ["3.safetensors", "4.safetensors"]
