"""What precision and stopping adapters must not touch: the VAE, the loss scale, the schedule of previews."""

import pytest
import torch

from finetune.errors import RecipeError
from finetune.model.files import sampling_scheduler
from finetune.model.miniature import Miniature
from finetune.model.open import open_model
from finetune.recipe.schema import FolderModel
from finetune.training.gradients import make_scaler
from finetune.training.loop import optimizer_step


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_latents_are_the_same_bits_cached_or_encoded_at_every_step(make_state, precision):
    """Inside the step's autocast the VAE would run in fp16, where SDXL's overflows."""
    losses = [
        optimizer_step(make_state({"training.precision": precision, "training.cache_latents": cache})).per_sample
        for cache in ("always", "never")
    ]
    assert losses[0] == losses[1]


def test_fp16_goes_on_after_every_adapter_has_stopped(make_state, hash_tensors):
    state = make_state({"training.precision": "fp16", "adapter.unet.stop_after_steps": 1})
    optimizer_step(state)
    after_one = hash_tensors(state.parameters)
    report = optimizer_step(state)
    assert hash_tensors(state.parameters) == after_one
    assert (state.global_step, report.grad_norm, report.skipped) == (2, 0.0, False)


def test_the_loss_scale_is_ready_before_the_first_loss():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scaler = make_scaler(torch.device("cpu"), enabled=True)
    parameter.grad = torch.full((1,), scaler.get_scale())
    scaler.unscale_(optimizer)  # as in a process whose first step has no batch of its own
    assert parameter.grad.item() == 1.0


def test_previews_are_sampled_as_the_objective_trains():
    scheduler = sampling_scheduler(Miniature(), prediction_type="v_prediction", zero_terminal_snr=True)
    assert scheduler.config.prediction_type == "v_prediction"
    scheduler.set_timesteps(10)
    assert scheduler.timesteps[0] == 999, "sampling begins where there is only noise"
    assert scheduler.alphas_cumprod[-1] < 1e-6
    assert sampling_scheduler(Miniature()).config.prediction_type == "epsilon"


@pytest.mark.parametrize(("refiner", "words"), [(False, "model: this is a refiner"), (True, "refiner: this is a base")])
def test_a_model_in_the_others_place_is_refused(refiner, words):
    other = Miniature(refiner=not refiner).root
    with pytest.raises(RecipeError, match=words):
        open_model(FolderModel(kind="folder", path=str(other)), refiner=refiner)
