"""Which of some steps of a run had the lowest smoothed training loss, as its log tells. It writes nothing.

The training loss is noise around a slow fall, and knows nothing of pictures that were not trained on: the lowest is a
hint where to look, not a proof of the best pictures.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from finetune.run.events import Event, finite_number, read_events
from finetune.run.folder import RunFolder

DECAY = 0.98
"""A running mean over about the last fifty steps, as the terminal and the page show."""


@dataclass(frozen=True)
class StepLoss:
    """A step, and the running mean of the loss after it."""

    step: int
    loss: float


def lowest_loss(run: RunFolder, steps: Iterable[int]) -> StepLoss | None:
    """Return which of `steps` had the lowest smoothed loss, the latest of equals; None where none has a loss."""
    means = smoothed_losses(read_events(run.events)[0])
    found = [StepLoss(step, means[step]) for step in sorted(set(steps), reverse=True) if step in means]
    return min(found, key=lambda each: each.loss, default=None)


def smoothed_losses(events: Iterable[Event]) -> dict[int, float]:
    """Return the running mean of the loss after every step: exponential, its beginning's bias divided out.

    The mean of step n is sum_k (1 - d) d^(n-k) loss_k / (1 - d^n), as Kingma and Ba correct Adam's moments
    (arXiv:1412.6980, section 3). A loss that was not finite is passed over, and the mean stands still there; steps
    before the first finite one have none. What a resumed run repeated counts as it was last.
    """
    means, mean, count = dict[int, float](), 0.0, 0
    for step, loss in sorted(_last_losses(events).items()):
        if loss is not None:
            mean, count = DECAY * mean + (1 - DECAY) * loss, count + 1
        if count:
            means[step] = mean / (1 - DECAY**count)
    return means


def _last_losses(events: Iterable[Event]) -> dict[int, float | None]:
    """Return each step's loss as it was last, None where it was not finite; a resume forgets what lies beyond it."""
    losses = dict[int, float | None]()
    last = -1
    for event in events:
        if event["kind"] == "run_started":
            last = _forget(losses, last, _whole(event.get("resumed_from")) or 0)
        step = _whole(event.get("step"))
        if event["kind"] == "step" and step is not None:
            last = _forget(losses, last, step - 1)
            losses[step] = finite_number(event.get("loss"))
            last = step
    return losses


def _forget(losses: dict[int, float | None], last: int, after: int) -> int:
    """Take away the steps beyond `after`, where there are any; return the last that is left."""
    if last <= after:
        return last
    for step in [step for step in losses if step > after]:
        del losses[step]
    return after


def _whole(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None
