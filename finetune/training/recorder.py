"""What happens around the steps: events, commands, previews, checkpoints. Only the main process writes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from finetune.cache.together import any_process
from finetune.recipe.outputs import Checkpoint as CheckpointSettings
from finetune.recipe.preview import Preview as PreviewSettings
from finetune.run.commands import finish_command, poll_commands
from finetune.run.events import Event, EventLog
from finetune.run.folder import RunFolder
from finetune.training.checkpoint import remove_old_checkpoints, save_checkpoint
from finetune.training.loop import StepReport, Task, TrainingState
from finetune.training.signals import StopRequest

Listener = Callable[[Event], None]
"""Called with every event that is written: the terminal, a tracker."""


@dataclass
class Recorder:
    """The hooks of a run on its main process.

    Attributes:
        run: its folder.
        log: its events.
        preview: when previews are due.
        checkpoint: when checkpoints are due and how many are kept.
        stop: who has asked to stop.
        draw: draws the previews of a step and returns the files, or None where there is nothing to draw.
        environment: versions and threads, saved with every checkpoint.
        inputs: hashes of the pictures' manifest and the model, saved with every checkpoint.
        listeners: see every event.
        saved_step: the step that was saved last.
    """

    run: RunFolder
    log: EventLog
    preview: PreviewSettings
    checkpoint: CheckpointSettings
    stop: StopRequest
    environment: dict[str, Any]
    inputs: dict[str, str] = field(default_factory=dict)
    draw: Callable[[Path, int], Sequence[Path]] | None = None
    listeners: list[Listener] = field(default_factory=list)
    saved_step: int | None = None

    def emit(self, kind: Any, step: int | None = None, **data: Any) -> None:
        """Write an event and tell the listeners."""
        event = self.log.emit(kind, step=step, **data)
        for listener in self.listeners:
            listener(event)

    def warn(self, message: str, step: int | None = None) -> None:
        """Write a warning in words."""
        self.emit("warning", step=step, message=message)

    def after_step(self, state: TrainingState[Task], report: StepReport) -> None:
        """Write the step's event."""
        self.emit(
            "step",
            step=state.global_step,
            loss=report.loss,
            learning_rates=report.learning_rates,
            grad_norm=report.grad_norm,
            epoch=state.pictures.epoch_of(state.global_step),
            samples=report.num_samples,
            timesteps=report.timesteps,
            per_sample=report.per_sample,
            seconds=round(report.seconds, 4),
            memory_bytes=memory_bytes(state.accelerator.device),
            **({} if report.prior_loss is None else {"prior_loss": report.prior_loss}),
        )
        if report.skipped:
            self.warn("fp16 gradients overflowed; the step was skipped and the loss scale halved", state.global_step)

    def carry_out_commands(self, state: TrainingState[Task]) -> None:
        """Do what waits in the commands folder, in its order."""
        for command in poll_commands(self.run, on_refused=lambda message: self.warn(message, state.global_step)):
            if command.kind == "save":
                self.save(state)
            elif command.kind == "preview":
                self.draw_previews(state)
            else:
                self.stop.by_command = True
            finish_command(self.run, command)
            self.emit("command_done", step=state.global_step, id=command.id, command=command.kind)

    def preview_if_due(self, state: TrainingState[Task]) -> None:
        """Draw at the recipe's interval and at the end."""
        if self.stop and state.global_step < state.total_steps:
            return  # whoever asked to stop waits for the save, not for pictures
        every = self.preview.every_steps
        if (every is not None and state.global_step % every == 0) or state.global_step == state.total_steps:
            self.draw_previews(state)

    def save_if_due(self, state: TrainingState[Task]) -> None:
        """Save at the recipe's interval, at the end, and when a stop was asked for."""
        every = self.checkpoint.every_steps
        due = every is not None and state.global_step % every == 0
        if due or state.global_step == state.total_steps or self.stop:
            self.save(state)

    def should_stop(self, state: TrainingState[Task]) -> bool:
        """Whether to stop after this step. All processes agree: each learns what any of them was asked.

        Who asked after this step was to be saved, as previews were drawn, or asked another process, finds it saved.
        """
        is_asked = any_process(state.accelerator, bool(self.stop))
        if is_asked and self.saved_step != state.global_step:
            self.save(state)
        return is_asked

    def save(self, state: TrainingState[Task]) -> None:
        """Write a checkpoint, then remove the oldest beyond those that are kept."""
        folder = self.run.checkpoint(state.global_step)
        extra = {
            "scaler": state.scaler.state_dict(),
            "environment": self.environment,
            **state.task.facts(),
            "optimizer": state.optimizer_kind,
            "skipped_in_a_row": state.skipped_in_a_row,
            "inputs": self.inputs,
            "pictures": state.pictures.place(),
            "num_modules": {group.component: group.num_modules() for group in state.groups.values()},
        }
        averages = None if state.ema is None else state.ema.averages
        save_checkpoint(folder, state.global_step, state.parameters, state.optimizer, extra, averages, state.initial)
        self.saved_step = state.global_step
        try:
            remove_old_checkpoints(self.run.checkpoints, self.checkpoint.keep, state.global_step)
        except OSError as error:
            self.warn(f"an older checkpoint could not be removed: {error}", state.global_step)
        self.emit("checkpoint", step=state.global_step, path=folder.relative_to(self.run.path).as_posix())

    def draw_previews(self, state: TrainingState[Task]) -> None:
        """Draw the previews of this step."""
        if self.draw is None:
            return
        self.emit("stage", step=state.global_step, name="previews", done=0, total=1)
        with state.averaged():
            paths = self.draw(self.run.preview(state.global_step), state.global_step)
        self.emit("stage", step=state.global_step, name="previews", done=1, total=1)
        pictures = [path.relative_to(self.run.path).as_posix() for path in paths]
        self.emit("preview", step=state.global_step, pictures=pictures)


class Follower:
    """The hooks of a process that is not the main one: it only learns when to stop."""

    def __init__(self, stop: StopRequest) -> None:
        self.stop = stop

    def after_step(self, state: TrainingState[Task], report: StepReport) -> None:
        """Write nothing."""

    def carry_out_commands(self, state: TrainingState[Task]) -> None:
        """Leave commands to the main process."""

    def preview_if_due(self, state: TrainingState[Task]) -> None:
        """Leave previews to the main process."""

    def save_if_due(self, state: TrainingState[Task]) -> None:
        """Leave checkpoints to the main process."""

    def should_stop(self, state: TrainingState[Task]) -> bool:
        """Learn whether any process was asked to stop."""
        return any_process(state.accelerator, bool(self.stop))


def memory_bytes(device: torch.device) -> int:
    """Return the most the device's allocator has held, or, on a CPU, what the process holds now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss
