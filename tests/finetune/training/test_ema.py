"""The average of the weights: its numbers, its place in a checkpoint, and that borrowing it leaves no trace."""

import pytest
import torch
from torch import nn

from finetune.errors import AtelierError, RecipeError
from finetune.training.checkpoint import DamagedCheckpointError, load_checkpoint, save_checkpoint
from finetune.training.ema import WeightAverage, decay_at
from finetune.training.loop import optimizer_step
from finetune.training.trainer import restore_state


@pytest.fixture
def parameters():
    generator = torch.Generator().manual_seed(3)
    shapes = {"a": (5, 3), "b": (7,), "c": (4, 2, 3, 3)}
    made = {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}
    made["c"].data = made["c"].data.contiguous(memory_format=torch.channels_last)
    return made


@pytest.mark.parametrize("decay", [0.5, 0.99, 0.9999])
def test_it_is_the_recurrence_in_float64(parameters, decay):
    average = WeightAverage(parameters, decay)
    reference = {name: value.detach().double().clone() for name, value in parameters.items()}
    generator = torch.Generator().manual_seed(4)
    for step in range(1, 60):
        for name, parameter in parameters.items():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
            kept = min(decay, (1 + step) / (10 + step))
            reference[name] = kept * reference[name] + (1 - kept) * parameter.detach().double()
        average.update(step)
    for name, value in reference.items():
        assert average.averages[name].dtype == torch.float32
        torch.testing.assert_close(average.averages[name].double(), value, rtol=1e-5, atol=1e-6)
        assert not torch.equal(average.averages[name], parameters[name])


def test_it_warms_up_as_a_function_of_the_step():
    assert decay_at(0.999, 1) == 2 / 11
    assert decay_at(0.999, 100) == 101 / 110
    assert decay_at(0.999, 100_000) == 0.999
    assert [decay_at(0.5, step) for step in range(1, 50)] == sorted(decay_at(0.5, step) for step in range(1, 50))


def test_borrowing_it_leaves_every_bit_and_place_as_it_was(parameters):
    average = WeightAverage(parameters, 0.9)
    for parameter in parameters.values():
        parameter.data += 1.0
    average.update(1)
    before = {name: (value.data_ptr(), value.detach().clone()) for name, value in parameters.items()}
    kept = {name: value.clone() for name, value in average.averages.items()}
    with average.applied():
        for name, parameter in parameters.items():
            assert torch.equal(parameter, kept[name])
    with pytest.raises(ZeroDivisionError), average.applied():
        _ = 1 / 0
    for name, parameter in parameters.items():
        assert parameter.data_ptr() == before[name][0]
        assert torch.equal(parameter, before[name][1])
        assert torch.equal(average.averages[name], kept[name])


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_training_never_sees_it(make_state, hash_tensors, kind):
    """With and without an average, and borrowed in between, the weights go the same way."""
    settings = {"adapter": {"kind": kind, "unet": {"learning_rate": 1e-3}}}
    plain, averaged = make_state(settings), make_state({**settings, "training.ema": {"decay": 0.9}})
    for _ in range(3):
        optimizer_step(plain)
        optimizer_step(averaged)
        with averaged.averaged():
            assert hash_tensors(averaged.parameters) != hash_tensors(plain.parameters)
    assert hash_tensors(averaged.parameters) == hash_tensors(plain.parameters)


def test_a_checkpoint_holds_it_and_its_hash(make_state, tmp_path):
    state = make_state({"training.ema": {"decay": 0.9}})
    optimizer_step(state)
    extra = {"optimizer": state.optimizer_kind, "scaler": state.scaler.state_dict(), "skipped_in_a_row": 0}
    folder = tmp_path / "step-000001"
    save_checkpoint(folder, 1, state.parameters, state.optimizer, extra, state.ema.averages)
    checkpoint = load_checkpoint(folder)
    assert checkpoint.averages is not None
    assert all(torch.equal(value, checkpoint.exported[name]) for name, value in state.ema.averages.items())
    assert not all(torch.equal(value, checkpoint.exported[name]) for name, value in state.parameters.items())
    content = bytearray((folder / "average.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "average.safetensors").write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match=r"average\.safetensors"):
        load_checkpoint(folder)


def test_a_checkpoint_without_one_loads_and_says_what_is_missing(make_state, tmp_path):
    state = make_state()
    optimizer_step(state)
    extra = {"optimizer": state.optimizer_kind, "scaler": state.scaler.state_dict(), "skipped_in_a_row": 0}
    save_checkpoint(tmp_path / "step-000001", 1, state.parameters, state.optimizer, extra)
    checkpoint = load_checkpoint(tmp_path / "step-000001")
    assert checkpoint.averages is None
    restore_state(make_state(), checkpoint)
    with pytest.raises(RecipeError, match="holds no averaged weights"):
        restore_state(make_state({"training.ema": {"decay": 0.9}}), checkpoint)


def test_averages_of_other_weights_are_refused(parameters):
    average = WeightAverage(parameters, 0.9)
    with pytest.raises(AtelierError, match="other parameters"):
        average.load({"a": torch.zeros(5, 3)})
