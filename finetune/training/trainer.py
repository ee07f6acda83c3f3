"""One run from a recipe and its pictures to exported files: everything around the loop, in the order it happens."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from finetune.errors import AtelierError, DiskError, OutOfMemoryError, RecipeError
from finetune.export.run_export import Exported
from finetune.model.open import open_model
from finetune.model.precision import choose_device
from finetune.recipe import Recipe, dump_recipe
from finetune.recipe.schema import FullTraining, SmallAdapter, VaeTraining
from finetune.run.commands import discard_commands
from finetune.run.durable import write_lines, write_text
from finetune.run.events import EventLog
from finetune.run.folder import RunFolder
from finetune.training.autoencoder_job import assemble_autoencoding
from finetune.training.checkpoint import Checkpoint, apply_checkpoint, newest_whole_checkpoint
from finetune.training.denoising_job import assemble_denoising
from finetune.training.environment import differences, differing, environment_of
from finetune.training.job import Job
from finetune.training.loop import Task, TrainingState, training_loop
from finetune.training.pictures import Pictures, TrainingPictures
from finetune.training.recorder import Follower, Listener, Recorder
from finetune.training.resume import require_same_training
from finetune.training.signals import StoppedEarlyError, StopRequest, stop_on_signals
from finetune.training.tracking import tracker_listener

_NOTHING = Exported(())


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        run: its folder.
        finished: whether the last step was taken.
        exit_code: 0, or 130 or 143 where a signal stopped it.
        exported: the files it wrote, where it finished, and what other programs make of them.
        is_main_process: whether this process is the one that wrote the run.
    """

    run: RunFolder
    finished: bool
    exit_code: int
    exported: Exported = _NOTHING
    is_main_process: bool = True

    @property
    def exports(self) -> tuple[Path, ...]:
        """The files it wrote, where it finished."""
        return self.exported.files


def train(
    recipe: Recipe, pictures: Pictures, *, resume: bool = False, listeners: Sequence[Listener] = ()
) -> TrainResult:
    """Train a recipe on its pictures into its run folder, or go on with what is there.

    Raises:
        AtelierError: whatever ends the run before its last step; the run folder says so too.
    """
    device = choose_device(recipe.training.device)
    # The other processes wait while the main one draws previews, which may take longer than the usual limit.
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=6))
    accelerator = Accelerator(cpu=device.type == "cpu", kwargs_handlers=[patience])
    with stop_on_signals() as stop:
        if not accelerator.is_main_process:
            return _train_as_follower(recipe, pictures, accelerator, stop, resume=resume)
        with _recording(recipe, accelerator, stop, listeners, resume=resume) as recorder:
            recorder.inputs = inputs_of(recipe, pictures)
            job = assemble(recipe, pictures, accelerator, recorder, stop)
            recorder.draw = job.draw
            _restore(recorder, job.state, resume=resume)
            return _run(recipe, pictures, job, recorder, stop)


def inputs_of(recipe: Recipe, pictures: Pictures) -> dict[str, str]:
    """Return a hash of the pictures with their captions and buckets, and the model's identity."""
    digest = hashlib.sha256()
    for line in pictures.lines():
        digest.update(line.encode("utf-8", "backslashreplace"))
    return {
        "pictures or captions": digest.hexdigest(),
        "model": open_model(recipe.model, refiner=None).identity(),
    }


def _train_as_follower(
    recipe: Recipe, pictures: Pictures, accelerator: Accelerator, stop: StopRequest, *, resume: bool
) -> TrainResult:
    """Take part in another process's run without writing."""
    run = RunFolder(Path(recipe.output_dir).expanduser() / recipe.name)
    accelerator.wait_for_everyone()
    state = assemble(recipe, pictures, accelerator, None, stop).state
    if resume:
        checkpoint, _ = newest_whole_checkpoint(run.checkpoints)
        if checkpoint is not None:
            restore_state(state, checkpoint)
    finished = training_loop(state, Follower(stop))
    return TrainResult(run, finished, stop.exit_code, is_main_process=False)


@contextmanager
def _recording(
    recipe: Recipe, accelerator: Accelerator, stop: StopRequest, listeners: Sequence[Listener], *, resume: bool
) -> Iterator[Recorder]:
    """Open the run folder and its log; whatever happens inside ends up in the log as the run's end."""
    path = Path(recipe.output_dir).expanduser() / recipe.name
    run = RunFolder.open(path) if resume else RunFolder.create(path)
    with run.lock():
        if not resume:
            run.require_unbegun()  # another may have trained here between the folder and the lock
        changed = require_same_training(run, recipe) if resume and run.has_begun() else []
        write_text(run.recipe, dump_recipe(recipe))
        with EventLog(run.events) as log:
            recorder = Recorder(
                run=run,
                log=log,
                preview=recipe.preview,
                checkpoint=recipe.checkpoint,
                stop=stop,
                environment=environment_of(accelerator.device, accelerator.num_processes),
                listeners=[*listeners, *tracker_listener(recipe, run, accelerator)],
            )
            accelerator.wait_for_everyone()
            with _ending_in_log(recorder, recipe):
                for message in changed:
                    recorder.warn(message)
                for name in discard_commands(run, "left over from before this process started"):
                    recorder.warn(f"commands/{name}: set aside: it was meant for an earlier process")
                yield recorder


@contextmanager
def _ending_in_log(recorder: Recorder, recipe: Recipe) -> Iterator[None]:
    """Write a failure into the log before it goes on to the command line."""
    try:
        yield
    except StoppedEarlyError:
        recorder.emit("run_finished", status="stopped", message="stopped before the first step")
        raise
    except torch.cuda.OutOfMemoryError as error:
        advice = memory_advice(recipe)
        recorder.emit("run_finished", status="failed", message=advice)
        raise OutOfMemoryError(advice) from error
    except Exception as error:
        recorder.emit("run_finished", status="failed", message=str(error) or type(error).__name__)
        raise


