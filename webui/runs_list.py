"""The list of runs and the queue in words: what a person reads there, and the curves of several runs at once."""

from collections.abc import Iterable, Mapping

from finetune.queue.items import ENDED, Item, QueueContent
from webui.monitor.plots import Points, add_line
from webui.monitor.words import STATUS_WORDS, ago
from webui.run_state import RunState
from webui.runs import RunSummary

MEASURES: dict[str, str] = {
    "loss": "Loss, smoothed",
    "grad_norm": "Gradient norm, smoothed",
    "seconds": "Seconds a step, smoothed",
}
"""What runs can be compared by."""

_QUEUE_WORDS = {
    "waiting": "Waiting",
    "starting": "Starting",
    "running": "Running",
    "finished": "Finished",
    "failed": "Failed",
    "stopped": "Stopped and saved",
    "cancelled": "Cancelled",
    "lost": "Ended unseen",
}


def facts_of(run: RunSummary) -> str:
    """Return a run's state in one line."""
    words = [STATUS_WORDS[run.status]]
    if run.total_steps:
        words.append(f"step {run.step:,} of {run.total_steps:,}")
    if run.loss_smoothed is not None:
        words.append(f"loss {run.loss_smoothed:.4g}")
    words.append(ago(run.updated_at))
    return " · ".join(words)


def item_words(item: Item, content: QueueContent) -> str:
    """Return the state of a queue's item in words: its place, or how it ended."""
    if item.state == "waiting":
        return f"Waiting, {_place(content, item)} in line"
    words = _QUEUE_WORDS[item.state]
    if item.state == "running" and item.cancel_requested:
        words = "Saving and stopping"
    if item.exit_code:
        words += f" (exit code {item.exit_code})"
    return f"{words}. {item.message}" if item.message else words


def queue_headline(content: QueueContent, *, has_runner: bool) -> str:
    """Return how the queue is, and what keeps it from going on."""
    waiting, active = len(content.waiting()), content.active()
    words = f"{waiting} waiting" if waiting else "Nothing waits"
    if active is not None:
        words += ", 1 running"
    if content.paused:
        return f"{words}. Paused: nothing further is begun."
    if waiting and not has_runner:
        return f"{words}. Nobody runs the queue now: press Go on."
    return f"{words}."


def can_remove(item: Item) -> bool:
    """Whether an item may be taken off the list."""
    return item.state in ENDED or item.state == "waiting"


def compared(states: Mapping[str, RunState], measure: str) -> Points:
    """Return a measure of several runs as points, a line a run.

    Args:
        states: by the name the line has.
        measure: a key of `MEASURES`.
    """
    assert measure in MEASURES, measure
    points = Points([], [], [])
    for name, state in states.items():
        add_line(points, name, state.curve("step"), state.smoothed(measure))
    return points


def counted(runs: Iterable[RunSummary]) -> str:
    """Return how many runs there are, by how they are."""
    found = list(runs)
    running = sum(run.status == "running" for run in found)
    words = f"{len(found)} run" + ("" if len(found) == 1 else "s")
    return f"{words}, {running} training now" if running else words


def _place(content: QueueContent, item: Item) -> str:
    place = [each.id for each in content.waiting()].index(item.id) + 1
    return {1: "next"}.get(place, f"place {place}")
