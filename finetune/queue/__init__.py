"""A queue of runs on the disk: one after the other, whoever is watching. Imports no torch.

queue/
  queue.json       every item in order, and whether the queue is paused; always whole, changed under `.lock`
  logs/0003.log    what the item's command printed
  .runner.lock     held by the one runner, for as long as it lives

A *runner* (`atelier queue run`) takes the next item and starts a *keeper*, a small process that outlives the runner: it
starts the command a person would type, in a session of its own, and writes down how that ended. So a runner may be
killed at any moment: the training goes on, its end is recorded, and the next runner waits for it before it goes on.
"""

from finetune.queue.items import ENDED, Item, QueueContent
from finetune.queue.runner import Runner, ensure_runner, start_runner
from finetune.queue.store import Queue

__all__ = ["ENDED", "Item", "Queue", "QueueContent", "Runner", "ensure_runner", "start_runner"]
