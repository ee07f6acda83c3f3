"""A run in words and figures, for a person who looks in: how it is, how far, how fast, what it warned of."""

import time
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote

from webui.run_reader import Seen
from webui.run_state import RunState, RunStatus

STATUS_WORDS: dict[RunStatus, str] = {
    "running": "Running",
    "finished": "Finished",
    "stopped": "Stopped and saved",
    "failed": "Failed",
    "interrupted": "Interrupted",
}

_STAGES = {
    "cache": "Looking into the cache",
    "prompts": "Encoding the preview prompts",
    "captions": "Encoding captions",
    "latents": "Encoding pictures",
    "previews": "Drawing previews",
    "train": "Training",
    "export": "Exporting",
}
_GIB = 2**30


def duration(seconds: float) -> str:
    """Return a length of time as a person says it: '45 s', '3 min 20 s', '2 h 05 min', '3 days 4 h'."""
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(hours, 24)
    return f"{days} days {hours} h"


def ago(moment: float, now: float | None = None) -> str:
    """Return how long ago a moment was, in words that do not change every second."""
    passed = (time.time() if now is None else now) - moment
    if passed < 60:
        return "just now"
    return f"{duration(passed) if passed >= 3600 else f'{int(passed // 60)} min'} ago"


def rate(steps_per_second: float) -> str:
    """Return a speed by whichever way round has a number above one."""
    if steps_per_second >= 1:
        return f"{steps_per_second:.2f} steps/s"
    return f"{1 / steps_per_second:.2f} s/step"


def headline(seen: Seen) -> str:
    """Return how the run is in one line."""
    state = seen.state
    if seen.status == "running" and not len(state.steps):
        return stage_words(state)
    words = STATUS_WORDS[seen.status]
    if seen.status == "running" and state.stage in _STAGES and state.stage != "train":
        words = stage_words(state)
    if state.total_steps:
        words += f", step {state.step:,} of {state.total_steps:,}"
    if seen.status == "running" and state.seconds_left is not None and len(state.steps):
        words += f", about {duration(state.seconds_left)} left"
    return words


def stage_words(state: RunState) -> str:
    """Return what a run is doing before and between its steps."""
    words = _STAGES.get(state.stage, state.stage.capitalize() or "Starting: opening the model")
    if state.stage_done is not None and state.stage_total:
        words += f", {state.stage_done:,} of {state.stage_total:,}"
    return words


def facts(seen: Seen) -> list[tuple[str, str]]:
    """Return what is known of the run as names and values, what is not known left out."""
    state = seen.state
    found: list[tuple[str, str | None]] = [
        ("Loss", _number(state.loss_smoothed, ".4g")),
        ("Loss, this step", _number(state.loss, ".4g")),
        ("Speed", rate(state.steps_per_second) if state.steps_per_second else None),
        ("Gradient norm", _number(state.last("grad_norm"), ".3g")),
        ("Memory", _memory(state.last("memory_bytes"))),
        ("Epoch", _epoch(state)),
        ("Pictures", _count(state.num_pictures)),
        ("Parameters trained", _count(state.num_parameters)),
        *((f"Learning rate, {_group(name)}", f"{value:.3g}") for name, value in state.learning_rates.items()),
        ("Started", _moment(state.started_at)),
        ("Starts", str(len(state.parts)) if len(state.parts) > 1 else None),
        ("Device", state.environment.get("device") or None),
    ]
    return [(name, value) for name, value in found if value is not None]


def messages(seen: Seen) -> list[tuple[str, str]]:
    """Return what a person ought to read, each with its weight: 'error', 'warning' or 'note'."""
    state = seen.state
    found: list[tuple[str, str]] = []
    if seen.status == "failed":
        found.append(("error", state.message or "It failed, and its log does not say why."))
    if seen.status == "interrupted":
        found.append(
            (
                "warning",
                "Nothing is training here, and the log does not say how it ended: the process was killed, or the "
                "machine went off. Nothing that was saved is lost; go on with Resume.",
            )
        )
    if state.num_damaged:
        found.append(("warning", f"{state.num_damaged} lines of the log could not be read and are left out."))
    warned_of = [("" if warned.step is None else f"Step {warned.step}: ") + warned.message for warned in state.warnings]
    # Each start of a run warns of its pictures again.
    found += [("warning", words) for words in dict.fromkeys(reversed(warned_of))]
    if state.num_warnings > len(state.warnings):
        found.append(("note", f"{state.num_warnings - len(state.warnings)} earlier warnings are in events.jsonl."))
    return found


def command_lines(run: Path) -> list[tuple[str, str]]:
    """Return what the buttons do, and the line that does the same."""
    name = quote(str(run))
    return [
        ("Save now", f"atelier tell {name} save"),
        ("Preview now", f"atelier tell {name} preview"),
        ("Stop and save", f"atelier tell {name} stop"),
        ("Resume", f"atelier train {name} --resume"),
    ]


def _group(name: str) -> str:
    return name.replace("_", " ").replace("unet", "U-Net")


def _number(value: float | None, form: str) -> str | None:
    return None if value is None else format(value, form)


def _count(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _memory(value: float | None) -> str | None:
    return None if value is None else f"{value / _GIB:.2f} GiB"


def _epoch(state: RunState) -> str | None:
    if not state.epoch_steps or not state.total_steps:
        return None
    return f"{state.step / state.epoch_steps:.1f} of {state.total_steps / state.epoch_steps:.1f}"


def _moment(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
