"""Adapters of other kinds than LoRA in training: they learn, resume bit for bit, and are exported as their change."""

import pytest
import torch

from finetune.adapters.trained import trained_modules
from finetune.recipe.schema import SmallAdapter
from finetune.training.checkpoint import load_checkpoint, save_checkpoint
from finetune.training.loop import optimizer_step
from finetune.training.trainer import restore_state

UNET = {"rank": 3, "alpha": 2.0, "learning_rate": 1e-2, "dropout": 0.3, "targets": "attention+feedforward+convolutions"}
KINDS = {
    "pissa": {"kind": "lora", "init": "pissa"},
    "olora": {"kind": "lora", "init": "olora", "use_rslora": True},
    "loha": {"kind": "loha"},
    "lokr": {"kind": "lokr", "factor": 4},
}


def settings_of(kind):
    encoder = {"rank": 2, "learning_rate": 1e-2}
    return {"adapter": {**KINDS[kind], "unet": UNET, "text_encoder": encoder}}


def save(state, folder):
    extra = {"optimizer": state.optimizer_kind, "scaler": state.scaler.state_dict(), "skipped_in_a_row": 0}
    averages = None if state.ema is None else state.ema.averages
    save_checkpoint(folder, state.global_step, state.parameters, state.optimizer, extra, averages, state.initial)
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ema", [None, {"decay": 0.7}])
def test_a_resume_equals_an_uninterrupted_run(make_state, hash_tensors, tmp_path, kind, ema):
    settings = {**settings_of(kind), "training.ema": ema}
    whole = make_state(settings)
    optimizer_step(whole)
    folder = save(whole, tmp_path / "step-000001")
    resumed = make_state(settings)
    with torch.no_grad():  # another machine's decomposition may differ: where it began is the checkpoint's to say
        for buffer in resumed.initial.values():
            buffer.mul_(1.01)
    restore_state(resumed, load_checkpoint(folder))
    for _ in range(2):
        one, other = optimizer_step(whole), optimizer_step(resumed)
        assert (one.loss, one.grad_norm) == (other.loss, other.grad_norm)
    assert hash_tensors(whole.parameters | whole.initial) == hash_tensors(resumed.parameters | resumed.initial)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_alone_tells_what_was_learned(make_state, make_recipe, tmp_path, kind):
    """Without the model: every module, and a change of zero before the first step."""
    settings = settings_of(kind)
    state, adapter = make_state(settings), make_recipe(settings).adapter
    assert isinstance(adapter, SmallAdapter)
    started = trained_modules(load_checkpoint(save(state, tmp_path / "step-000000")).exported, adapter)
    optimizer_step(state)
    learned = trained_modules(load_checkpoint(save(state, tmp_path / "step-000001")).exported, adapter)
    num_modules = sum(group.num_modules() for group in state.groups.values())
    assert len(started) == len(learned) == num_modules
    largest = max(module.delta().abs().max() for module in started)
    assert largest < 1e-6
    # The last layer of the first encoder never takes part: its penultimate states are read.
    still = {module.module for module in learned if module.delta().abs().max() <= 10 * largest}
    assert {name.partition(".self_attn")[0].partition(".mlp")[0] for name in still} == {_last_layer(learned)}


def _last_layer(modules):
    layers = {int(name.split(".")[3]) for name in (m.module for m in modules) if name.startswith("text_model.")}
    return f"text_model.encoder.layers.{max(layers)}"


def test_a_checkpoint_that_began_elsewhere_is_refused(make_state, tmp_path):
    from finetune.errors import AtelierError

    folder = save(make_state(settings_of("pissa")), tmp_path / "step-000000")
    plain = make_state({"adapter": {"kind": "lora", "unet": UNET, "text_encoder": {"rank": 2, "learning_rate": 1e-2}}})
    with pytest.raises(AtelierError, match="other modules or ranks"):
        restore_state(plain, load_checkpoint(folder))
