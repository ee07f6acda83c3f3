"""Dropout by key: repeated by gradient checkpointing, new at each step, off outside training."""

import pytest
import torch

from finetune.adapters.dropout import DropoutKey, KeyedDropout
from finetune.adapters.lora import LoraSettings, inject_lora, lora_parameters


def _mask(key, name="unet.a", probability=0.25, shape=(64, 100)):
    return KeyedDropout(probability, name, key)(torch.ones(shape))


def test_drops_the_stated_share_and_keeps_the_mean():
    dropped = _mask(DropoutKey(0, 1, 0), shape=(200, 500))
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.005)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.01)


def test_the_mask_is_a_function_of_its_key():
    first = _mask(DropoutKey(1, 2, 3))
    torch.manual_seed(0)
    assert torch.equal(_mask(DropoutKey(1, 2, 3)), first)
    others = [
        _mask(DropoutKey(0, 2, 3)),
        _mask(DropoutKey(1, 3, 3)),
        _mask(DropoutKey(1, 2, 4)),
        _mask(DropoutKey(1, 2, 3), name="unet.b"),
    ]
    assert not any(torch.equal(other, first) for other in others)


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    _mask(DropoutKey())
    assert torch.equal(torch.get_rng_state(), state)


def test_it_is_off_outside_training():
    module = KeyedDropout(0.5, "a", DropoutKey()).eval()
    assert torch.equal(module(torch.ones(5, 5)), torch.ones(5, 5))


def _gradients(load, run, moved, checkpointing, global_step=1, dropout=0.3):
    unet, key = load(), DropoutKey(0, global_step, 0)
    inject_lora(unet, "unet", LoraSettings(4, 2.0, "attention+feedforward+convolutions", dropout=dropout), 0, key)
    moved(unet)
    unet.train()
    if checkpointing:
        unet.enable_gradient_checkpointing()
    calls = []
    for module in (unet.down_blocks[1].resnets[0], unet.mid_block.attentions[0].transformer_blocks[1]):
        module.register_forward_pre_hook(lambda *_: calls.append(1))
    run(unet).square().mean().backward()
    assert len(calls) == (4 if checkpointing else 2)  # both were run again, or the test proves nothing
    return {name: parameter.grad for name, parameter in lora_parameters(unet).items()}


def test_gradient_checkpointing_repeats_the_mask(load, run, moved):
    plain = _gradients(load, run, moved, checkpointing=False)
    again = _gradients(load, run, moved, checkpointing=True)
    largest = max(float(gradient.abs().max()) for gradient in plain.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=0, atol=1e-6 * largest)


def test_dropout_differs_by_step_and_matters(load, run, moved):
    first = _gradients(load, run, moved, checkpointing=False)
    for other in (
        _gradients(load, run, moved, checkpointing=False, global_step=2),
        _gradients(load, run, moved, checkpointing=False, dropout=0.0),
    ):
        share = [float((other[name] - first[name]).norm() / first[name].norm()) for name in first]
        assert min(share) > 1e-3
