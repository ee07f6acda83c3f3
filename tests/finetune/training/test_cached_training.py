"""Training with a cache is training without: the same draws give the same losses to the bit, whatever happens to it."""

import shutil

import pytest
import torch

from finetune.cache.folder import ShardFolder
from finetune.cache.opened import open_cache
from finetune.model.miniature import Miniature
from finetune.training.loop import optimizer_step

SETTINGS = {
    "data.crop": "random",
    "data.crops_per_picture": 3,
    "data.flip_probability": 0.5,
    "data.buckets": {"kind": "listed", "sizes": [[16, 32]]},
    "training.caption_dropout": 0.3,
    "training.micro_batch_size": 2,
    "training.global_batch_size": 2,
}
WAYS = {
    "memory": {"cache": {"kind": "memory"}},
    "never": {"cache": {"kind": "memory"}, "training.cache_latents": "never"},
    "never, text on disk": {"training.cache_latents": "never"},
    "disk": {},
    "disk, everything there": {},
}


def _steps(state, hash_tensors, count=8):
    """Return what each step computed, to the bit, and what came out."""
    reports = [optimizer_step(state) for _ in range(count)]
    return [(r.loss, r.grad_norm, tuple(r.per_sample)) for r in reports], hash_tensors(state.parameters)


@pytest.mark.parametrize(("precision", "count"), [("fp32", 8), ("bf16", 2)])
def test_losses_are_equal_to_the_bit_with_the_cache_on_and_off(make_state, hash_tensors, precision, count):
    settings = {**SETTINGS, "training.precision": precision}
    results = {way: _steps(make_state({**settings, **own}), hash_tensors, count) for way, own in WAYS.items()}
    for way, result in results.items():
        assert result == results["memory"], way
    losses, _ = results["memory"]
    assert len(set(losses)) == count, "or the comparison would prove nothing"


def test_long_and_weighted_captions_give_the_same_bits_from_every_cache_and_from_each_step(
    make_state, hash_tensors, pictures_folder, tmp_path
):
    """Texts of one and of several chunks and dropped ones in one batch; a run that goes on half way is the same."""
    shutil.copytree(pictures_folder, tmp_path / "long")
    for name, caption in {"0": "a cat, " * 50 + "a dog", "1": "a (red:1.4) cat, " * 30, "2": "a [dog]"}.items():
        (tmp_path / "long" / f"{name}.txt").write_text(caption, encoding="utf-8")
    source = {"kind": "folder", "path": str(tmp_path / "long")}
    settings = {**SETTINGS, "data.sources": [source], "training.weighted_captions": True}
    results = {
        way: _steps(make_state({**settings, **WAYS[way]}), hash_tensors, 4)
        for way in ("memory", "disk", "disk, everything there")
    }
    assert results["disk"] == results["memory"] == results["disk, everything there"]
    state = make_state(settings)
    masked = []
    handle = state.task.unet.register_forward_pre_hook(
        lambda _module, _inputs, keywords: masked.append(keywords["encoder_attention_mask"] is not None),
        with_kwargs=True,
    )
    _steps(state, hash_tensors, 4)
    handle.remove()
    assert set(masked) == {True, False}, "batches of one length and of several come up"
    plain = _steps(make_state({**settings, "training.weighted_captions": False}), hash_tensors, 4)
    short = _steps(make_state({**settings, "training.max_caption_tokens": 75}), hash_tensors, 4)
    assert results["disk"][0] != plain[0] != short[0] != results["disk"][0]


def test_dropped_captions_flips_and_crops_come_up_in_that_run(make_state):
    pictures = make_state(SETTINGS).pictures
    seen = [item for step in range(1, 9) for batch in pictures.batches_of(step) for item in batch]
    assert {item.caption is None for item in seen} == {True, False}
    assert {item.frame.flipped for item in seen} == {True, False}
    assert len({item.frame.crop_box for item in seen}) > 3


class _NothingToLoad(Miniature):
    """Refuses to load what has been used up."""

    def load_text_encoder(self, dtype):
        raise AssertionError("the captions are all there")

    load_text_encoder_2 = load_text_encoder


def test_a_second_run_loads_no_encoder_and_encodes_nothing(make_state, monkeypatch):
    make_state(SETTINGS)
    monkeypatch.setattr("finetune.training.components.open_model", lambda *_, **__: _NothingToLoad())
    monkeypatch.setattr("finetune.cache.latents.encode_moments", lambda *_: pytest.fail("the latents are all there"))
    optimizer_step(make_state(SETTINGS))


@pytest.mark.parametrize("store", ["latents", "text"])
def test_damage_in_the_middle_of_a_run_is_mended_with_a_warning_and_the_same_numbers(
    make_recipe, make_state, hash_tensors, capsys, store
):
    expected = _steps(make_state(SETTINGS), hash_tensors)
    state = make_state(SETTINGS)
    first = _steps(state, hash_tensors, 2)
    folder = open_cache(make_recipe(SETTINGS), print).folder / store
    [shard] = folder.glob("shard-*.safetensors")
    content = bytearray(shard.read_bytes())
    for place in range(len(content) // 2, len(content), 50):
        content[place] ^= 0x55
    with shard.open("r+b") as file:  # the same file, which is mapped
        file.write(content)
    rest = _steps(state, hash_tensors, 6)
    assert (first[0] + rest[0], rest[1]) == expected
    assert f"{shard} is damaged" in capsys.readouterr().err
    assert not shard.exists()
    mended = ShardFolder(folder, lambda message: pytest.fail(message))
    kept = list(mended.keys())
    assert kept
    assert all(mended.get(key) is not None for key in kept)
    assert _steps(make_state(SETTINGS), hash_tensors) == expected


def test_removed_in_the_middle_of_a_run(make_recipe, make_state, hash_tensors):
    """Somebody deletes the folder: what is asked for is encoded again."""
    expected = _steps(make_state(SETTINGS), hash_tensors)
    state = make_state(SETTINGS)
    for shard in open_cache(make_recipe(SETTINGS), print).folder.rglob("shard-*.safetensors"):
        shard.unlink()
    assert _steps(state, hash_tensors) == expected


def test_a_value_is_the_mean_and_deviation_and_not_a_sample(make_state):
    state = make_state(SETTINGS)
    item = state.pictures.batches_of(1)[0][0]
    first, second = (state.task.latents(item.sample, item.frame) for _ in range(2))
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.std, second.std)
    assert first.std.min() > 0
    draws = [first.sample(torch.randn(first.mean.shape), 1.0) for _ in range(2)]
    assert not torch.equal(*draws)


def test_no_room_on_the_disk(make_recipe, make_state, hash_tensors, monkeypatch, capsys):
    from finetune.errors import DiskError

    expected = _steps(make_state({**SETTINGS, "cache": {"kind": "memory"}}), hash_tensors)
    monkeypatch.setattr("finetune.training.encode_plan.DISK_SHARE", 0.0)
    with pytest.raises(DiskError, match=r"no room for the latents of \d+ cuts.*cache\.folder"):
        make_state({**SETTINGS, "training.cache_latents": "always"})
    assert _steps(make_state(SETTINGS), hash_tensors) == expected
    assert "kept in memory" in capsys.readouterr().err
    assert not list((open_cache(make_recipe(SETTINGS), print).folder / "latents").glob("*"))
