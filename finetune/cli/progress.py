"""A run on the terminal: a live bar where there is one, plain lines elsewhere. It only reads events."""

import os
import statistics
import sys
import time
from collections import deque
from typing import IO, Any, Protocol

from finetune.cli.output import format_bytes, format_duration, format_pace, format_rate
from finetune.run.events import Event

_RATE_STEPS = 20
_PLAIN_EVERY_SECONDS = 10.0
_LOSS_STEPS = 50


class EventListener(Protocol):
    """Sees every event of a run, and is closed at its end."""

    def __call__(self, event: Event) -> None:
        """Show one event."""
        ...

    def close(self) -> None:
        """Give the terminal back."""
        ...


def choose_listener(*, as_json: bool) -> EventListener:
    """Return what suits where the output goes."""
    if as_json:
        return PlainLines(sys.stderr)
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        return LiveBar()
    return PlainLines(sys.stdout)


class Figures:
    """The rate, time left and averaged loss of a run so far."""

    def __init__(self) -> None:
        self.total_steps = 0
        self._times: deque[tuple[int, float]] = deque(maxlen=_RATE_STEPS + 1)
        self._losses: deque[float] = deque(maxlen=_LOSS_STEPS)

    def add(self, event: Event) -> None:
        """Take a step's event in."""
        self._times.append((event["step"], event["seconds"]))
        if event["loss"] is not None:
            self._losses.append(event["loss"])

    def seconds_per_step(self) -> float:
        """Return the median over the last steps, so that a preview in between does not count."""
        return statistics.median(seconds for _, seconds in self._times) if self._times else 0.0

    def line(self, event: Event) -> str:
        """Say how a step went."""
        rate = self.seconds_per_step()
        rates = " ".join(f"{_SHORT[name]} {value:.2e}" for name, value in event["learning_rates"].items())
        loss = statistics.fmean(self._losses) if self._losses else float("nan")
        return (
            f"loss {loss:.4f}  lr {rates}  {format_rate(rate)}  "
            f"{format_duration(rate * (self.total_steps - event['step']))} left  {format_bytes(event['memory_bytes'])}"
        )


class StageFigures:
    """The rate and time left of the stages before training: encoding, loading."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[int, float]] = {}

    def is_new(self, event: Event) -> bool:
        """Whether a stage has just been heard of, and has something left to do."""
        return event["name"] not in self._begun and event["done"] < event["total"]

    def line(self, event: Event) -> str:
        """Say how fast a stage goes on, not counting what was there before; '' while that is not known."""
        now = time.monotonic()
        first, began = self._begun.setdefault(event["name"], (event["done"], now))
        done, left = event["done"] - first, event["total"] - event["done"]
        if done <= 0 or now <= began:
            return ""
        seconds_each = (now - began) / done
        end = f"{format_duration(seconds_each * left)} left" if left else format_duration(now - began)
        return f"{format_pace(seconds_each)}  {end}"


_QUIET_STAGES = ("train", "export", "previews", "cache")
_SHORT = {"unet": "unet", "text_encoder": "te1", "text_encoder_2": "te2", "vae": "vae"}


class PlainLines:
    """One line now and then, for logs and pipes."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._figures = Figures()
        self._stages = StageFigures()
        self._last = 0.0

    def __call__(self, event: Event) -> None:
        """Write a line for what a reader of a log wants to know."""
        if event["kind"] == "run_started":
            self._figures.total_steps = event["total_steps"]
        if event["kind"] == "step":
            self._figures.add(event)
            now = time.monotonic()
            if now - self._last < _PLAIN_EVERY_SECONDS and 1 < event["step"] < self._figures.total_steps:
                return
            self._last = now
            self._say(f"step {event['step']}/{self._figures.total_steps}  {self._figures.line(event)}")
            return
        if event["kind"] == "stage" and event["name"] not in _QUIET_STAGES:
            self._stage(event)
            return
        text = describe(event)
        if text:
            self._say(text)

    def close(self) -> None:
        """Write what is left in the buffer."""
        self._stream.flush()

    def _stage(self, event: Event) -> None:
        """Say that a stage begins, and now and then how far it is."""
        is_new, figures, now = self._stages.is_new(event), self._stages.line(event), time.monotonic()
        if is_new:
            self._last = now
            self._say(f"{event['name']} …")
        elif figures and now - self._last >= _PLAIN_EVERY_SECONDS:
            self._last = now
            self._say(f"{event['name']} {event['done']}/{event['total']}  {figures}")

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class LiveBar:
    """A bar with rate, time left, loss, learning rates and memory; messages scroll above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._console = Console(highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            transient=False,
        )
        self._figures = Figures()
        self._stages = StageFigures()
        self._tasks: dict[str, Any] = {}
        self._progress.start()

    def __call__(self, event: Event) -> None:
        """Move the bar, or write a line above it."""
        if event["kind"] == "run_started":
            self._figures.total_steps = event["total_steps"]
        if event["kind"] == "stage" and event["name"] not in ("train", "cache"):
            self._move(event["name"], event["done"], event["total"], self._stages.line(event))
        elif event["kind"] == "step":
            self._figures.add(event)
            self._move("train", event["step"], self._figures.total_steps, self._figures.line(event))
        else:
            text = describe(event)
            if text:
                self._progress.print(text, markup=False)

    def close(self) -> None:
        """Leave the last state of the bar on the screen."""
        self._progress.stop()

    def _move(self, name: str, done: int, total: int, figures: str = "") -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, figures=figures)
        self._progress.update(self._tasks[name], completed=done, total=total, figures=figures)


def describe(event: Event) -> str:
    """Say in words what an event means to a person; '' for what is not worth a line."""
    match event["kind"]:
        case "run_started":
            start = f"resumed from step {event['resumed_from']}, " if event["resumed_from"] is not None else ""
            pictures = "pictures as they come"
            if event["num_pictures"] is not None:
                pictures = f"{event['num_pictures']} pictures, {event['steps_per_epoch']} steps an epoch"
            parameters = f"{event['num_parameters']:,} trainable parameters"
            return f"{event['name']}: {start}{event['total_steps']} steps, {pictures}, {parameters}"
        case "warning":
            return f"warning: {event['message']}"
        case "preview":
            return f"preview at step {event['step']}: {event['pictures'][0]}"
        case "checkpoint":
            return f"saved {event['path']}"
        case "command_done":
            return f"done: {event['command']}"
        case "stage" if event["name"] == "cache" and event["folder"] is not None:
            return f"cache {event['folder']}: {event['done']} of {event['total']} values are there"
        case _:
            return ""
