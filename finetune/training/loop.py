"""The loop: batch, step, backward, finite?, clip, optimizer, schedule, events, commands, save?, preview?"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from finetune.adapters.dropout import DropoutKey
from finetune.errors import DivergedError
from finetune.training.ema import WeightAverage
from finetune.training.gradients import clip_gradients, gradient_norm, reduce_gradients, require_finite
from finetune.training.groups import TrainedGroup, all_parameters
from finetune.training.pictures import Pictures, PlannedSample
from finetune.training.randomness import BatchGenerator
from finetune.training.schedules import Schedule
from finetune.training.step import StepOutput

MAX_SKIPPED_STEPS = 20
"""How many steps in a row the fp16 loss scale may skip before the run counts as diverged."""


class Task(Protocol):
    """What is being taught: denoising, say. It turns a micro batch into a loss."""

    @property
    def has_prior(self) -> bool:
        """Whether its steps also measure how far the model is from its base."""
        ...

    def forward(
        self, planned: Sequence[PlannedSample], generator: BatchGenerator, weight: float, device: torch.device
    ) -> StepOutput:
        """Return the batch's loss with its graph, each sample counting `weight`."""
        ...

    def facts(self) -> dict[str, str]:
        """Return what a checkpoint has to say about the task, for whoever exports it."""
        ...


TaskT_co = TypeVar("TaskT_co", bound=Task, covariant=True)


@dataclass
class TrainingState(Generic[TaskT_co]):
    """Everything the loop works on. What changes: the trainable parameters, the optimizer, the loss scale, the step."""

    task: TaskT_co
    pictures: Pictures
    groups: dict[str, TrainedGroup]
    optimizer: Optimizer
    optimizer_kind: str
    schedule: Schedule
    accelerator: Accelerator
    autocast: Callable[[], AbstractContextManager[Any]]
    scaler: torch.amp.GradScaler
    dropout_key: DropoutKey
    max_grad_norm: float | None
    total_steps: int
    seed: int
    ema: WeightAverage | None = None
    global_step: int = 0
    skipped_in_a_row: int = 0
    parameters: dict[str, nn.Parameter] = field(init=False)
    initial: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = all_parameters(self.groups)
        self.initial = {name: buffer for group in self.groups.values() for name, buffer in group.initial().items()}

    def averaged(self) -> AbstractContextManager[None]:
        """Let the models hold the weights that are drawn with and exported inside the block: the averaged, if any."""
        return nullcontext() if self.ema is None else self.ema.applied()


@dataclass(frozen=True)
class StepReport:
    """What one optimizer step says for the log.

    Attributes:
        loss: mean over the step's samples, after the objective's weighting.
        timesteps: each local sample's noise level.
        per_sample: each local sample's unweighted error.
        prior_loss: mean over the step's samples of the distance from the base on class captions, after the objective's
            weighting; None where the base is not asked.
        num_samples: samples over all processes.
        grad_norm: before clipping.
        learning_rates: by group.
        skipped: whether the fp16 loss scale skipped the update.
        seconds: how long the step took.
    """

    loss: float
    timesteps: list[int]
    per_sample: list[float]
    num_samples: int
    grad_norm: float
    learning_rates: dict[str, float]
    skipped: bool
    seconds: float
    prior_loss: float | None = None


class Hooks(Protocol):
    """What happens around the steps: writing, drawing, listening."""

    def after_step(self, state: TrainingState[Task], report: StepReport) -> None:
        """Write the step's event."""
        ...

    def carry_out_commands(self, state: TrainingState[Task]) -> None:
        """Do what has been asked for since the last step."""
        ...

    def preview_if_due(self, state: TrainingState[Task]) -> None:
        """Draw the previews at their interval."""
        ...

    def save_if_due(self, state: TrainingState[Task]) -> None:
        """Save a checkpoint at its interval."""
        ...

    def should_stop(self, state: TrainingState[Task]) -> bool:
        """Whether any process has been asked to stop."""
        ...


def training_loop(state: TrainingState[Task], hooks: Hooks) -> bool:
    """Train until the last step; return False where a stop was asked for before it."""
    while state.global_step < state.total_steps:
        report = optimizer_step(state)
        hooks.after_step(state, report)
        hooks.carry_out_commands(state)
        hooks.save_if_due(state)
        hooks.preview_if_due(state)
        if hooks.should_stop(state):
            return state.global_step == state.total_steps
    return True


def optimizer_step(state: TrainingState[Task]) -> StepReport:
    """Take one optimizer step over all its micro batches and processes.

    Raises:
        DivergedError: a loss or the gradient is not finite; no parameter has changed.
    """
    started = time.perf_counter()
    step = state.global_step + 1
    batches = state.pictures.batches_of(step)
    num_samples = sum(len(batch) for batch in batches)
    names = [planned.sample.name for batch in batches for planned in batch]

    losses = accumulate_gradients(state, step, batches)
    parameters = list(state.parameters.values())
    reduce_gradients(state.accelerator, parameters)
    drop_stopped_gradients(state, step)
    learning_rates = set_learning_rates(state, step)
    grad_norm, skipped = update_parameters(state, step, names)
    state.optimizer.zero_grad(set_to_none=True)
    if state.ema is not None:
        state.ema.update(step)
    state.global_step = step
    return StepReport(
        loss=_mean(state, losses.weighted, num_samples),
        timesteps=losses.timesteps,
        per_sample=losses.per_sample,
        num_samples=num_samples,
        grad_norm=grad_norm,
        learning_rates=learning_rates,
        skipped=skipped,
        seconds=time.perf_counter() - started,
        prior_loss=_mean(state, losses.prior, num_samples) if state.task.has_prior else None,
    )


