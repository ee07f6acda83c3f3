"""Checkpoints are whole or absent: torn ones are found, the newest whole one is used, nothing is a pickle."""

import json
import shutil

import pytest
import safetensors
import torch
from torch import nn

from finetune.errors import AtelierError, DiskError
from finetune.training import checkpoint as checkpoint_module
from finetune.training.checkpoint import (
    DamagedCheckpointError,
    apply_checkpoint,
    list_checkpoints,
    load_checkpoint,
    newest_whole_checkpoint,
    remove_old_checkpoints,
    save_checkpoint,
)
from finetune.training.loop import optimizer_step

_FILES = ("adapter.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


class Run:
    """Two parameters and an optimizer that move a little at each step."""

    def __init__(self):
        self.parameters = {"unet.a": nn.Parameter(torch.ones(4, 3)), "unet.b": nn.Parameter(torch.zeros(5))}
        group = {"params": list(self.parameters.values()), "name": "unet", "lr": 0.1}
        self.optimizer = torch.optim.AdamW([group])
        self.step = 0

    def train(self):
        for parameter in self.parameters.values():
            parameter.grad = torch.full_like(parameter, 1.0 + self.step)
        self.optimizer.step()
        self.step += 1

    def save(self, checkpoints):
        folder = checkpoints / f"step-{self.step:06d}"
        save_checkpoint(folder, self.step, self.parameters, self.optimizer, {"note": self.step})
        return folder


@pytest.fixture
def three(tmp_path):
    """Return a folder with checkpoints of steps 1, 2 and 3."""
    run, checkpoints = Run(), tmp_path / "checkpoints"
    for _ in range(3):
        run.train()
        run.save(checkpoints)
    return checkpoints


def test_what_is_saved_comes_back(tmp_path):
    run = Run()
    run.train()
    found = load_checkpoint(run.save(tmp_path))
    assert found.step == 1
    assert found.extra == {"note": 1}
    for name, parameter in run.parameters.items():
        assert torch.equal(found.parameters[name], parameter)
        assert torch.equal(found.optimizer[name]["exp_avg"], run.optimizer.state[parameter]["exp_avg"])
    assert sorted(path.name for path in (tmp_path / "step-000001").iterdir()) == sorted(_FILES)


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _cut_last_byte(path):
    path.write_bytes(path.read_bytes()[:-1])


def _empty(path):
    path.write_bytes(b"")


def _remove(path):
    path.unlink()


def _flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 1
    path.write_bytes(content)


def _swap_for_the_older_one(path):
    shutil.copyfile(path.parent.parent / "step-000002" / path.name, path)


def _append(path):
    path.write_bytes(path.read_bytes() + b" ")


def _make_a_folder(path):
    path.unlink()
    path.mkdir()


_DAMAGES = [_cut, _cut_last_byte, _empty, _remove, _flip_a_bit, _swap_for_the_older_one, _append, _make_a_folder]


_CASES = [
    pytest.param(damage, file, id=f"{damage.__name__.strip('_')}-{file}")
    for damage in _DAMAGES
    for file in _FILES
    # white space at the end of the manifest says nothing
    if not (file == "manifest.json" and damage in {_append, _cut_last_byte})
]


@pytest.mark.parametrize(("damage", "file"), _CASES)
def test_a_torn_checkpoint_is_found_and_the_one_before_is_used(three, damage, file):
    damage(three / "step-000003" / file)
    with pytest.raises(DamagedCheckpointError):
        load_checkpoint(three / "step-000003")
    newest, damaged = newest_whole_checkpoint(three)
    assert newest is not None
    assert newest.step == 2
    assert len(damaged) == 1
    assert "step-000003" in damaged[0]


def test_two_torn_checkpoints_leave_the_third(three):
    _flip_a_bit(three / "step-000003" / "optimizer.safetensors")
    _remove(three / "step-000002" / "manifest.json")
    newest, damaged = newest_whole_checkpoint(three)
    assert newest is not None
    assert newest.step == 1
    assert ["step-000003" in damaged[0], "step-000002" in damaged[1]] == [True, True]


def test_no_whole_checkpoint_at_all(three):
    for folder in list_checkpoints(three):
        _empty(folder / "state.json")
    newest, damaged = newest_whole_checkpoint(three)
    assert newest is None
    assert len(damaged) == 3


def test_a_whole_checkpoint_under_another_steps_name_is_not_taken_for_it(three):
    """Swapped as a whole, each file fits its manifest; the step inside still says which it is."""
    shutil.rmtree(three / "step-000003")
    shutil.copytree(three / "step-000001", three / "step-000003")
    newest, damaged = newest_whole_checkpoint(three)
    assert newest is not None
    assert newest.step == 2
    assert "step-000003" in damaged[0]


@pytest.mark.parametrize("content", ["[]", "3", "null", '{"sha256": []}', '{"sha256": {}, "step": 3}', "\ud800"])
def test_a_manifest_of_another_form_is_damage(three, content):
    (three / "step-000003" / "manifest.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(DamagedCheckpointError):
        load_checkpoint(three / "step-000003")


@pytest.mark.parametrize("interrupted_at", range(1, 5))
def test_an_interrupted_save_leaves_the_older_one(three, monkeypatch, interrupted_at):
    """A save that dies before any of its renames leaves no folder that bears a checkpoint's name."""

    class DiedError(BaseException):
        pass

    calls = []
    run = Run()
    run.step = 3
    run.train()
    for name in ("_write_tensors", "write_json"):
        original = getattr(checkpoint_module, name)
        monkeypatch.setattr(checkpoint_module, name, _dying(name, calls, interrupted_at, original, DiedError))
    with pytest.raises(DiedError):
        run.save(three)
    monkeypatch.undo()
    assert len(calls) == interrupted_at
    assert [folder.name for folder in list_checkpoints(three)] == ["step-000001", "step-000002", "step-000003"]
    newest, damaged = newest_whole_checkpoint(three)
    assert newest is not None
    assert (newest.step, damaged) == (3, [])
    run.save(three)  # what was left behind is in nobody's way
    newest, _ = newest_whole_checkpoint(three)
    assert newest is not None
    assert newest.step == 4
    remove_old_checkpoints(three, 9, 4)
    assert not list(three.glob(".partial*"))


def _dying(name, calls, at, original, error):
    def call(*arguments, **keywords):
        calls.append(name)
        if len(calls) == at:
            raise error
        return original(*arguments, **keywords)

    return call


def test_a_full_disk_is_named_and_takes_nothing_along(three, monkeypatch):
    def full(*_arguments, **_keywords):
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint_module.safetensors.torch, "save_file", full)
    run = Run()
    run.step = 3
    run.train()
    with pytest.raises(DiskError):
        run.save(three)
    newest, damaged = newest_whole_checkpoint(three)
    assert newest is not None
    assert (newest.step, damaged) == (3, [])
    assert not list(three.glob(".partial*"))


@pytest.mark.parametrize(("keep", "left"), [(1, [3]), (2, [2, 3]), (3, [1, 2, 3]), (9, [1, 2, 3])])
def test_retention_removes_the_oldest(three, keep, left):
    remove_old_checkpoints(three, keep, 3)
    assert [int(folder.name[5:]) for folder in list_checkpoints(three)] == left
    assert all(load_checkpoint(folder) for folder in list_checkpoints(three))


def test_a_damaged_later_checkpoint_never_costs_the_one_just_written(three):
    (three / "step-000003" / "state.json").write_text("{}")
    remove_old_checkpoints(three, 1, written_step=2)  # after a resume from step 1 or 2
    newest, damaged = newest_whole_checkpoint(three)
    assert newest is not None
    assert (newest.step, len(damaged)) == (2, 1)


def test_checkpoints_are_ordered_by_number_not_by_name(tmp_path):
    for name in ("step-000009", "step-1000000", "step-000010", "step-x", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-000011").write_text("a file")
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["step-000009", "step-000010", "step-1000000"]


def test_saving_over_a_torn_one_mends_it_and_over_a_whole_one_changes_nothing(three):
    run = Run()
    run.train()
    folder = three / "step-000001"
    stamp = (folder / "state.json").stat().st_mtime_ns
    run.save(three)
    assert (folder / "state.json").stat().st_mtime_ns == stamp
    _empty(folder / "adapter.safetensors")
    run.save(three)
    assert load_checkpoint(folder).step == 1


def test_nothing_in_it_is_a_pickle(make_state, tmp_path):
    state = make_state()
    optimizer_step(state)
    folder = tmp_path / "step-000001"
    save_checkpoint(folder, 1, state.parameters, state.optimizer, {"scaler": state.scaler.state_dict()})
    for path in folder.iterdir():
        content = path.read_bytes()
        assert path.suffix in {".json", ".safetensors"}
        assert not content.startswith((b"\x80", b"PK"))  # pickle protocols 2 and up, torch's archives
        if path.suffix == ".json":
            json.loads(content)
        else:
            with safetensors.safe_open(path, framework="pt") as file:
                assert len(list(file.keys())) > 10


def test_another_adapters_checkpoint_is_refused(make_state, tmp_path):
    state = make_state()
    save_checkpoint(tmp_path / "step-000001", 1, state.parameters, state.optimizer, {})
    found = load_checkpoint(tmp_path / "step-000001")
    for settings in ({"adapter.unet": {"rank": 8}}, {"adapter.unet": {"rank": 4, "targets": ["to_q"]}}):
        other = make_state(settings)
        with pytest.raises(AtelierError, match="other modules or ranks"):
            apply_checkpoint(found, other.parameters, other.optimizer)


def test_a_run_goes_on_bit_for_bit(make_state, tmp_path, hash_tensors):
    """Two steps, a checkpoint, a state made anew, two more: as four in a row. Step 2 is not step 4."""
    settings = {
        "training.micro_batch_size": 1,
        "training.global_batch_size": 3,
        "training.caption_dropout": 0.3,
        "training.lr_schedule": {"kind": "cosine", "warmup_steps": 1},
        "adapter.unet": {"rank": 4, "dropout": 0.2},
        "adapter.text_encoder": {"rank": 2},
    }
    straight = make_state(settings)
    losses = [optimizer_step(straight).loss for _ in range(4)]
    first = make_state(settings)
    for _ in range(2):
        optimizer_step(first)
    save_checkpoint(tmp_path / "step-000002", 2, first.parameters, first.optimizer, {})
    second = make_state(settings)
    found = load_checkpoint(tmp_path / "step-000002")
    apply_checkpoint(found, second.parameters, second.optimizer)
    second.global_step = found.step
    assert hash_tensors(second.parameters) != hash_tensors(straight.parameters)
    assert [optimizer_step(second).loss for _ in range(2)] == losses[2:]
    assert hash_tensors(second.parameters) == hash_tensors(straight.parameters)
    for name, parameter in straight.parameters.items():
        mine, theirs = straight.optimizer.state[parameter], second.optimizer.state[second.parameters[name]]
        assert hash_tensors(mine) == hash_tensors(theirs)
