"""The queue on the disk: adding, ordering, pausing, cancelling, removing. It starts no process.

Every change reads `queue.json`, decides, and replaces the file in one step, all under one lock: a kill at any moment
leaves the queue as it was before or after. Reading needs no lock.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from finetune.errors import AtelierError, RecipeError
from finetune.queue.items import ENDED, Item, ProcessIdentity, QueueContent
from finetune.queue.processes import ask_to_stop, is_alive
from finetune.run.durable import disk_errors, write_json
from finetune.run.folder import RunFolder
from finetune.run.locks import held, is_held

_LOCK_SECONDS = 30.0

# A reader that asks whether a runner lives holds its lock for an instant; a runner that starts waits that long.
_RUNNER_PATIENCE_SECONDS = 1.0


class Queue:
    """One queue's folder."""

    def __init__(self, folder: Path | str) -> None:
        """Name the queue at `folder`; it is made with the first item."""
        self.folder = Path(folder).absolute()

    @property
    def file(self) -> Path:
        """The items in order."""
        return self.folder / "queue.json"

    def log_of(self, item_id: int) -> Path:
        """Return where an item's command prints."""
        return self.folder / "logs" / f"{item_id:04d}.log"

    def read(self) -> QueueContent:
        """Return the queue as it stands; one that is not there is empty.

        Raises:
            AtelierError: the file is damaged. It is left as it is.
        """
        try:
            return QueueContent.model_validate_json(self.file.read_bytes())
        except FileNotFoundError:
            return QueueContent()
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise AtelierError(
                f"{self.file}: is no queue of this version ({place}: {first['msg']}). Mend it, or move it away to "
                "begin another"
            ) from error

    def add(self, recipe: str, overrides: Sequence[str] = (), *, resume: bool = False) -> Item:
        """Put a run at the end of the queue.

        Args:
            recipe: a path, a run's folder, or the name of one that ships, as it would be typed here.
            overrides: `key.path=value`.
            resume: go on with the run that lies in the recipe's folder.

        Raises:
            RecipeError: the recipe is wrong, or its run folder is taken, by a run or by an item before this one.
        """
        from finetune.recipe import load_recipe

        for word in (recipe, *overrides):
            if word.startswith("-"):
                raise RecipeError(f"{word!r}: begins as an option does. Write ./{word} where it is a file")
        settings = load_recipe(recipe, overrides)
        run = (Path(settings.output_dir).expanduser() / settings.name).absolute()

        def add(content: QueueContent) -> QueueContent:
            before = [item for item in content.items if item.state not in ENDED and item.run == str(run)]
            if before and not resume:
                raise RecipeError(
                    f"item {before[0].id} of the queue has the run folder {run}. Name this run otherwise: "
                    f"name={settings.name}-2"
                )
            if not resume and RunFolder(run).has_begun():
                raise RecipeError(
                    f"{run} already holds a run. Go on with it: --resume. Queue another beside it: "
                    f"name={settings.name}-2"
                )
            if resume and not before:
                RunFolder.open(run)
            item = Item(
                id=content.next_id,
                recipe=recipe,
                overrides=tuple(overrides),
                resume=resume,
                cwd=str(Path.cwd()),
                run=str(run),
                added_at=round(time.time(), 3),
            )
            return content.with_items((*content.items, item)).model_copy(update={"next_id": item.id + 1})

        return self.change(add).items[-1]

    def move(self, item_id: int, place: int) -> QueueContent:
        """Put a waiting item at a place among those that wait; 1 is next, and what is beyond the end is the end.

        Raises:
            RecipeError: there is no such item, it does not wait, or the place is below 1.
        """
        if place < 1:
            raise RecipeError(f"place {place}: the next item is at 1")

        def move(content: QueueContent) -> QueueContent:
            moved = _require(content, item_id)
            if moved.state != "waiting":
                raise RecipeError(f"item {item_id} is {moved.state}; only what waits can be moved")
            rest = [item for item in content.waiting() if item.id != item_id]
            rest.insert(place - 1, moved)
            order = iter(rest)
            return content.with_items(next(order) if item.state == "waiting" else item for item in content.items)

        return self.change(move)

    def pause(self, *, paused: bool = True) -> QueueContent:
        """Begin no further item until the queue goes on; what runs is left to run."""
        return self.change(lambda content: content.model_copy(update={"paused": paused}))

    def cancel(self, item_id: int) -> Item:
        """Take a waiting item out of turn, or ask a running one to save and stop; a second time it stops at once.

        Raises:
            RecipeError: there is no such item, or it has ended.
        """

        def cancel(content: QueueContent) -> QueueContent:
            item = _require(content, item_id)
            if item.state in ENDED:
                raise RecipeError(f"item {item_id} has ended: it is {item.state}")
            if item.state == "running" and (is_alive(item.process) or is_alive(item.keeper)):
                return content.with_item(item.model_copy(update={"cancel_requested": True}))
            # Without its claim, a keeper that is about to begin it lets go.
            changes = {"state": "cancelled", "attempt": None, "ended_at": round(time.time(), 3)}
            return content.with_item(item.model_copy(update=changes))

        item = _require(self.change(cancel), item_id)
        if item.state == "running":
            ask_to_stop(item.process)
        return item

    def remove(self, item_id: int) -> Item:
        """Take an item that waits or has ended out of the list, with its log; its run folder stays.

        Raises:
            RecipeError: there is no such item, or it is being run.
        """
        removed: list[Item] = []

        def remove(content: QueueContent) -> QueueContent:
            item = _require(content, item_id)
            if item.state != "waiting" and item.state not in ENDED:
                raise RecipeError(f"item {item_id} is {item.state}. Cancel it first: atelier queue cancel {item_id}")
            removed.append(item)
            return content.with_items(other for other in content.items if other.id != item_id)

        self.change(remove)
        self.log_of(item_id).unlink(missing_ok=True)
        return removed[0]

    def claim_next(self, attempt: str) -> Item | None:
        """Claim the next waiting item for a keeper that knows `attempt`; None where none may be begun now."""
        claimed: list[Item] = []

        def claim(content: QueueContent) -> QueueContent:
            waiting = content.waiting()
            if content.paused or content.active() is not None or not waiting:
                return content
            claimed.append(waiting[0].model_copy(update={"state": "starting", "attempt": attempt}))
            return content.with_item(claimed[0])

        self.change(claim)
        return claimed[0] if claimed else None

    def begin(self, item_id: int, attempt: str, keeper: ProcessIdentity, process: ProcessIdentity) -> Item | None:
        """Record that a claimed item's command begins now; None where the claim holds no more, and it must not."""

        def begin(content: QueueContent) -> QueueContent:
            item = content.item(item_id)
            if item is None or item.state != "starting" or item.attempt != attempt:
                return content
            changes = {"state": "running", "started_at": round(time.time(), 3), "keeper": keeper, "process": process}
            return content.with_item(item.model_copy(update=changes))

        item = self.change(begin).item(item_id)
        return item if item is not None and item.state == "running" and item.attempt == attempt else None

    def record_end(self, item_id: int, attempt: str, exit_code: int | None, message: str = "") -> None:
        """Record how the attempt at an item ended; None where nobody saw it. What is recorded already stays."""

        def record(content: QueueContent) -> QueueContent:
            item = content.item(item_id)
            if item is None or item.attempt != attempt or item.state in ENDED:
                return content
            state = _state_after(item, exit_code)
            changes = {"state": state, "exit_code": exit_code, "message": message, "ended_at": round(time.time(), 3)}
            return content.with_item(item.model_copy(update=changes))

        self.change(record)

    def release(self, item_id: int, attempt: str) -> None:
        """Let go of a claim whose runner is gone: the item waits again, and a keeper that comes late finds no claim."""

        def release(content: QueueContent) -> QueueContent:
            item = content.item(item_id)
            if item is None or item.state != "starting" or item.attempt != attempt:
                return content
            return content.with_item(item.model_copy(update={"state": "waiting", "attempt": None}))

        self.change(release)

    def give_up_the_dead(self) -> None:
        """Mark an item whose command and keeper are both gone, without a word of its end, as lost."""

        def give_up(content: QueueContent) -> QueueContent:
            item = content.active()
            # Looked at under the lock: a keeper that has recorded the end has done so before it went.
            if item is None or item.state != "running" or is_alive(item.keeper) or is_alive(item.process):
                return content
            message = (
                f"it ended unseen; see {self.log_of(item.id)}. Go on with it: atelier queue add {item.run} --resume"
            )
            changes = {"state": "lost", "message": message, "ended_at": round(time.time(), 3)}
            return content.with_item(item.model_copy(update=changes))

        self.change(give_up)

    def change(self, decide: Callable[[QueueContent], QueueContent]) -> QueueContent:
        """Replace the content by what `decide` makes of it, with nobody else changing it meanwhile, and return it.

        Raises:
            AtelierError: the file is damaged, or another process holds the lock for too long.
            DiskError: it cannot be written. The queue is then as it was.
        """
        with disk_errors(self.folder):
            (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        refusal = f"{self.folder}: another process has held the queue for {_LOCK_SECONDS:.0f} s"
        with held(self.folder / ".lock", _LOCK_SECONDS, refusal):
            before = self.read()
            after = decide(before)
            if after is not before:
                write_json(self.file, after.model_dump(mode="json"))
            return after

    @contextlib.contextmanager
    def runner_lock(self) -> Iterator[None]:
        """Be the one runner for the length of the block. The lock ends with the process, however that ends.

        Raises:
            AtelierError: there is a runner.
        """
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        refusal = f"{self.folder}: another process is running this queue already"
        with held(self.folder / ".runner.lock", _RUNNER_PATIENCE_SECONDS, refusal):
            yield

    def has_runner(self) -> bool:
        """Whether a process is running the queue now."""
        return is_held(self.folder / ".runner.lock")


def _require(content: QueueContent, item_id: int) -> Item:
    item = content.item(item_id)
    if item is None:
        known = ", ".join(str(each.id) for each in content.items) or "none"
        raise RecipeError(f"no item {item_id} in the queue. There are: {known}")
    return item


def _state_after(item: Item, exit_code: int | None) -> str:
    if exit_code == 0:
        return "finished"
    if item.cancel_requested:
        return "cancelled"
    return "stopped" if exit_code in (130, 143) else "failed"
