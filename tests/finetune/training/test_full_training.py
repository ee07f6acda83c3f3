"""Training whole models: only the named parts move, in float32, and a resume goes on bit for bit."""

import pytest
import torch
from safetensors import safe_open

from finetune.export.folder import export_folder
from finetune.model.files import DiffusersFolder
from finetune.model.miniature import Miniature
from finetune.training.checkpoint import load_checkpoint, save_checkpoint
from finetune.training.loop import optimizer_step
from finetune.training.trainer import restore_state

PARTS = ("unet", "text_encoder", "text_encoder_2")


def full(*parts, **settings):
    chosen = {part: ({"learning_rate": 1e-3} if part in parts else None) for part in PARTS}
    return {"adapter": {"kind": "full", **chosen}, **settings}


def models_of(state):
    """The live models by name; encoders only where one is trained."""
    stack = getattr(state.task.text, "_stack", None)
    encoders = {} if stack is None else {"text_encoder": stack.text_encoder, "text_encoder_2": stack.text_encoder_2}
    return {"unet": state.task.unet, **encoders}


@pytest.mark.parametrize("parts", [("unet",), ("text_encoder",), ("text_encoder_2",), ("unet", "text_encoder_2")])
def test_a_step_changes_the_named_parts_and_nothing_else(make_state, hash_tensors, parts):
    state = make_state(full(*parts))
    before = {name: hash_tensors(model.named_parameters()) for name, model in models_of(state).items()}
    assert set(state.groups) == set(parts)
    optimizer_step(state)
    for name, model in models_of(state).items():
        after = hash_tensors(model.named_parameters())
        if name in parts:
            moved = [key for key in after if after[key] != before[name][key]]
            assert len(moved) > 0.5 * len(after), name
        else:
            assert after == before[name], name


def test_every_weight_of_the_unet_is_trained(make_state, hash_tensors):
    state = make_state(full("unet"))
    assert len(state.parameters) == sum(1 for _ in state.task.unet.parameters())
    before = hash_tensors(state.parameters)
    optimizer_step(state)
    after = hash_tensors(state.parameters)
    assert [name for name in before if after[name] == before[name]] == []


def test_lower_precision_rules_the_arithmetic_and_not_the_weights(make_state):
    """The weights are the file's own in float32, not ones that went through bf16."""
    state = make_state(full("unet", "text_encoder", **{"training.precision": "bf16"}))
    files = Miniature()
    for name, model in (
        ("unet", files.load_unet(torch.float32)),
        ("text_encoder", files.load_text_encoder(torch.float32)),
    ):
        for key, value in model.named_parameters():
            assert state.parameters[f"{name}.{key}"].dtype == torch.float32
            assert torch.equal(state.parameters[f"{name}.{key}"], value)
    optimizer_step(state)
    assert all(parameter.isfinite().all() for parameter in state.parameters.values())


def test_weights_are_taken_out_of_the_file(make_state, tmp_path):
    """A mapped weight lies wherever its file has it; torch's own memory begins at multiples of 64 bytes."""
    [folder] = export_folder(Miniature(), {}, tmp_path / "model", precision="fp32")
    settings = full("unet", "text_encoder", model={"kind": "folder", "path": str(folder)})
    mapped = DiffusersFolder(folder).load_unet(torch.float32)
    assert any(parameter.data_ptr() % 64 for parameter in mapped.parameters()), "else this would prove nothing"
    assert not any(parameter.data_ptr() % 64 for parameter in make_state(settings).parameters.values())


def test_convolutions_lie_channels_last_in_the_unet_and_in_the_optimizer(make_state, tmp_path):
    state = make_state(full("unet"))
    optimizer_step(state)
    weight = state.parameters["unet.conv_in.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last)
    saved, fresh = save(state, tmp_path / "step-000001"), make_state(full("unet"))
    restore_state(fresh, load_checkpoint(saved))
    weight = fresh.parameters["unet.conv_in.weight"]
    moments = fresh.optimizer.state[weight]["exp_avg"]
    assert weight.stride() == moments.stride()
    assert moments.is_contiguous(memory_format=torch.channels_last)
    with safe_open(saved / "optimizer.safetensors", framework="pt") as file:
        assert torch.equal(moments, file.get_tensor("state/unet.conv_in.weight/exp_avg"))


@pytest.mark.parametrize("ema", [None, {"decay": 0.7}])
def test_a_resume_equals_an_uninterrupted_run(make_state, hash_tensors, tmp_path, ema):
    settings = full("unet", "text_encoder", **{"training.ema": ema, "training.caption_dropout": 0.5})
    whole = make_state(settings)
    for _ in range(2):
        optimizer_step(whole)
    folder = save(whole, tmp_path / "step-000002")
    resumed = make_state(settings)
    restore_state(resumed, load_checkpoint(folder))
    assert everything(resumed, hash_tensors) == everything(whole, hash_tensors)
    reports = [(optimizer_step(whole), optimizer_step(resumed)) for _ in range(2)]
    assert all(one.loss == other.loss and one.grad_norm == other.grad_norm for one, other in reports)
    assert everything(resumed, hash_tensors) == everything(whole, hash_tensors)


def test_a_part_stops_after_its_steps(make_state, hash_tensors):
    settings = full("unet", "text_encoder_2")
    settings["adapter"]["text_encoder_2"]["stop_after_steps"] = 1
    state = make_state(settings)
    optimizer_step(state)
    encoder, unet = (hash_tensors(state.groups[name].parameters()) for name in ("text_encoder_2", "unet"))
    optimizer_step(state)
    assert hash_tensors(state.groups["text_encoder_2"].parameters()) == encoder
    assert hash_tensors(state.groups["unet"].parameters()) != unet


def save(state, folder):
    extra = {"optimizer": state.optimizer_kind, "scaler": state.scaler.state_dict(), "skipped_in_a_row": 0}
    averages = None if state.ema is None else state.ema.averages
    save_checkpoint(folder, state.global_step, state.parameters, state.optimizer, extra, averages)
    return folder


def everything(state, hash_tensors):
    return (
        hash_tensors(state.parameters),
        [hash_tensors(values) for values in state.optimizer.state.values()],
        None if state.ema is None else hash_tensors(state.ema.averages),
        state.global_step,
    )
