"""One matrix of properties over every optimizer of the registry."""

import sys

import pytest
import torch
from torch import nn

from finetune.errors import RecipeError
from finetune.recipe.training import (
    AdafactorOptimizer,
    AdamW8bitOptimizer,
    AdamWOptimizer,
    AutoOptimizer,
    PagedAdamW8bitOptimizer,
    ProdigyOptimizer,
)
from finetune.training.checkpoint import apply_checkpoint, load_checkpoint, save_checkpoint
from finetune.training.optimizers import OPTIMIZERS, build_optimizer, optimizer_kind

_SETTINGS = {
    settings.kind: settings
    for settings in (
        AdamWOptimizer(weight_decay=0.0),
        AdamW8bitOptimizer(weight_decay=0.0),
        PagedAdamW8bitOptimizer(weight_decay=0.0),
        AdafactorOptimizer(),
        ProdigyOptimizer(weight_decay=0.0),
    )
}
_PAGED_ON_CPU = "ignore:Paged optimizers are not supported on CPU:UserWarning"
_MATRIX = [
    pytest.param(kind, marks=pytest.mark.filterwarnings(_PAGED_ON_CPU) if kind == "paged_adamw8bit" else ())
    for kind in OPTIMIZERS
]


class Quadratic:
    """Two groups of parameters and their distance to a target.

    One is large enough for 8-bit state (4,096 values), which small tensors do not get.
    """

    def __init__(self, kind: str) -> None:
        generator = torch.Generator().manual_seed(0)
        shapes = {"large": (64, 96), "small": (3, 5), "text": (8,)}
        self.parameters = {name: nn.Parameter(torch.randn(s, generator=generator)) for name, s in shapes.items()}
        self.target = {name: torch.randn(s, generator=generator) for name, s in shapes.items()}
        rate = 1.0 if kind == "prodigy" else 0.02
        groups = [
            {"name": "unet", "lr": rate, "params": [self.parameters["large"], self.parameters["small"]]},
            {"name": "text_encoder", "lr": rate, "params": [self.parameters["text"]]},
        ]
        self.optimizer = build_optimizer(kind, groups, _SETTINGS[kind])

    def step(self) -> float:
        loss = sum(((value - self.target[name]) ** 2).mean() for name, value in self.parameters.items())
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def test_every_optimizer_has_settings_here():
    assert set(_SETTINGS) == set(OPTIMIZERS)


@pytest.mark.parametrize("kind", _MATRIX)
def test_lowers_a_quadratic(kind):
    problem = Quadratic(kind)
    # Prodigy begins with a step of a millionth and takes its time to find the right one.
    losses = [problem.step() for _ in range(400 if kind == "prodigy" else 60)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("kind", _MATRIX)
def test_goes_on_bit_for_bit_after_a_checkpoint(kind, tmp_path):
    straight = Quadratic(kind)
    for _ in range(4):
        straight.step()
    folder = tmp_path / "step-000004"
    save_checkpoint(folder, 4, straight.parameters, straight.optimizer, {})
    resumed, forgetful = Quadratic(kind), Quadratic(kind)
    apply_checkpoint(load_checkpoint(folder), resumed.parameters, resumed.optimizer)
    with torch.no_grad():
        for name, parameter in forgetful.parameters.items():
            parameter.copy_(straight.parameters[name])
    for problem in (straight, resumed, forgetful):
        problem.losses = [problem.step() for _ in range(3)]
    assert resumed.losses == straight.losses
    for name, parameter in straight.parameters.items():
        assert torch.equal(parameter, resumed.parameters[name]), name
    # The optimizer's state mattered, or the test proves nothing.
    assert not torch.equal(straight.parameters["large"], forgetful.parameters["large"])


@pytest.mark.parametrize("kind", _MATRIX)
def test_a_resumed_optimizer_saves_the_same_checkpoint_again(kind, tmp_path):
    problem = Quadratic(kind)
    for _ in range(3):
        problem.step()
    save_checkpoint(tmp_path / "step-000003", 3, problem.parameters, problem.optimizer, {})
    resumed = Quadratic(kind)
    apply_checkpoint(load_checkpoint(tmp_path / "step-000003"), resumed.parameters, resumed.optimizer)
    save_checkpoint(tmp_path / "again-000003", 3, resumed.parameters, resumed.optimizer, {})
    for name in ("adapter.safetensors", "optimizer.safetensors", "state.json"):
        assert (tmp_path / "step-000003" / name).read_bytes() == (tmp_path / "again-000003" / name).read_bytes()


def test_eight_bit_state_is_eight_bits():
    for kind, expected in (("adamw8bit", torch.uint8), ("adamw", torch.float32)):
        problem = Quadratic(kind)
        problem.step()
        state = problem.optimizer.state[problem.parameters["large"]]
        moments = [value for value in state.values() if torch.is_tensor(value) and value.numel() == 64 * 96]
        assert {value.dtype for value in moments} == {expected}
        assert len(moments) == 2


def test_settings_reach_the_optimizer():
    groups = [{"name": "unet", "lr": 0.25, "params": [nn.Parameter(torch.zeros(2))]}]
    built = build_optimizer("adamw", groups, AdamWOptimizer(betas=(0.5, 0.7), eps=1e-3, weight_decay=0.125))
    (group,) = built.param_groups
    assert (group["betas"], group["eps"], group["weight_decay"], group["lr"]) == ((0.5, 0.7), 1e-3, 0.125, 0.25)


def test_auto_is_eight_bit_on_cuda_and_fused_adamw_elsewhere():
    assert optimizer_kind(AutoOptimizer(), torch.device("cuda")) == "adamw8bit"
    assert optimizer_kind(AutoOptimizer(), torch.device("cpu")) == "adamw"
    assert optimizer_kind(ProdigyOptimizer(), torch.device("cuda")) == "prodigy"
    groups = [{"name": "unet", "lr": 0.1, "params": [nn.Parameter(torch.zeros(2))]}]
    assert build_optimizer("adamw", groups, AutoOptimizer()).param_groups[0]["fused"]


@pytest.mark.parametrize(
    ("kind", "package"),
    [("prodigy", "prodigyopt"), ("adamw8bit", "bitsandbytes"), ("paged_adamw8bit", "bitsandbytes")],
)
def test_a_missing_library_is_named_with_what_installs_it(kind, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.optim", None)
    with pytest.raises(RecipeError, match=f"pip install {package}.*adafactor") as caught:
        Quadratic(kind)
    assert f"training.optimizer.kind: {kind} needs" in str(caught.value)


def test_prodigy_needs_one_learning_rate():
    groups = [
        {"name": name, "lr": rate, "params": [nn.Parameter(torch.zeros(2))]}
        for name, rate in (("unet", 1.0), ("text_encoder", 5e-5))
    ]
    with pytest.raises(RecipeError) as caught:
        build_optimizer("prodigy", groups, ProdigyOptimizer())
    assert "got unet 1, text_encoder 5e-05" in str(caught.value)
    assert "adapter.unet.learning_rate=1.0 adapter.text_encoder.learning_rate=1.0" in str(caught.value)


def test_prodigy_says_nothing_on_stdout(capsys):
    Quadratic("prodigy")
    assert capsys.readouterr().out == ""
