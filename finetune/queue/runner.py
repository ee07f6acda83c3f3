"""The runner of a queue: one item after the other, each begun by a keeper of its own. It trains nothing itself."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence

from finetune.errors import AtelierError
from finetune.queue.items import ENDED, PROGRAM, Item, QueueContent
from finetune.queue.store import Queue
from finetune.run.durable import disk_errors

Listener = Callable[[Item], None]
"""Called with an item whenever its state has changed."""


class Runner:
    """Runs a queue for as long as it is asked to."""

    def __init__(
        self,
        queue: Queue,
        *,
        program: Sequence[str] = PROGRAM,
        poll_seconds: float = 0.5,
        listener: Listener | None = None,
    ) -> None:
        """Prepare to run `queue`.

        Args:
            queue: what to run.
            program: what `train` and its words are given to.
            poll_seconds: how often the queue is looked at.
            listener: learns of every item that begins or ends.
        """
        self.queue = queue
        self.program = tuple(program)
        self.poll_seconds = poll_seconds
        self.listener = listener
        self._keeper: subprocess.Popen[bytes] | None = None  # of the last item that this runner began
        self._attempt: str | None = None
        self._seen: dict[int, str] = {}

    def run(self, *, until_empty: bool = False) -> None:
        """Run items as they come; with `until_empty`, return when none runs and none may be begun.

        Raises:
            AtelierError: another process runs the queue, its file is damaged, or the system is Windows.
        """
        if os.name == "nt":
            raise AtelierError(
                "`atelier queue run` needs Linux or macOS: start the runs one by one, with atelier train"
            )
        with self.queue.runner_lock():
            self._seen = {item.id: item.state for item in self.queue.read().items}
            while True:
                content = self.queue.read()
                self._tell(content)
                if self._is_busy(content.active()):
                    time.sleep(self.poll_seconds)
                elif not self._start_next():
                    if until_empty and (content.paused or not content.waiting()):
                        self._tell(self.queue.read())
                        self._collect_keeper()
                        return
                    time.sleep(self.poll_seconds)

    def _is_busy(self, item: Item | None) -> bool:
        """Whether an item is being run; one that was left by a runner or a keeper that is gone is settled first."""
        own_keeper_lives = self._keeper is not None and self._keeper.poll() is None
        if item is None:
            return False
        if item.state == "running":
            if not own_keeper_lives:
                self.queue.give_up_the_dead()
            current = self.queue.read().item(item.id)
            return current is not None and current.state not in ENDED
        assert item.attempt is not None, "a claim has a name"
        if item.attempt != self._attempt:
            self.queue.release(item.id, item.attempt)
            return False
        if not own_keeper_lives:
            # It is recorded only if the keeper has left the item as it was.
            current = self.queue.read().item(item.id)
            if current is not None and current.state == "starting":
                message = f"it could not be begun; see {self.queue.log_of(item.id)}"
                self.queue.record_end(item.id, item.attempt, None, message)
            return False
        return True

    def _start_next(self) -> bool:
        """Claim the next item and start its keeper; False where there is none to begin."""
        attempt = uuid.uuid4().hex
        item = self.queue.claim_next(attempt)
        if item is None:
            return False
        self._collect_keeper()
        keeper = [sys.executable, "-m", "finetune.queue.keeper", str(self.queue.folder), str(item.id), attempt]
        log = self.queue.log_of(item.id)
        with disk_errors(log), log.open("ab") as output:
            self._keeper = subprocess.Popen(
                [*keeper, *self.program],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._attempt = attempt
        return True

    def _collect_keeper(self) -> None:
        """Wait for the keeper of an item that has ended: it has recorded that and is about to go."""
        if self._keeper is not None:
            self._keeper.wait()

    def _tell(self, content: QueueContent) -> None:
        for item in content.items:
            if self.listener is not None and self._seen.get(item.id, "waiting") != item.state:
                self.listener(item)
            self._seen[item.id] = item.state


def ensure_runner(queue: Queue) -> None:
    """Start a runner where the queue has none; where it is paused, none is needed yet."""
    if not queue.has_runner() and not queue.read().paused:
        start_runner(queue)


def start_runner(queue: Queue) -> "subprocess.Popen[bytes]":
    """Start `atelier queue run` as a process of its own, which outlives the one that asks; it prints to `runner.log`.

    Where the queue has a runner already, the new one says so there and ends.
    """
    with disk_errors(queue.folder):
        queue.folder.mkdir(parents=True, exist_ok=True)
        with (queue.folder / "runner.log").open("ab") as output:
            return subprocess.Popen(
                [*PROGRAM, "queue", "run", "--queue", str(queue.folder)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