def update_parameters(state: TrainingState[Task], step: int, sample_names: Sequence[str]) -> tuple[float, bool]:
    """Check and clip the step's gradients and let the optimizer use them.

    Returns:
        The gradient's norm before clipping, and whether the fp16 loss scale skipped the update.

    Raises:
        DivergedError: the norm is not finite; no parameter has changed.
    """
    trained = [parameter for parameter in state.parameters.values() if parameter.grad is not None]
    if not trained:  # every adapter has passed its last step
        return 0.0, False
    state.scaler.unscale_(state.optimizer)
    norm = gradient_norm(trained)
    grad_norm = float(norm)
    skipped = _skipped_by_scaler(state, grad_norm, step)
    if not skipped:
        require_finite(grad_norm, "gradient's norm", step, sample_names)
        if state.max_grad_norm is not None:
            clip_gradients(trained, norm, state.max_grad_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return grad_norm, skipped


@dataclass
class SampleLosses:
    """The local samples' errors and noise levels, in the order they were seen; the prior's, where there is one."""

    weighted: list[float] = field(default_factory=list)
    prior: list[float] = field(default_factory=list)
    per_sample: list[float] = field(default_factory=list)
    timesteps: list[int] = field(default_factory=list)


def accumulate_gradients(
    state: TrainingState[Task], step: int, batches: Sequence[tuple[PlannedSample, ...]]
) -> SampleLosses:
    """Run this process's share of the step's micro batches forward and backward.

    Every sample's loss is divided by the nominal number of samples in a step, so each weighs the same however the
    step is cut into micro batches, and a short last step moves the adapter by as much as it has samples.
    """
    losses = SampleLosses()
    nominal = state.pictures.micro_batch_size * state.pictures.batches_per_step
    rank, processes = state.accelerator.process_index, state.accelerator.num_processes
    for index in range(rank, len(batches), processes):
        planned = batches[index]
        state.dropout_key.global_step, state.dropout_key.micro_batch = step, index
        generator = BatchGenerator(state.seed, step, [sample.key for sample in planned])
        with state.autocast():
            output = state.task.forward(planned, generator, 1.0 / nominal, state.accelerator.device)
        weighted = output.weighted.tolist()
        if processes == 1:  # else the others would wait: the sum of gradients tells all of them at once
            require_finite(sum(weighted), "loss", step, [item.sample.name for item in planned])
        state.scaler.scale(output.loss).backward()
        losses.weighted += weighted
        losses.per_sample += output.per_sample.tolist()
        losses.prior += [] if output.prior is None else output.prior.tolist()
        losses.timesteps += output.timesteps.tolist()
    return losses


def drop_stopped_gradients(state: TrainingState[Task], step: int) -> None:
    """Forget the gradients of adapters past their last step: the optimizer then leaves them as they are."""
    for group in state.groups.values():
        if not group.is_trained_at(step):
            for parameter in group.parameters().values():
                parameter.grad = None


def set_learning_rates(state: TrainingState[Task], step: int) -> dict[str, float]:
    """Set each group's learning rate for optimizer step `step`, from 1, and return them by name."""
    factor = state.schedule(step - 1)
    for group in state.optimizer.param_groups:
        group["lr"] = state.groups[group["name"]].learning_rate * factor
    return {group["name"]: group["lr"] for group in state.optimizer.param_groups}


def _skipped_by_scaler(state: TrainingState[Task], grad_norm: float, step: int) -> bool:
    """Tell an fp16 overflow, which the loss scale mends by skipping, from a divergence."""
    overflowed = state.scaler.is_enabled() and not torch.isfinite(torch.tensor(grad_norm))
    state.skipped_in_a_row = state.skipped_in_a_row + 1 if overflowed else 0
    if state.skipped_in_a_row > MAX_SKIPPED_STEPS:
        raise DivergedError(
            f"step {step}: gradients overflowed fp16 {state.skipped_in_a_row} times in a row, whatever the loss scale. "
            "Train in bf16, or lower the learning rate."
        )
    return bool(overflowed)


def _mean(state: TrainingState[Task], values: Sequence[float], num_samples: int) -> float:
    """Return the mean over a step's samples of what each process knows of its own."""
    return _sum_over_processes(state.accelerator, sum(values)) / num_samples


def _sum_over_processes(accelerator: Accelerator, value: float) -> float:
    if accelerator.num_processes == 1:
        return value
    summed: Tensor = accelerator.reduce(
        torch.tensor(float(value), device=accelerator.device),
        reduction="sum",  # an empty sum is a whole number
    )
    return float(summed)