def memory_advice(recipe: Recipe) -> str:
    """Return what a run that did not fit its card can go on with, and what needs a new run, for what it trains."""
    match recipe.adapter:
        case SmallAdapter():
            smaller = "a smaller adapter.unet.rank, "
        case FullTraining():
            smaller = "adapter.kind=lora, which trains a hundredth of the weights, "
        case VaeTraining():
            smaller = "adapter.parts=decoder, "
    return (
        "the card has too little memory for this recipe. What a run can go on with: --resume "
        "training.gradient_checkpointing=true training.micro_batch_size=1. What needs a new run (name=…): "
        f"{smaller}or data.buckets.kind=generated data.buckets.resolution=768"
    )


def assemble(
    recipe: Recipe,
    pictures: Pictures,
    accelerator: Accelerator,
    recorder: Recorder | None,
    stop: StopRequest,
) -> Job:
    """Put together what the recipe's `adapter.kind` trains. A new kind of training joins here.

    Without a recorder nothing is written anywhere, and nothing is drawn: only the main process draws.
    """
    match recipe.adapter:
        case SmallAdapter() | FullTraining():
            return assemble_denoising(recipe, pictures, accelerator, recorder, stop)
        case VaeTraining():
            assert isinstance(pictures, TrainingPictures), "streams are refused for a VAE when they are planned"
            return assemble_autoencoding(recipe, pictures, accelerator, recorder, stop)


def _restore(recorder: Recorder, state: TrainingState[Task], *, resume: bool) -> None:
    """Go back to the newest whole checkpoint, and say what is not as it was."""
    checkpoint, damaged = newest_whole_checkpoint(recorder.run.checkpoints) if resume else (None, [])
    recorder.emit(
        "run_started",
        name=recorder.run.path.name,
        total_steps=state.total_steps,
        resumed_from=None if checkpoint is None else checkpoint.step,
        environment=recorder.environment,
        steps_per_epoch=state.pictures.steps_per_epoch,
        num_pictures=state.pictures.num_pictures,
        num_parameters=sum(parameter.numel() for parameter in state.parameters.values()),
    )
    for message in damaged:
        recorder.warn(message + " An older checkpoint is used.")
    if checkpoint is None:
        if resume:
            recorder.warn("there is no whole checkpoint; training starts from the first step")
        return
    restore_state(state, checkpoint)
    if state.global_step >= state.total_steps:
        recorder.warn(
            f"nothing is trained: the run stands at step {state.global_step}, and training.steps is "
            f"{state.total_steps}. It is exported as it is. To go on: --resume training.steps=…, above "
            f"{state.global_step}"
        )
    changed = differences(checkpoint.extra["environment"], recorder.environment)
    changed += [f"the {name} changed" for name in differing(checkpoint.extra["inputs"], recorder.inputs)]
    if changed:
        recorder.warn(
            "this resume is compatible, but not equal bit for bit to a run without a break: " + "; ".join(changed)
        )


def restore_state(state: TrainingState[Task], checkpoint: Checkpoint) -> None:
    """Put a checkpoint into a freshly assembled state.

    Raises:
        RecipeError: it was saved with another optimizer, as `auto` chooses on another device.
    """
    kind = checkpoint.extra["optimizer"]
    if kind != state.optimizer_kind:
        raise RecipeError(
            f"training.optimizer.kind: the checkpoint was saved with {kind}, and here it would be "
            f"{state.optimizer_kind}. Go on with: --resume training.optimizer.kind={kind}"
        )
    apply_checkpoint(checkpoint, state.parameters, state.optimizer, state.initial)
    if state.ema is not None:
        if checkpoint.averages is None:
            raise RecipeError("training.ema: the checkpoint holds no averaged weights. Resume with training.ema=null")
        state.ema.load(checkpoint.averages)
    state.scaler.load_state_dict(checkpoint.extra["scaler"])
    state.skipped_in_a_row = checkpoint.extra["skipped_in_a_row"]
    state.global_step = checkpoint.step
    state.pictures.go_to(checkpoint.step, checkpoint.extra.get("pictures"))


def _run(recipe: Recipe, pictures: Pictures, job: Job, recorder: Recorder, stop: StopRequest) -> TrainResult:
    """Train, then export."""
    state = job.state
    write_lines(recorder.run.manifest, pictures.lines())
    if state.global_step == 0 and recipe.preview.at_start:
        recorder.draw_previews(state)
    recorder.emit("stage", step=state.global_step, name="train", done=state.global_step, total=state.total_steps)
    finished = training_loop(state, recorder)
    exported = _NOTHING
    if finished:
        recorder.emit("stage", step=state.global_step, name="export", done=0, total=1)
        exported = _export(recorder, job)
    recorder.emit(
        "run_finished",
        step=state.global_step,
        status="finished" if finished else "stopped",
        message="" if finished else f"stopped at step {state.global_step} of {state.total_steps}; --resume goes on",
        exports=[path.relative_to(recorder.run.path).as_posix() for path in exported.files],
    )
    return TrainResult(recorder.run, finished, 0 if finished else stop.exit_code, exported)


def _export(recorder: Recorder, job: Job) -> Exported:
    """Export what was trained.

    Raises:
        AtelierError: it cannot be written so; the message says how to get it from the checkpoint.
    """
    try:
        with job.state.averaged():
            return job.export(recorder.run, job.state.global_step)
    except DiskError:
        raise
    except AtelierError as error:
        raise AtelierError(
            f"{error} The training is done and saved. Export it with: "
            f"atelier export {recorder.run.path} --precision fp32"
        ) from error
