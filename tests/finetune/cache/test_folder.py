"""A folder of shards under everything that happens to folders: damage, kills, others who write, pack and remove."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finetune.cache import folder as folder_module
from finetune.cache.folder import ShardFolder
from tests.finetune.cache.filling import key_of, value_of
from tests.jobs.conftest import child_environment

SCRIPT = Path(__file__).parent / "filling.py"


def _open(path, warnings=None):
    return ShardFolder(path, (lambda message: pytest.fail(message)) if warnings is None else warnings.append)


def _filled(path, numbers):
    store = _open(path)
    for number in numbers:
        store.put(key_of(number), value_of(number))
    store.flush()
    return store


def _has(store, number):
    found = store.get(key_of(number))
    assert found is None or bytes(found.data) == value_of(number).data, "never a wrong value"
    return found is not None


def _shards(path):
    return sorted(path.glob("shard-*.safetensors"))


def _start(path, first, last, step=1, seconds=0.0):
    command = [sys.executable, str(SCRIPT), *map(str, (path, first, last, step, seconds))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=child_environment())


def test_values_are_found_before_and_after_they_are_written_and_by_others(tmp_path):
    store = _open(tmp_path / "latents")
    store.put(key_of(1), value_of(1))
    assert key_of(1) in store
    assert _has(store, 1)
    assert not _shards(tmp_path / "latents")
    assert not _has(_open(tmp_path / "latents"), 1)
    store.flush()
    assert _has(store, 1)
    assert _has(_open(tmp_path / "latents"), 1)
    assert store.get(key_of(2)) is None


def test_what_is_there_is_not_written_again(tmp_path):
    _filled(tmp_path, [1, 2])
    _filled(tmp_path, [2, 1])
    assert len(_shards(tmp_path)) == 1


@pytest.mark.parametrize(
    ("name", "limit", "expected"),
    [("SHARD_BYTES", 3 * (1 << 14), 3), ("SHARD_VALUES", 2, 2), ("FLUSH_SECONDS", 0.0, 1)],
)
def test_a_shard_is_written_when_enough_has_come_together(tmp_path, monkeypatch, name, limit, expected):
    monkeypatch.setattr(folder_module, name, limit)
    store = _open(tmp_path)
    for number in range(6):
        store.put(key_of(number), value_of(number))
    held = [len(index.places) for index in store.shards().values()]
    assert held == [expected] * (6 // expected)


def test_a_flipped_byte_costs_one_value_and_a_warning(tmp_path):
    _filled(tmp_path, range(4))
    [shard] = _shards(tmp_path)
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    warnings = []
    store = _open(tmp_path, warnings)
    assert [_has(store, number) for number in range(4)] == [True, True, True, False]
    assert len(warnings) == 1
    assert shard.name in warnings[0]
    assert "1 of its 4 values" in warnings[0]
    assert key_of(3) not in store
    store.put(key_of(3), value_of(3))
    store.flush()
    assert shard not in _shards(tmp_path), "the damaged file is gone"
    mended = _open(tmp_path)
    assert all(_has(mended, number) for number in range(4))


@pytest.mark.parametrize("left", [0, 7, 100, -1])
def test_a_shard_cut_short_is_removed_with_a_warning(tmp_path, left):
    _filled(tmp_path, range(2))
    _filled(tmp_path, range(2, 4))
    shard = next(path for path in _shards(tmp_path) if key_of(0) in _open(tmp_path).shards()[path].places)
    shard.write_bytes(shard.read_bytes()[:left])
    warnings = []
    store = _open(tmp_path, warnings)
    assert len(warnings) == 1
    assert shard.name in warnings[0]
    assert not shard.exists()
    assert [_has(store, number) for number in range(4)] == [False, False, True, True]


def test_a_shard_cut_short_while_it_is_read_from(tmp_path):
    store = _filled(tmp_path, range(4))
    warnings = []
    store._warn = warnings.append
    assert _has(store, 0)
    [shard] = _shards(tmp_path)
    os.truncate(shard, shard.stat().st_size // 2)
    assert not _has(store, 3)
    assert "damaged" in warnings[0]
    assert not shard.exists()


def test_a_newer_versions_shard_is_left_alone(tmp_path):
    _filled(tmp_path, [1])
    [shard] = _shards(tmp_path)
    newer = shard.read_bytes().replace(b"atelier-cache-1", b"atelier-cache-9")
    shard.write_bytes(newer)
    store = _open(tmp_path)
    assert not _has(store, 1)
    store.put(key_of(1), value_of(1))
    store.flush()
    assert shard.read_bytes() == newer


def test_what_others_write_is_seen_after_a_look(tmp_path):
    mine, theirs = _open(tmp_path), _open(tmp_path)
    theirs.put(key_of(1), value_of(1))
    theirs.flush()
    assert not _has(mine, 1)
    mine.refresh()
    assert _has(mine, 1)


def test_what_others_pack_anew_or_remove_under_a_reader(tmp_path):
    _filled(tmp_path, range(4))
    reader, packer = _open(tmp_path), _open(tmp_path)
    [shard] = _shards(tmp_path)
    packer.repack(shard, {key_of(1), key_of(2)})
    assert not shard.exists()
    assert [_has(reader, number) for number in range(4)] == [False, True, True, False]
    [shard] = _shards(tmp_path)
    assert _has(reader, 1)  # it is mapped now
    packer.repack(shard, {})
    assert not _shards(tmp_path)
    assert _has(reader, 2), "what is mapped can be read to the end"
    assert not _has(_open(tmp_path), 2)


def test_a_value_that_two_wrote_outlives_one_of_its_shards(tmp_path):
    one, other = _open(tmp_path), _open(tmp_path)
    for store in (one, other):
        store.put(key_of(1), value_of(1))
        store.flush()
    both = _open(tmp_path)
    assert len(both.shards()) == 2
    for shard in list(both.shards()):
        assert _has(both, 1)
        both.repack(shard, {})
    assert not _has(both, 1)


def test_only_old_leftovers_are_removed(tmp_path):
    _filled(tmp_path, [1])
    old, young, other = tmp_path / ".shard-a.tmp", tmp_path / ".shard-b.tmp", tmp_path / "notes.tmp"
    for path in (old, young, other):
        path.write_bytes(b"12345")
    for path in (old, other):
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    assert _open(tmp_path).remove_leftovers() == 5
    assert not old.exists()
    assert young.exists()
    assert other.exists()


def test_a_killed_build_goes_on_where_it_stopped(tmp_path):
    """Killed at random times, writes included: nothing is damaged, nothing wrong, nothing that was written is lost."""
    draws, made = random.Random(0), 0
    for _ in range(6):
        process = _start(tmp_path, 0, 1000, seconds=0.005)
        _wait_for_more_than(tmp_path, len(_shards(tmp_path)))
        time.sleep(draws.uniform(0.0, 0.2))
        process.kill()
        process.communicate()
        store = _open(tmp_path)  # a damaged shard would fail here
        there = [number for number in range(1000) if _has(store, number)]
        assert there == list(range(len(there))), "what was made first was kept first"
        assert len(there) > made
        made = len(there)
    assert made < 1000
    process = _start(tmp_path, 0, 1000)
    output, _ = process.communicate(timeout=60)
    assert output == f"{1000 - made}\n", "exactly what was missing"
    store = _open(tmp_path)
    assert all(_has(store, number) for number in range(1000))


def _wait_for_more_than(path, count):
    patience = time.monotonic() + 60.0
    while len(_shards(path)) <= count:
        assert time.monotonic() < patience, "the build does not get on"
        time.sleep(0.005)


def test_processes_that_fill_one_folder_at_once(tmp_path):
    """Two that share the work and two that do all of it."""
    processes = [
        _start(tmp_path, 0, 60, 2),
        _start(tmp_path, 1, 60, 2),
        _start(tmp_path, 0, 60),
        _start(tmp_path, 0, 60),
    ]
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
    store = _open(tmp_path)
    assert all(_has(store, number) for number in range(60))
    assert not list(tmp_path.glob("*.tmp"))
