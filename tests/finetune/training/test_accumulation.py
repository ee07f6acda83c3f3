"""A step's gradient is the mean over its samples, however it is cut into micro batches."""

import pytest
import torch
from PIL import Image

from finetune.training.loop import accumulate_gradients, optimizer_step


def _in_double(state):
    """Compute in float64: in float32 the miniature's gradients differ in the fourth digit with the batch's size."""
    state.task.unet.double()
    state.task.unet.register_forward_pre_hook(_widen, with_kwargs=True)
    return state


def _widen(_, arguments, named):
    return _as_double(arguments), _as_double(named)


def _as_double(value):
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: _as_double(item) for name, item in value.items()}
    return tuple(_as_double(item) for item in value) if isinstance(value, tuple) else value


def _with_both_factors(state):
    """Give the second LoRA factor values: from zero, the first would have no gradient to compare."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in state.parameters.items():
            if ".lora_B." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return state


def _gradients(state, step, batches=None):
    losses = accumulate_gradients(state, step, state.pictures.batches_of(step) if batches is None else batches)
    return losses, {name: parameter.grad.clone() for name, parameter in state.parameters.items()}


def _largest_difference(first, second):
    """Return the largest difference between gradients, as a share of the largest gradient."""
    largest = max(float(gradient.abs().max()) for gradient in first.values())
    assert largest > 1e-6
    return max(float((first[name] - second[name]).abs().max()) for name in first) / largest


def _cut(make_state, micro_batch_size, global_batch_size, **more):
    settings = {"training.micro_batch_size": micro_batch_size, "training.global_batch_size": global_batch_size}
    return _in_double(_with_both_factors(make_state({**settings, **more})))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_cut_into_micro_batches_changes_no_gradient(make_state, prediction_type):
    objective = {"prediction_type": prediction_type, "snr_gamma": 5.0, "noise_offset": 0.1}
    results = {}
    for micro in (1, 2, 4):
        state = _cut(make_state, micro, 4, **{"training.objective": objective, "training.caption_dropout": 0.5})
        batches = state.pictures.batches_of(1)
        assert [len(batch) for batch in batches] == [micro] * (4 // micro)
        results[micro] = _gradients(state, 1)
    losses, gradients = results[4]
    assert min(float(gradient.abs().max()) for gradient in gradients.values()) > 0
    for micro in (1, 2):
        assert sorted(results[micro][0].timesteps) == sorted(losses.timesteps)
        assert sorted(results[micro][0].weighted) == pytest.approx(sorted(losses.weighted), rel=1e-5)
        assert _largest_difference(gradients, results[micro][1]) < 1e-5


def test_a_sources_weight_multiplies_its_gradient_and_not_the_logged_loss(make_state, pictures_folder, tmp_path):
    others = tmp_path / "regularisation"
    others.mkdir()
    for index in range(2):
        Image.new("RGB", (40, 40), (index * 200, 30, 90)).save(others / f"{index}.png")
    results = []
    for own, weight in ((1.0, 0.0), (0.0, 1.0), (1.0, 0.25)):
        sources = [
            {"kind": "folder", "path": str(pictures_folder), "loss_weight": own},
            {"kind": "folder", "path": str(others), "loss_weight": weight},
        ]
        results.append(_gradients(_cut(make_state, 2, 6, **{"data.sources": sources}), 1))
    (losses, first), (other_losses, second), (both_losses, both) = results
    assert losses.weighted == pytest.approx(other_losses.weighted, rel=1e-12)
    assert losses.weighted == pytest.approx(both_losses.weighted, rel=1e-12)
    assert _largest_difference(first, second) > 0.1
    assert _largest_difference({name: first[name] + 0.25 * second[name] for name in first}, both) < 1e-6


def test_every_step_draws_anew(make_state):
    state = _cut(make_state, 4, 4)
    first, first_gradients = _gradients(state, 1)
    state.task.unet.zero_grad()
    second, second_gradients = _gradients(state, 2)
    assert sorted(first.timesteps) != sorted(second.timesteps)
    assert _largest_difference(first_gradients, second_gradients) > 0.01


def test_a_short_last_step_weighs_by_its_samples(make_state):
    """Four pictures at three a step: the second step has one, and moves the adapter by a third of its gradient."""
    state = _cut(make_state, 1, 3)
    assert state.pictures.steps_per_epoch == 2
    batches = state.pictures.batches_of(2)
    assert [len(batch) for batch in batches] == [1]
    _, short = _gradients(state, 2)
    _, alone = _gradients(_cut(make_state, 1, 1), 2, batches)
    assert _largest_difference({name: gradient / 3 for name, gradient in alone.items()}, short) < 1e-5


def test_each_sample_of_an_epoch_counts_once(make_state):
    """The gradients of an epoch's steps, a short one among them, sum to those of one step over all pictures."""
    state = _cut(make_state, 1, 3)
    # All at step 1, so that the draws are the same; at step 1 of the whole batch they are keyed alike.
    _gradients(state, 1, state.pictures.batches_of(1))
    _, in_two = _gradients(state, 1, state.pictures.batches_of(2))
    _, at_once = _gradients(_cut(make_state, 4, 4), 1)
    assert _largest_difference({name: gradient * 4 / 3 for name, gradient in at_once.items()}, in_two) < 1e-5


def test_the_reported_loss_is_the_mean_over_the_samples_there_were(make_state):
    state = _cut(make_state, 1, 3)
    full, short = optimizer_step(state), optimizer_step(state)
    assert (full.num_samples, short.num_samples) == (3, 1)
    assert full.loss == pytest.approx(sum(full.per_sample) / 3, rel=1e-6)
    assert short.loss == pytest.approx(short.per_sample[0], rel=1e-6)


def test_clipping_shortens_the_whole_gradient_to_the_norm(make_state):
    """With plain descent the change is the gradient, so its length shows whether it was clipped."""
    state = _cut(make_state, 4, 4, **{"training.max_grad_norm": 1e-3, "adapter.unet": {"rank": 4, "learning_rate": 1}})
    state.optimizer = torch.optim.SGD([{"params": list(state.parameters.values()), "name": "unet"}], lr=1.0)
    before = {name: parameter.detach().clone() for name, parameter in state.parameters.items()}
    report = optimizer_step(state)
    moved = torch.cat([(parameter.detach() - before[name]).flatten() for name, parameter in state.parameters.items()])
    assert report.grad_norm > 2e-3  # reported as it was before
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-2)


def test_an_adapter_stops_after_its_last_step(make_state, hash_tensors):
    state = make_state({"adapter.text_encoder": {"rank": 2, "learning_rate": 1e-3, "stop_after_steps": 2}})
    seen = []
    for _ in range(4):
        optimizer_step(state)
        seen.append({name: hash_tensors(group.parameters()) for name, group in state.groups.items()})
    assert seen[0]["text_encoder"] != seen[1]["text_encoder"]
    assert seen[1]["text_encoder"] == seen[2]["text_encoder"] == seen[3]["text_encoder"]
    assert seen[1]["unet"] != seen[2]["unet"] != seen[3]["unet"]
