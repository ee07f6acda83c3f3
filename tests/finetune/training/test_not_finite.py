"""A number that is not finite stops before the optimizer, names the pictures, and changes nothing."""

import math

import pytest
import torch

from finetune.errors import DivergedError
from finetune.model.miniature import Miniature
from finetune.training.gradients import require_finite
from finetune.training.loop import MAX_SKIPPED_STEPS, optimizer_step

_TWO = {"training.micro_batch_size": 2, "training.global_batch_size": 2}


def _everything(state, hash_tensors):
    """Hash all that training can change."""
    parts = [hash_tensors(state.parameters), state.global_step]
    parts += [hash_tensors(values) for values in state.optimizer.state.values()]
    return parts


def _names(state, step):
    return [planned.sample.name for batch in state.pictures.batches_of(step) for planned in batch]


def _require_stop(state, hash_tensors, what):
    """Expect the next step to stop with nothing changed and exactly its pictures named."""
    before, names = _everything(state, hash_tensors), _names(state, state.global_step + 1)
    assert 0 < len(names) < 4
    with pytest.raises(DivergedError, match=what) as caught:
        optimizer_step(state)
    assert _everything(state, hash_tensors) == before
    for sample in state.pictures.samples:
        assert (sample.name in str(caught.value)) == (sample.name in names)
    return str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss(make_state, hash_tensors, value):
    state = make_state(_TWO)
    optimizer_step(state)
    original = state.task.unet.conv_out.bias.detach().clone()
    state.task.unet.conv_out.bias.data[0] = value
    message = _require_stop(state, hash_tensors, r"^step 2: the loss is (nan|inf)")
    assert "--resume" in message
    state.task.unet.conv_out.bias.data = original
    state.task.unet.zero_grad()
    optimizer_step(state)  # and nothing but the number itself was in the way


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_under_a_finite_loss(make_state, hash_tensors, value):
    state = make_state(_TWO)
    optimizer_step(state)
    parameter = list(state.parameters.values())[5]
    handle = parameter.register_hook(lambda gradient: torch.full_like(gradient, value))
    _require_stop(state, hash_tensors, r"^step 2: the gradient's norm is (nan|inf)")
    handle.remove()


def test_a_gradient_also_where_nothing_is_clipped(make_state, hash_tensors):
    state = make_state({**_TWO, "training.max_grad_norm": None})
    next(iter(state.parameters.values())).register_hook(lambda gradient: gradient * math.nan)
    _require_stop(state, hash_tensors, "gradient's norm is nan")


def test_a_weight_of_the_adapter(make_state, hash_tensors):
    state = make_state(_TWO)
    optimizer_step(state)
    with torch.no_grad():
        next(iter(state.parameters.values())).fill_(math.nan)
    _require_stop(state, hash_tensors, "the loss is nan")


class _BrokenVae(Miniature):
    def load_vae(self, dtype):
        vae = super().load_vae(dtype)
        vae.encoder.conv_out.bias.data.fill_(math.nan)
        return vae


@pytest.mark.parametrize("cache_latents", ["always", "never"])
def test_latents(make_state, monkeypatch, hash_tensors, cache_latents):
    """With a cache it shows before training, without one at the step that asks for the picture."""
    monkeypatch.setattr("finetune.training.components.open_model", lambda *_, **__: _BrokenVae())
    settings = {**_TWO, "training.cache_latents": cache_latents}
    if cache_latents == "always":
        with pytest.raises(
            DivergedError, match=r"^0\.png: the VAE encodes this picture to numbers that are not finite"
        ):
            make_state(settings)
        return
    state = make_state(settings)
    before = _everything(state, hash_tensors)
    with pytest.raises(DivergedError) as caught:
        optimizer_step(state)
    assert any(str(caught.value).startswith(name) for name in _names(state, 1))
    assert _everything(state, hash_tensors) == before


def test_many_pictures_are_named_up_to_a_point():
    names = [f"picture-{index}.png" for index in range(12)]
    with pytest.raises(DivergedError, match=r"picture-7\.png and 4 more") as caught:
        require_finite(math.nan, "loss", 3, names)
    assert "picture-8" not in str(caught.value)
    require_finite(0.0, "loss", 3, names)
    require_finite(-1e300, "loss", 3, names)


class TestFp16LossScale:
    """An overflow under fp16 is mended by a smaller scale: the step is skipped, not taken and not fatal."""

    def _state(self, make_state):
        state = make_state(_TWO)
        # fp32 arithmetic with fp16's loss scale: the scale's path, without CPU's slow half precision.
        state.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=True)
        return state

    def test_a_step_is_skipped_and_the_scale_halved(self, make_state, hash_tensors):
        state = self._state(make_state)
        optimizer_step(state)
        before = hash_tensors(state.parameters)
        handle = next(iter(state.parameters.values())).register_hook(lambda gradient: gradient * math.inf)
        report = optimizer_step(state)
        handle.remove()
        assert report.skipped
        assert state.global_step == 2
        assert state.scaler.get_scale() == 512.0
        assert hash_tensors(state.parameters) == before
        assert not optimizer_step(state).skipped
        assert hash_tensors(state.parameters) != before

    def test_the_scale_leaves_no_trace_in_the_update(self, make_state):
        plain, scaled = make_state(_TWO), self._state(make_state)
        for _ in range(2):
            assert optimizer_step(plain).grad_norm == pytest.approx(optimizer_step(scaled).grad_norm, rel=1e-4)
        for name, parameter in plain.parameters.items():
            torch.testing.assert_close(scaled.parameters[name], parameter, rtol=1e-3, atol=1e-5)

    def test_too_many_in_a_row_end_the_run(self, make_state, hash_tensors):
        state = self._state(make_state)
        before = hash_tensors(state.parameters)
        next(iter(state.parameters.values())).register_hook(lambda gradient: gradient * math.nan)
        state.skipped_in_a_row = MAX_SKIPPED_STEPS - 1
        assert optimizer_step(state).skipped
        with pytest.raises(DivergedError, match=f"{MAX_SKIPPED_STEPS + 1} times in a row.*bf16"):
            optimizer_step(state)
        assert hash_tensors(state.parameters) == before

    def test_a_recipe_in_fp16_scales(self, make_state):
        state = make_state({**_TWO, "training.precision": "fp16"})
        assert state.scaler.is_enabled()
        assert state.task.unet.conv_in.weight.dtype == torch.float16
        reports = [optimizer_step(state) for _ in range(2)]
        assert all(math.isfinite(report.loss) for report in reports)
        assert all(parameter.dtype == torch.float32 for parameter in state.parameters.values())
