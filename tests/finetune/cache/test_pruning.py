"""Pruning removes what no record names, and nothing else; it says so first, and refuses where it cannot know."""

import os
import time

import pytest

from finetune.cache.folder import ShardFolder
from finetune.cache.place import locked
from finetune.cache.pruning import prune
from finetune.cache.uses import read_uses, record_use
from finetune.errors import AtelierError, RecipeError
from tests.finetune.cache.filling import VALUE_BYTES, key_of, value_of


@pytest.fixture
def cache(tmp_path):
    """Ten values in two stores; run 'one' asks for 0 to 3 and 8, run 'two' for 3 to 5. Nobody wants 6, 7 and 9."""
    folder = tmp_path / "_cache"
    with locked(folder):
        pass  # as every run that uses it
    for store, numbers in (("latents", (0, 1, 2, 3, 6)), ("latents", (4, 5, 7)), ("text", (8, 9))):
        shards = _open(folder, store)
        for number in numbers:
            shards.put(key_of(number), value_of(number))
        shards.flush()
    _use(tmp_path, "one", latents=(0, 1, 2, 3), text=(8,))
    _use(tmp_path, "two", latents=(3, 4, 5))
    return folder


def _open(folder, store):
    return ShardFolder(folder / store, lambda message: pytest.fail(message))


def _use(tmp_path, name, **numbers):
    keys = {store: [key_of(number) for number in own] for store, own in numbers.items()}
    record_use(tmp_path / "_cache", tmp_path / name, keys)


def _there(folder):
    """Return the numbers whose values are whole."""
    stores = [_open(folder, name) for name in ("latents", "text")]
    found = {n: store.get(key_of(n)) for n in range(10) for store in stores if key_of(n) in store}
    assert all(value is not None and bytes(value.data) == value_of(n).data for n, value in found.items())
    return sorted(found)


def _sizes(folder):
    return {path: path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def _prune(folder, forget=(), *, dry_run=False):
    return prune(folder, forget, dry_run=dry_run, warn=lambda message: pytest.fail(message))


def test_what_nobody_asks_for_goes_and_all_else_stays(cache):
    before = sum(_sizes(cache).values())
    found = _prune(cache)
    assert _there(cache) == [0, 1, 2, 3, 4, 5, 8]
    assert found.unused_values == {"latents": 2, "masks": 0, "text": 1}
    assert found.unused_bytes == 3 * VALUE_BYTES
    assert found.freed_bytes == before - sum(_sizes(cache).values()) > 3 * VALUE_BYTES
    again = _prune(cache)
    assert again.unused_values == {"latents": 0, "masks": 0, "text": 0}
    assert again.freed_bytes == 0


def test_a_dry_run_says_the_same_and_touches_nothing(cache):
    before = _sizes(cache)
    said = _prune(cache, ["two"], dry_run=True)
    assert _sizes(cache) == before
    done = _prune(cache, ["two"])
    assert (said.unused_values, said.unused_bytes, said.users) == (done.unused_values, done.unused_bytes, done.users)
    assert said.freed_bytes == 0 < done.freed_bytes


def test_who_uses_it_is_listed_with_what_it_takes(cache, tmp_path):
    users = {size.use.name: size for size in _prune(cache, dry_run=True).users}
    assert users.keys() == {"one", "two"}
    assert (users["one"].num_values, users["one"].num_bytes) == (5, 5 * VALUE_BYTES)
    assert users["two"].num_values == 3, "a shared value counts for each"
    assert users["one"].use.run == str(tmp_path / "one")
    assert abs(users["one"].use.seconds - time.time()) < 60


def test_a_forgotten_run_lets_go_of_what_it_alone_asked_for(cache):
    found = _prune(cache, ["one"])
    assert [size.forgotten for size in sorted(found.users, key=lambda size: size.use.name)] == [True, False]
    assert _there(cache) == [3, 4, 5]
    assert [use.name for use in read_uses(cache)] == ["two"]


def test_a_run_prepared_again_lets_go_of_what_it_no_longer_asks_for(cache, tmp_path):
    _use(tmp_path, "one", latents=(0, 6), text=(9,))
    _prune(cache)
    assert _there(cache) == [0, 3, 4, 5, 6, 9]


def test_two_runs_of_one_name_in_two_places_are_two(cache, tmp_path):
    record_use(cache, tmp_path / "elsewhere" / "one", {"latents": [key_of(7)]})
    _prune(cache)
    assert _there(cache) == [0, 1, 2, 3, 4, 5, 7, 8]


def test_nothing_known_means_nothing_removed(cache):
    for record in (cache / "users").iterdir():
        record.unlink()
    before = _sizes(cache)
    with pytest.raises(RecipeError, match=r"no recipe is known to use this cache.*atelier data cache --prune RECIPE"):
        _prune(cache)
    assert _sizes(cache) == before


@pytest.mark.parametrize("content", ["", "[]", '{"name": "one", "run": "x", "seconds": 1, "keys": ["a"]}', "{"])
def test_a_record_that_cannot_be_read_means_nothing_removed(cache, content):
    record = next((cache / "users").glob("one-*.json"))
    record.write_text(content)
    before = _sizes(cache)
    with pytest.raises(AtelierError, match=r"one-.*\.json cannot be read.*Nothing was removed"):
        _prune(cache)
    assert _sizes(cache) == before


def test_a_wrong_name_to_forget_is_named_and_nothing_happens(cache):
    before = _sizes(cache)
    with pytest.raises(RecipeError, match=r"--forget: three never used .*Known: one, two"):
        _prune(cache, ["one", "three"])
    assert _sizes(cache) == before


def test_a_folder_without_a_cache_is_left_alone(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(RecipeError, match="holds no cache"):
        _prune(tmp_path / "pictures")
    assert not list((tmp_path / "pictures").iterdir())


def test_others_files_stay_and_old_leftovers_go(cache):
    notes = cache / "latents" / "notes.txt"
    notes.write_text("mine")
    left = cache / "text" / ".shard-x.tmp"
    left.write_bytes(bytes(1000))
    os.utime(left, (time.time() - 7200, time.time() - 7200))
    shards_before = sum(size for path, size in _sizes(cache).items() if path.suffix == ".safetensors")
    found = _prune(cache)
    shards = sum(size for path, size in _sizes(cache).items() if path.suffix == ".safetensors")
    assert notes.read_text() == "mine"
    assert not left.exists()
    assert found.freed_bytes == shards_before - shards + 1000


def test_a_full_disk_in_the_middle_loses_nothing_that_is_asked_for(cache, monkeypatch):
    from finetune.cache import folder as folder_module
    from finetune.errors import DiskError

    def full(*_):
        raise DiskError("the disk is full")

    monkeypatch.setattr(folder_module, "write_shard", full)
    with pytest.raises(DiskError):
        _prune(cache)
    assert set(_there(cache)) >= {0, 1, 2, 3, 4, 5, 8}
